"""Where the next task of a group could start, and what it would wait for otherwise. Pure."""

from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from math import ceil
from typing import Final

from stoker.core.explanations import WAIT, Candidate
from stoker.core.messages import SetupKey, WorkerId
from stoker_scheduler.actions import GPU_SPARE_S, Assign, Reason, Start, Wait, Why
from stoker_scheduler.draft import Draft
from stoker_scheduler.eviction import Facts, loss_s, make_room
from stoker_scheduler.fleet import Worker
from stoker_scheduler.matching import GB, admits, candidates, fits, kinds
from stoker_scheduler.parked import start_s
from stoker_scheduler.queues import Group
from stoker_scheduler.residents import Phase

LOOK: Final = 64
"""Workers that one choice compares, at most: 1,000 would cost milliseconds and gain nothing."""
LOOK_BUSY: Final = 32
LATER_MAX: Final = 256
"""How deep a cold start may reach into its group for the task that would wait longest."""
FIRST_LOAD_PATIENCE: Final = 2.0
"""No second load of a model starts before one was measured, or took this many times its estimate."""
TOLD: Final = 5
"""Workers that an explanation names."""
LOOK_WARM: Final = 8
"""Idle workers with the instance that are compared, the most lately used first."""


@dataclass(frozen=True, slots=True)
class _Warmth:
    """The soonest warm start: how long the head would wait, how long the last one in line."""

    worker_id: WorkerId
    head_s: float
    tail_s: float
    copies: int
    loading: bool
    unmeasured: bool
    loads: int  # copies that are on their way


@dataclass(frozen=True, slots=True)
class _Cold:
    """The cheapest cold start."""

    worker: Worker
    start_s: float
    cost_s: float
    evict: tuple[SetupKey, ...]
    order: tuple[float, int, int, str, int]
    parked: bool


def is_startable(group: Group, draft: Draft) -> bool:
    """Whether an instance of the group's setup is idle somewhere, or may take a task behind one of its own."""
    facts, key = draft.facts, group.warm_key
    if group.session and facts.fleet.leaseholder(group.setup_key):
        return True
    return draft.has_idle(key) or bool(facts.fleet.one_key.at(key) and is_short(key, facts))


def is_short(key: SetupKey, facts: Facts) -> bool:
    """Whether tasks of a setup may be queued behind each other at a worker: they are known to be short."""
    knowledge, rules = facts.knowledge, facts.rules
    return rules.look_ahead > 0 and knowledge.knows_run(key) and knowledge.run_s(key) < rules.short_s


def place(group: Group, draft: Draft) -> tuple[Assign, Worker] | Wait:
    """What to do with the next task of a group.

    1. an idle warm worker  2. a place behind a short task of the same setup  3. wait for a warm worker, if
    that is sooner than loading  4. the cheapest cold start  5. wait, and say for what. A session's first task
    gets a worker in the same way, but never behind others; the later ones go to that worker alone.
    """
    if group.session:
        placed = _in_session(group, draft)
        if placed is not None:
            return placed
    worker = _idle_warm(group, draft)
    if worker is not None:
        return _assign(group, draft, worker, Start.WARM)
    worker = _ahead(group, draft)
    if worker is not None:
        return _assign(group, draft, worker, Start.AHEAD)
    warmth = _soonest_warm(group, draft)
    colds, hindrance = _cold_starts(group, draft)
    cold = colds[0] if colds else None
    if warmth is not None and (
        cold is None
        or warmth.unmeasured
        or (warmth.tail_s <= cold.cost_s and not _outlasts(group, cold, warmth, draft))
    ):
        why = Why.LOADING if warmth.loading else Why.WARM_BUSY
        load_s = cold.start_s if cold is not None else 0.0
        reason = Reason(why=why, worker_id=warmth.worker_id, wait_s=warmth.head_s, load_s=load_s)
        return Wait(group_id=group.id, reason=reason)
    if cold is not None:
        return _assign_cold(group, draft, colds, warmth)
    return Wait(group_id=group.id, reason=hindrance or _nowhere(group, draft))


