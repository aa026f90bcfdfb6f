"""What to load although no task asks for it, and why a pin is not satisfied. Pure: facts in, a plan out.

A pin is compared with what is resident at every look, so that it does not matter what became of an earlier order. Of
the workers that may hold its instance the one is chosen on which making room costs least; an idle instance that is not
pinned makes room for it like for a task.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from stoker.core.messages import SetupKey, WorkerId
from stoker.core.pins import Pin, PinState, PinStatus
from stoker_scheduler.actions import GroupId, Why
from stoker_scheduler.eviction import Facts, make_room
from stoker_scheduler.fleet import Worker
from stoker_scheduler.matching import GB, admits, candidates, explain, fits, kinds
from stoker_scheduler.parked import start_s
from stoker_scheduler.pin_book import Failed, PinBook
from stoker_scheduler.queues import Group, Shape
from stoker_scheduler.reasons import span
from stoker_scheduler.residents import Phase

LOOK: Final = 256
"""Workers without its instance that one pin compares, at most."""
LOOK_BUSY: Final = 32
"""Of those, busy ones: they are looked at for a reason alone."""
RESEND_MS: Final = 5_000
"""An engine that was told what is pinned, and does not say so, is told again after this time."""
TOLD_MS: Final = 60_000
"""How long it is told that the time of a load is over which was wanted once."""
DONE: Final = frozenset({PinState.LOADED, PinState.FAILED})


@dataclass(frozen=True, slots=True)
class Load:
    """Order a worker to load the instance of a pin; `evict` makes room."""

    pin: Pin
    worker: Worker
    load_s: float
    evict: tuple[SetupKey, ...]


@dataclass(slots=True)
class Plan:
    """What is to be done, and what was found. `pinned`: of every worker, the setups that make room for nothing."""

    loads: list[Load] = field(default_factory=list)
    pinned: dict[WorkerId, set[SetupKey]] = field(default_factory=dict)
    states: dict[str, PinStatus] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)  # records of loads that were wanted once


@dataclass(slots=True)
class _Wish:
    """A pin with what the fleet has of it."""

    pin: Pin
    group: Group
    ready: list[WorkerId] = field(default_factory=list)
    loading: list[WorkerId] = field(default_factory=list)
    wanted: int = 1

    @property
    def lacking(self) -> int:
        return self.wanted - len(self.ready) - len(self.loading)

    def status(self, state: PinState, reason: str = "") -> PinStatus:
        return PinStatus(
            state=state,
            workers=tuple(self.ready),
            loading=tuple(self.loading),
            wanted=self.wanted,
            reason=reason,
        )


@dataclass(frozen=True, slots=True)
class _Seat:
    """A worker on which an instance could be loaded now, and what that costs."""

    worker: Worker
    load_s: float
    evict: tuple[SetupKey, ...]
    order: tuple[float, int, str]


def decide_pins(book: PinBook, facts: Facts) -> Plan:
    """Compare what is wanted with what is loaded, the oldest pin first.

    A look changes nothing of what it is given; the loop carries the plan out.
    """
    return _Look(book, facts).plan


def to_tell(plan: Plan, book: PinBook, facts: Facts) -> list[Worker]:
    """Workers whose engine does not say what is pinned there, and was not told of it a moment ago."""
    found = []
    for worker_id in {*plan.pinned, *book.kept}:
        worker = facts.fleet.workers.get(worker_id)
        wanted = frozenset(plan.pinned.get(worker_id, ()))
        if worker is None or not worker.engine.available or wanted == book.kept.get(worker_id, frozenset()):
            continue
        told, at_ms = book.told.get(worker_id, (None, 0))
        if told != wanted or facts.now_ms - at_ms >= RESEND_MS:
            found.append(worker)
    return sorted(found, key=lambda worker: worker.id)


class _Look:
    """One look at all pins: 1. what is loaded of each stays  2. what lacks is loaded where there is room."""

    def __init__(self, book: PinBook, facts: Facts) -> None:
        self.plan = Plan()
        self._book = book
        self._facts = facts
        self._taken: set[WorkerId] = set()
        self._named = _by_name(facts.fleet.workers.values()) if any(p.workers for p in _live(book)) else {}
        for wish in self._wishes():
            self.plan.states[wish.pin.id] = self._settle(wish)

    def _wishes(self) -> list[_Wish]:
        """The pins that are to be settled, with what is loaded of each; of the others, what is found."""
        now_ms, found = self._facts.now_ms, []
        for pin in _live(self._book):
            known = self._book.states.get(pin.id)
            if pin.once and now_ms > pin.until_ms + TOLD_MS:
                self.plan.over.append(pin.id)
            elif pin.once and known is not None and known.state in DONE:
                self.plan.states[pin.id] = known
            elif pin.once and now_ms > pin.until_ms and not (known and known.loading):
                why = known.reason if known else "nobody looked at it"
                text = f"it was not loaded within {span((pin.until_ms - pin.created_ms) / 1000)}: {why}"
                self.plan.states[pin.id] = _Wish(pin, _group_of(pin)).status(PinState.FAILED, text)
            elif pin.setup_key in self._book.retired:
                text = "a secret that it needs was deleted; set it again (stoker secrets set)"
                self.plan.states[pin.id] = _Wish(pin, _group_of(pin)).status(PinState.WAITING, text)
            else:
                found.append(self._wish(pin))
        return found

    def _wish(self, pin: Pin) -> _Wish:
        group = _group_of(pin)
        wish = _Wish(pin, group, wanted=self._wanted(pin, group))
        for worker in sorted(self._holders(group), key=lambda worker: self._stays(worker, pin))[
            : wish.wanted
        ]:
            is_ready = worker.residents[pin.setup_key].phase is Phase.READY
            (wish.ready if is_ready else wish.loading).append(worker.id)
            self._hold(wish, worker)
        return wish

    def _wanted(self, pin: Pin, group: Group) -> int:
        """How many instances a pin is for: as many as it says, else one on each worker that it names."""
        return pin.copies or max(1, sum(fits(group.shape.needs, w.kind) for w in self._called(pin)))

    def _called(self, pin: Pin) -> list[Worker]:
        """The workers that a pin names, whether they can be had now or not."""
        return list({w.id: w for name in pin.workers for w in self._named.get(name, ())}.values())

    def _holders(self, group: Group) -> list[Worker]:
        holders = self._facts.fleet.holders.at(group.setup_key).values()
        return [worker for worker in holders if admits(group.shape, worker)]

    def _stays(self, worker: Worker, pin: Pin) -> tuple[bool, bool, str]:
        """Of more instances than are wanted: the one that is pinned already, then one that is ready."""
        pinned = pin.setup_key in self._book.pinned.get(worker.id, frozenset())
        return (not pinned, worker.residents[pin.setup_key].phase is not Phase.READY, worker.id)

    def _hold(self, wish: _Wish, worker: Worker) -> None:
        if not wish.pin.once:
            self.plan.pinned.setdefault(worker.id, set()).add(wish.pin.setup_key)

    def _settle(self, wish: _Wish) -> PinStatus:
        """Load what lacks of a pin, as far as there is room now."""
        others: list[Worker] = []
        if wish.lacking > 0:
            others = self._others(wish)
            seats = sorted(self._seats(wish, others), key=lambda seat: seat.order)
            for seat in seats[: wish.lacking]:
                self._taken.add(seat.worker.id)
                self.plan.loads.append(Load(wish.pin, seat.worker, seat.load_s, seat.evict))
                wish.loading.append(seat.worker.id)
                self._hold(wish, seat.worker)
        reason = self._why_not(wish, others) if wish.lacking > 0 else self._unknown(wish.pin)
        if wish.loading:
            return wish.status(PinState.LOADING, reason)
        if wish.lacking <= 0:
            return wish.status(PinState.LOADED, reason)
        gave_up = wish.pin.once and any(self._tried(wish.pin, worker) for worker in others)
        return wish.status(PinState.FAILED if gave_up else PinState.WAITING, reason)

    def _others(self, wish: _Wish) -> list[Worker]:
        """Workers that may hold it and do not: idle ones before those that only give a reason."""
        fleet, shape = self._facts.fleet, wish.group.shape
        of_kinds = () if shape.workers else kinds(shape, fleet)
        idle = islice((worker for kind in of_kinds for worker in fleet.idle_of_kind(kind)), LOOK)
        have = {*wish.ready, *wish.loading}
        found = chain(idle, candidates(shape, fleet, LOOK if shape.workers else LOOK_BUSY))
        return list({worker.id: worker for worker in found if worker.id not in have}.values())

    def _seats(self, wish: _Wish, others: list[Worker]) -> Iterator[_Seat]:
        """Workers that are free and have, or can make, room."""
        group, facts, key = wish.group, self._facts, wish.pin.setup_key
        for worker in others:
            hindered = worker.refuses(key, facts.now_ms) or self._failure(wish, worker)
            if hindered or not worker.free or worker.id in self._taken or key in worker.residents:
                continue
            room = make_room(worker, group, facts)
            if isinstance(room, Why) or self.plan.pinned.get(worker.id, set()).intersection(room.evict):
                continue
            load_s = start_s(worker, key, group.app, group.env_key, facts.knowledge)
            order = (load_s + room.regret_s, len(worker.residents), worker.id)
            yield _Seat(worker, load_s, room.evict, order)

    def _tried(self, pin: Pin, worker: Worker) -> Failed | None:
        """A failure since somebody asked for this; what failed before may go well now."""
        failed = self._book.failed.get((pin.setup_key, worker.id))
        return failed if failed is not None and failed.times and failed.at_ms >= pin.created_ms else None

    def _failure(self, wish: _Wish, worker: Worker) -> Failed | None:
        """Why it is not loaded on a worker now: that failed a moment ago, or once is enough."""
        failed = self._book.failed.get((wish.pin.setup_key, worker.id))
        if failed is not None and failed.until_ms > self._facts.now_ms:
            return failed
        return self._tried(wish.pin, worker) if wish.pin.once else None

    def _unknown(self, pin: Pin) -> str:
        """What to say of names that no worker has; the others may be satisfied."""
        unknown = [name for name in pin.workers if name not in self._named]
        verb = "is" if len(unknown) == 1 else "are"
        return f"workers: {unknown} {verb} unknown (stoker workers list)" if unknown else ""

    def _why_not(self, wish: _Wish, others: list[Worker]) -> str:
        """Why an instance that is wanted is not loaded now: what would have to change first."""
        if others:
            reasons = sorted((self._why_not_on(wish, worker) for worker in others), key=lambda why: why[0])
            nearest, text = reasons[0]
            alike = sum(1 for rank, _ in reasons if rank == nearest) - 1
            return f"{text} (and {alike} more like it)" if alike else text
        if not (wish.ready or wish.loading):
            return explain(wish.group.shape, self._facts.fleet).text
        away = [worker.id for worker in self._called(wish.pin) if not worker.available]
        if away:
            return f"{', '.join(away)}: offline, or out of service for now (stoker workers list)"
        have = len(wish.ready) + len(wish.loading)
        return self._unknown(wish.pin) or (
            f"{wish.wanted} copies are wanted, and {have} {'worker' if have == 1 else 'workers'} can hold one each"
        )

    def _why_not_on(self, wish: _Wish, worker: Worker) -> tuple[int, str]:
        """Why not on this worker, and how far it is from it. What failed there says more than what lacks now."""
        failed = self._book.failed.get((wish.pin.setup_key, worker.id))
        if failed is None or (not failed.times and failed.until_ms <= self._facts.now_ms):
            return self._hindrance(wish, worker)
        times = f" ({failed.times} times)" if failed.times > 1 else ""
        end = "" if failed.error.endswith((".", "!", "?", ")")) else "."
        text = f"loading on {worker.id} failed{times}: {failed.error}{end}"
        if wish.pin.once and self._tried(wish.pin, worker):
            return 0, text
        if failed.until_ms > self._facts.now_ms:
            return 0, f"{text} It is tried again in ~{span((failed.until_ms - self._facts.now_ms) / 1000)}."
        return 0, f"{text} It is tried again later: {self._hindrance(wish, worker)[1]}"

    def _hindrance(self, wish: _Wish, worker: Worker) -> tuple[int, str]:
        if worker.id in self._taken:
            return 1, f"{worker.id} loads something else that is wanted first"
        if worker.held:
            wait = span(worker.remaining_s(self._facts.now_ms))
            return 2, f"{worker.id} is busy for ~{wait}; it is loaded there next"
        if worker.lease:
            return 4, f"{worker.id} is leased to a session"
        return self._no_room_on(wish, worker)

    def _no_room_on(self, wish: _Wish, worker: Worker) -> tuple[int, str]:
        facts, key = self._facts, wish.pin.setup_key
        if worker.refuses(key, facts.now_ms):
            again = span((worker.refused[key] - facts.now_ms) / 1000)
            return (
                2,
                f"{worker.id} handed a task of it back a moment ago; it is tried there again in ~{again}",
            )
        if key in worker.residents or make_room(worker, wish.group, facts) is Why.FREEING:
            return 1, f"{worker.id} is freeing memory"
        return 3, _lack(worker, wish.group, facts)


def _live(book: PinBook) -> list[Pin]:
    """Pins before loads that are wanted once; each the oldest first."""
    return sorted(book.pins.values(), key=lambda pin: (pin.once, pin.created_ms, pin.id))


def _by_name(workers: Iterable[Worker]) -> dict[str, list[Worker]]:
    found: dict[str, list[Worker]] = {}
    for worker in workers:
        for name in worker.names:
            found.setdefault(name, []).append(worker)
    return found


def _group_of(pin: Pin) -> Group:
    """A pin as placement sees tasks: nothing of it waits in the queue."""
    task = pin.request
    return Group(
        id=GroupId(pin.id),
        setup_key=task.setup_key,
        shape=Shape(pin.needs, pin.workers),
        priority=0,
        key_id="",
        env_key=task.env_key,
        app=task.app,
        session="",
        warm_key=task.setup_key,
    )


def _lack(worker: Worker, group: Group, facts: Facts) -> str:
    """What a worker lacks that has no room, in numbers."""
    staying = [r for r in worker.residents.values() if r.phase is not Phase.STOPPING]
    fixed = [r for r in staying if r.pinned]
    if len(staying) >= worker.max_residents:
        return (
            f"{worker.id} holds {len(staying)} of at most {worker.max_residents} instances; {len(fixed)} of them are "
            "pinned, and the others may not go now"
        )
    needs = group.shape.needs
    need = facts.knowledge.vram_bytes(group.setup_key, needs.vram_bytes, worker.device)
    capacity = worker.kind.capacity_bytes(needs)
    pinned = sum(resident.vram_bytes for resident in fixed)
    rest = sum(resident.vram_bytes for resident in staying) - pinned
    return (
        f"{worker.id} has too little GPU memory: {need / GB:.1f} GB are needed; of its {capacity / GB:.1f} GB "
        f"{worker.vram.other_bytes / GB:.1f} GB are in use by other programs, {pinned / GB:.1f} GB are pinned, and "
        f"{rest / GB:.1f} GB belong to instances that may not go now"
    )
