"""Making room on an idle worker: which residents go, by what they would cost to miss, and that cost.

An instance is worth its load time, times the chance that it is wanted again, less when another worker holds a copy;
of those that may go, the one goes first that is worth least for its memory (as in GreedyDual-Size-Frequency,
Cherkasova 1998, with a chance that is learned over hours in the place of a clock for each worker).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from stoker.core.messages import SetupKey
from stoker.core.vram import GIB, wanted_bytes
from stoker_scheduler.actions import Evict, Rules, Why
from stoker_scheduler.fleet import Fleet, Worker
from stoker_scheduler.knowledge import Knowledge
from stoker_scheduler.parked import Parked, miss_s
from stoker_scheduler.queues import Group, Queues
from stoker_scheduler.residents import Phase, Residence

NO_KEEP_ALIVES: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Room:
    """What must go, and the seconds of loading that this is expected to cost later."""

    evict: tuple[SetupKey, ...] = ()
    regret_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What eviction looks at."""

    now_ms: int
    queues: Queues
    fleet: Fleet
    knowledge: Knowledge
    rules: Rules


def make_room(worker: Worker, group: Group, facts: Facts) -> Room | Why:
    """The cheapest way to make room for a group's instance on an idle worker, or why there is none now.

    Memory that is being unloaded counts as used, but never causes further evictions; what the worker says that others
    hold is no room at all. An app that declares no GPU need and was seen to take GPU memory counts like any other.
    """
    staying = [r for r in worker.residents.values() if r.phase is not Phase.STOPPING]
    wanted, free = _memory(worker, group, facts)
    if wanted > free:
        return Why.CROWDED
    if wanted:
        free -= sum(_bytes_of(resident, worker, facts) for resident in staying)
    slots = worker.max_residents - len(staying)
    if slots >= 1 and free >= wanted:
        return Room() if _memory_is_back(worker, free, wanted, facts) else Why.FREEING
    going: list[Residence] = []
    for resident in sorted(staying, key=lambda r: (_worth(r, worker, facts), r.used_ms, r.setup_key)):
        if _may_go(resident, facts):
            going.append(resident)
            slots += 1
            free += _bytes_of(resident, worker, facts)
            if slots >= 1 and free >= wanted:
                needed = _needed(going, slots - 1, free - wanted, worker, facts)
                regret_s = sum(loss_s(each, worker, facts) for each in needed)
                return Room(tuple(each.setup_key for each in needed), regret_s)
    return Why.KEPT


def _needed(
    going: list[Residence], spare_slots: int, spare_bytes: int, worker: Worker, facts: Facts
) -> list[Residence]:
    """Those without which there is no room: a larger one that went later may have made enough for earlier ones to stay."""
    needed = []
    for resident in reversed(going):
        used = _bytes_of(resident, worker, facts)
        if spare_slots >= 1 and spare_bytes >= used:
            spare_slots -= 1
            spare_bytes -= used
        else:
            needed.append(resident)
    return needed[::-1]


def decide_unload(
    now_ms: int,
    queues: Queues,
    fleet: Fleet,
    rules: Rules,
    retired: frozenset[SetupKey] = frozenset(),
    keep_alives: Mapping[str, float] = NO_KEEP_ALIVES,
) -> tuple[Evict, ...]:
    """Idle and parked instances that must go: unused for as long as they are kept, or of a setup that no new task will have.

    `keep_alives` says for how many seconds those of an app are kept; the others for `idle_unload_s`.
    """
    if not (rules.idle_unload_s or retired or keep_alives):
        return ()
    return tuple(
        Evict(
            engine_id=worker.engine.id,
            worker_id=worker.id,
            setup_key=resident.setup_key,
            reason=reason,
        )
        for worker in fleet.workers.values()
        if not worker.lease and worker.engine.available
        for resident in _unloadable(worker)
        if (reason := _why_unload(resident, now_ms, rules, retired, keep_alives.get(resident.app)))
        and not queues.backlog(resident.setup_key)
    )


def _unloadable(worker: Worker) -> Iterator[Residence | Parked]:
    busy = {held.setup_key for held in worker.held}
    for resident in worker.residents.values():
        if resident.phase is Phase.READY and not resident.pinned and resident.setup_key not in busy:
            yield resident
    yield from worker.parked.values()


def _why_unload(
    resident: Residence | Parked,
    now_ms: int,
    rules: Rules,
    retired: frozenset[SetupKey],
    keep_s: float | None,
) -> str:
    if resident.setup_key in retired:
        return "a secret that it holds was changed or deleted"
    kept_s = keep_s if keep_s is not None else rules.idle_unload_s or inf
    if resident.unused or now_ms - max(resident.used_ms, resident.idle_ms) <= kept_s * 1000:
        return ""
    return f"not used for {kept_s:.0f} s" if kept_s else "its app is not kept after a task"


def _memory(worker: Worker, group: Group, facts: Facts) -> tuple[int, int]:
    """GPU memory that a group's instance is counted with, and what a worker without residents has for it."""
    needs, other = group.shape.needs, worker.vram.other_bytes
    capacity = worker.kind.capacity_bytes(needs)
    need = facts.knowledge.vram_bytes(group.setup_key, needs.vram_bytes, worker.device) if capacity else 0
    if not need:
        return 0, 0
    return wanted_bytes(need, capacity, other), capacity - other


def _bytes_of(resident: Residence, worker: Worker, facts: Facts) -> int:
    """GPU memory that a resident takes: reported, else learned."""
    return resident.vram_bytes or facts.knowledge.vram_bytes(resident.setup_key, 0, worker.device)


def _memory_is_back(worker: Worker, free: int, wanted: int, facts: Facts) -> bool:
    if not wanted:
        return True
    stopping = (r for r in worker.residents.values() if r.phase is Phase.STOPPING)
    return free - sum(_bytes_of(resident, worker, facts) for resident in stopping) >= wanted


def _may_go(resident: Residence, facts: Facts) -> bool:
    """Idle, and not so young that it has hardly paid for its load while tasks still wait for it."""
    if resident.pinned or resident.phase is not Phase.READY:
        return False
    if not facts.queues.backlog(resident.setup_key):
        return True
    age_s = (facts.now_ms - resident.loaded_ms) / 1000
    return age_s >= facts.rules.churn_factor * miss_s(resident, facts.knowledge)


def loss_s(resident: Residence, worker: Worker, facts: Facts) -> float:
    """Seconds of loading that its loss is expected to cost."""
    load_s = miss_s(resident, facts.knowledge)
    copies = max(1, len(facts.fleet.holders.at(resident.setup_key)))
    if facts.queues.backlog(resident.setup_key):
        return load_s / copies
    together = sum(each.phase is not Phase.STOPPING for each in worker.residents.values())
    chance = facts.knowledge.chance(resident.setup_key, facts.now_ms, together)
    return load_s * chance / copies


def _worth(resident: Residence, worker: Worker, facts: Facts) -> float:
    """Seconds of loading that a GiB of it saves; one that takes no memory counts as a GiB."""
    return loss_s(resident, worker, facts) * GIB / (_bytes_of(resident, worker, facts) or GIB)