def _outlasts(group: Group, cold: _Cold, warmth: _Warmth, draft: Draft) -> bool:
    """Whether short tasks have waited, one after the other, for as long as a load takes that costs nobody an instance.

    Each of them is served before a new copy would be there, and yet the queue is no burst: had the copy been loaded
    when it began, it would be there by now. Who pays the small price until it adds up to the large one pays at most
    twice what a prophet does (ski rental: Karlin, Manasse, Rudolph and Sleator, 1988). Of longer tasks, the length of
    the queue says enough, and free memory is better kept for other models (measured on the published trace).
    """
    waited_s = (draft.facts.now_ms - group.waiting_ms) / 1000 if group.waiting_ms else 0.0
    free = not cold.evict and not warmth.loads
    return free and waited_s > cold.cost_s and is_short(group.setup_key, draft.facts)


def _in_session(group: Group, draft: Draft) -> tuple[Assign, Worker] | Wait | None:
    """One task at a time on the session's worker; None for a first task that has no worker yet.

    Whether the instance still lives there is the worker's to say: what is known of it here may be old.
    """
    worker = draft.facts.fleet.leaseholder(group.setup_key)
    if worker is None:
        if group.tasks[draft.task(group)].opens_session:
            return None
        return Wait(group_id=group.id, reason=Reason(why=Why.SESSION_STARTS))
    if not worker.engine.available:
        text = f"{worker.id}, which holds its session, does not answer"
        return Wait(group_id=group.id, reason=Reason(why=Why.UNAVAILABLE, text=text))
    if worker.held or worker.id in draft.given:
        wait_s = worker.remaining_s(draft.facts.now_ms)
        reason = Reason(why=Why.SESSION_BUSY, worker_id=worker.id, wait_s=wait_s)
        return Wait(group_id=group.id, reason=reason)
    return _assign(group, draft, worker, Start.WARM)


def _assign(group: Group, draft: Draft, worker: Worker, start: Start) -> tuple[Assign, Worker]:
    run_s = draft.facts.knowledge.run_s(group.setup_key, group.app)
    assign = Assign(
        task_id=draft.task(group),
        group_id=group.id,
        engine_id=worker.engine.id,
        worker_id=worker.id,
        start=start,
        estimate_s=run_s,
        candidates=(Candidate(worker_id=worker.id, start=start),),
    )
    return assign, worker


def _assign_cold(
    group: Group, draft: Draft, colds: list[_Cold], warmth: _Warmth | None
) -> tuple[Assign, Worker]:
    """Load for the task that the loaded copies would reach about when the new one is ready."""
    cold = colds[0]
    run_s = draft.facts.knowledge.run_s(group.setup_key, group.app)
    position = 0
    if not group.session and warmth is not None and warmth.head_s < cold.start_s:
        served = (cold.start_s - warmth.head_s) / max(run_s, 0.001) * warmth.copies
        position = min(ceil(served), draft.left(group) - 1, LATER_MAX)
    assign = Assign(
        task_id=draft.task(group, position),
        group_id=group.id,
        engine_id=cold.worker.engine.id,
        worker_id=cold.worker.id,
        start=Start.COLD,
        estimate_s=cold.start_s + run_s,
        evict=cold.evict,
        parked=cold.parked,
        candidates=_compared(colds, warmth),
    )
    return assign, cold.worker


def _compared(colds: list[_Cold], warmth: _Warmth | None) -> tuple[Candidate, ...]:
    found = [
        Candidate(
            worker_id=cold.worker.id,
            start=Start.COLD,
            ready_s=round(cold.start_s, 3),
            cost_s=round(cold.cost_s, 3),
            evict=tuple(cold.worker.residents[key].app for key in cold.evict),
            parked=cold.parked,
        )
        for cold in colds
    ]
    if warmth is not None:
        ready_s = round(warmth.tail_s, 3)
        found.insert(1, Candidate(worker_id=warmth.worker_id, start=WAIT, ready_s=ready_s, cost_s=ready_s))
    return tuple(found)


def _idle_warm(group: Group, draft: Draft) -> Worker | None:
    """Of the idle workers with the instance, the one whose other instances are least wanted meanwhile."""
    filed = draft.facts.fleet.idle_with.at(group.warm_key)
    if not filed:
        return None
    now_ms = draft.facts.now_ms

    def fit(worker: Worker) -> bool:
        return admits(group.shape, worker) and not worker.refuses(group.setup_key, now_ms)

    def others_s(worker: Worker) -> float:
        return sum(
            loss_s(resident, worker, draft.facts)
            for key, resident in worker.residents.items()
            if key != group.setup_key and resident.phase is Phase.READY
        )

    return draft.scan_least(group, lambda: reversed(filed.values()), fit, others_s, LOOK_WARM)


def _ahead(group: Group, draft: Draft) -> Worker | None:
    """The look-ahead rule: behind a short task of the same setup, unless one who goes first waits there."""
    facts, key = draft.facts, group.setup_key
    rules = facts.rules
    if not is_short(key, draft.facts):
        return None

    def fit(worker: Worker) -> bool:
        room = len(worker.held) + draft.given.get(worker.id, 0) <= rules.look_ahead
        return room and admits(group.shape, worker) and not _outranked(group, worker, draft)

    given = draft.warm_given.get(key, [])
    for worker in given:
        if fit(worker):
            given.remove(worker)
            return worker
    filed = facts.fleet.one_key.at(key)
    return draft.scan("ahead", group, lambda: iter(filed.values()), fit) if filed else None


def _outranked(group: Group, worker: Worker, draft: Draft) -> bool:
    """Whether a group of another setup, of higher priority or past its age cap, waits for this worker."""
    rival = draft.claims.get(worker.id) or draft.facts.queues.claimant(worker.id)
    if rival is None or rival.setup_key == group.setup_key or not draft.left(rival):
        return False
    waited_s = (draft.facts.now_ms - draft.head_ms(rival)) / 1000
    return rival.priority > group.priority or waited_s > draft.facts.rules.age_cap_s


def _soonest_warm(group: Group, draft: Draft) -> _Warmth | None:
    """The worker with the instance, ready or loading, that is free first."""
    facts, key = draft.facts, group.warm_key
    run_s = facts.knowledge.run_s(key, group.app)
    holders = facts.fleet.holders.at(key)
    copies, loads = len(holders), 0
    best: tuple[float, WorkerId, bool, bool] | None = None
    for worker in islice(holders.values(), LOOK_BUSY):
        if (worker.id, key) in draft.evicted:
            copies -= 1
            continue
        if not admits(group.shape, worker) or worker.refuses(group.setup_key, facts.now_ms):
            continue
        seconds = worker.remaining_s(facts.now_ms) + draft.given_s.get(worker.id, 0.0)
        loading = worker.residents[key].phase is Phase.LOADING
        loads += loading
        unmeasured = loading and not facts.knowledge.knows_load(key) and _patient(worker, facts.now_ms)
        if best is None or seconds < best[0]:
            best = (seconds, worker.id, loading, unmeasured)
    begun = draft.begun.get(key, [])
    for load in begun:
        if admits(group.shape, load.worker) and (best is None or load.seconds < best[0]):
            best = (load.seconds, load.worker.id, True, not facts.knowledge.knows_load(key))
    if best is None:
        return None
    copies += len(begun)
    loads += len(begun)
    behind = draft.backlog(key) - (0 if group.session else 1)
    tail_s = best[0] + behind * run_s / copies
    return _Warmth(best[1], best[0], tail_s, copies, best[2], best[3], loads)


def _patient(worker: Worker, now_ms: int) -> bool:
    return any(
        held.load_s
        and not held.running_ms
        and now_ms - held.assigned_ms < FIRST_LOAD_PATIENCE * held.load_s * 1000
        for held in worker.held
    )


def _cold_starts(group: Group, draft: Draft) -> tuple[list[_Cold], Reason | None]:
    """The best idle workers to load on, cheapest first; if idle workers exist that may not be used, why."""
    found: list[_Cold] = []
    hindrance: Reason | None = None
    for worker in _idle_candidates(group, draft):
        cold = _cold_on(worker, group, draft)
        if isinstance(cold, Reason):
            hindrance = hindrance or cold
        else:
            found.append(cold)
    return nsmallest(TOLD, found, key=lambda cold: cold.order), hindrance


def _cold_on(worker: Worker, group: Group, draft: Draft) -> _Cold | Reason:
    facts, key = draft.facts, group.setup_key
    if worker.refuses(key, facts.now_ms):
        wait_s = (worker.refused[key] - facts.now_ms) / 1000
        return Reason(why=Why.REFUSED, worker_id=worker.id, wait_s=wait_s)
    room = make_room(worker, group, facts)
    if isinstance(room, Why):
        text = f"{worker.vram.other_bytes / GB:.1f} GB" if room is Why.CROWDED else ""
        return Reason(why=room, worker_id=worker.id, text=text)
    seconds = start_s(worker, key, group.app, group.env_key, facts.knowledge)
    spare = GPU_SPARE_S if worker.kind.gpus and not group.shape.needs.gpu_count else 0.0
    cost_s = seconds + spare + room.regret_s
    used = sum(resident.vram_bytes for resident in worker.residents.values())
    order = (cost_s, len(worker.residents), used, worker.engine.id, worker.index)
    return _Cold(worker, seconds, cost_s, room.evict, order, key in worker.parked)


def _idle_candidates(group: Group, draft: Draft) -> list[Worker]:
    """Idle workers worth comparing: those of machines that have the environment, then the emptiest."""
    fleet, shape, given = draft.facts.fleet, group.shape, draft.given
    if shape.workers:
        named = (worker for name in shape.workers for worker in fleet.named.at(name).values())
        idle = (w for w in named if w.free and w.id not in given and fits(shape.needs, w.kind))
        return list({worker.id: worker for worker in islice(idle, LOOK)}.values())
    found: dict[WorkerId, Worker] = {}
    for worker in fleet.with_environment(group.env_key, LOOK // 4):
        if worker.free and worker.id not in given and fits(shape.needs, worker.kind):
            found[worker.id] = worker
    for worker in islice(fleet.parked.at(group.setup_key).values(), LOOK):
        if worker.id not in given and fits(shape.needs, worker.kind):
            found[worker.id] = worker
    for kind in kinds(shape, fleet):
        fresh = (w for w in fleet.idle_of_kind(kind) if w.id not in given)
        found.update((worker.id, worker) for worker in islice(fresh, LOOK))
        if len(found) >= 2 * LOOK:
            break
    return list(found.values())


def _nowhere(group: Group, draft: Draft) -> Reason:
    """The reason of a group that has no instance anywhere and no idle worker."""
    now_ms = draft.facts.now_ms
    able = list(candidates(group.shape, draft.facts.fleet, LOOK))
    if not able:
        return draft.explain(group.shape)

    leased = sum(admits(group.shape, worker) for worker in draft.facts.fleet.leased())
    if all(worker.lease for worker in able):
        return Reason(why=Why.LEASED, worker_id=able[0].id, workers=leased)
    able = [worker for worker in able if not worker.lease]

    def free_s(worker: Worker) -> float:
        return worker.remaining_s(now_ms) + draft.given_s.get(worker.id, 0.0)

    soonest = min(able, key=lambda worker: (free_s(worker), worker.id))
    count = len({worker.id for worker in able})
    if not group.shape.workers:
        count = sum(len(draft.facts.fleet.of_kind.at(kind)) for kind in kinds(group.shape, draft.facts.fleet))
        count -= leased
    return Reason(why=Why.ALL_BUSY, worker_id=soonest.id, wait_s=free_s(soonest), workers=count)
