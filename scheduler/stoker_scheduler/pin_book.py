"""What the leader knows of pins: what is wanted, which orders are under way, what failed where. No I/O, no clock.

An order to load holds its worker in the mirror like a cold start of a task: the worker is busy, its instance counts as
loading, and no task begins a second load of the setup meanwhile. What engines report ends it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stoker.core.loads import LoadReport, LoadState
from stoker.core.messages import EngineId, EngineView, SetupKey, TaskId, WorkerId
from stoker.core.pins import Pin, PinStatus
from stoker_scheduler.durations import Durations
from stoker_scheduler.fleet import Fleet, Held
from stoker_scheduler.knowledge import Knowledge
from stoker_scheduler.residents import Phase

UNHEARD_MS: Final = 30_000
"""An engine tells of an order as soon as it has read its inbox; one that says nothing for so long has not got it."""
RETRY_MS: Final = 5_000
RETRY_DOUBLINGS: Final = 6
"""How long a load that failed is not tried again on its worker: twice as long each time, up to 320 s."""
_NO_RUN: Final = Durations((0.0,))
_NEVER_MS: Final = 2**53
"""No audit asks Redis for the task of a load: it has none."""


@dataclass(slots=True)
class Order:
    """An order to load that is under way."""

    id: TaskId
    engine_id: EngineId
    worker_id: WorkerId
    setup_key: SetupKey
    app: str
    sent_ms: int
    heard: bool = False  # its engine has told of it


@dataclass(slots=True)
class Failed:
    """Loads of a setup that failed on a worker, one after the other."""

    error: str
    at_ms: int
    until_ms: int
    tries: int = 1
    times: int = 0  # of the tries, those in which something of the app was tried


@dataclass(slots=True)
class PinBook:
    """The pins of a leadership."""

    pins: dict[str, Pin] = field(default_factory=dict)
    states: dict[str, PinStatus] = field(default_factory=dict)  # as they were written last
    keep_alives: dict[str, float] = field(default_factory=dict)  # app -> seconds
    orders: dict[TaskId, Order] = field(default_factory=dict)
    failed: dict[tuple[SetupKey, WorkerId], Failed] = field(default_factory=dict)
    unloads: dict[tuple[WorkerId, SetupKey], None] = field(default_factory=dict)
    kept: dict[WorkerId, frozenset[SetupKey]] = field(default_factory=dict)  # pinned as engines say
    told: dict[WorkerId, tuple[frozenset[SetupKey], int]] = field(default_factory=dict)  # sent to them, when
    pinned: dict[WorkerId, frozenset[SetupKey]] = field(default_factory=dict)  # as decided last
    retired: frozenset[SetupKey] = frozenset()  # setups that hold an older value of a secret
    stale: bool = True  # Redis was not read yet, or has changed
    touched: bool = False  # the next look cannot wait for the clock
    lacking: bool = False  # some pin is not satisfied: a worker that becomes free may do

    def on_engine(self, view: EngineView, fleet: Fleet, knowledge: Knowledge, now_ms: int) -> list[SetupKey]:
        """What an engine tells of its orders; the setups of those that ended."""
        for slot in view.info.workers:
            self.kept.pop(slot.id, None)
        self.kept.update((worker_id, frozenset(keys)) for worker_id, keys in view.report.pins.items())
        told = {report.id: report for report in view.report.loads}
        ended: list[SetupKey] = []
        for order in [o for o in self.orders.values() if o.engine_id == view.info.id]:
            report = told.get(order.id)
            if report is not None:
                order.heard = True
                if report.ended:
                    self._end(order, report, fleet, knowledge, now_ms)
                    ended.append(order.setup_key)
            elif order.heard or view.registered_ms > order.sent_ms:  # it was restarted, or never read it
                self.drop(order, fleet, now_ms)
                ended.append(order.setup_key)
        for report in view.report.loads:
            if not report.ended and TaskId(report.id) not in self.orders:
                self._adopt(view.info.id, report, fleet, knowledge, now_ms)
        self.touched = self.touched or bool(self.pins or self.kept)
        return ended

    def mark(self, wanted: Mapping[WorkerId, Iterable[SetupKey]], fleet: Fleet) -> list[WorkerId]:
        """From now on these instances make room for nothing, and the others do again; on which workers that is new."""
        pinned = {worker_id: frozenset(keys) for worker_id, keys in wanted.items()}
        before, self.pinned = self.pinned, pinned
        for worker_id in {*pinned, *before}:
            worker = fleet.workers.get(worker_id)
            for resident in worker.residents.values() if worker is not None else ():
                resident.pinned = resident.setup_key in pinned.get(worker_id, frozenset())
        return sorted(w for w in {*pinned, *before} if pinned.get(w) != before.get(w))

    def begin(
        self,
        order: Order,
        fleet: Fleet,
        load_s: float,
        evict: Iterable[SetupKey] = (),
        vram_bytes: int = 0,
    ) -> None:
        """An order was sent: its worker is busy until the engine says otherwise."""
        worker = fleet.workers.get(order.worker_id)
        if worker is None:
            return
        held = Held(
            task_id=order.id,
            setup_key=order.setup_key,
            key_id="",
            env_key="",
            app=order.app,
            attempt=0,
            assigned_ms=order.sent_ms,
            load_s=max(load_s, 0.001),
            run_s=0.0,
            runs=_NO_RUN,
            audit_ms=_NEVER_MS,
        )
        self.orders[order.id] = order
        fleet.start(worker, held, evict)
        resident = worker.residents[order.setup_key]
        resident.unused = resident.phase is Phase.LOADING
        resident.vram_bytes = resident.vram_bytes or vram_bytes

    def lost(self, fleet: Fleet, now_ms: int) -> list[Order]:
        """Orders that are not under way any more: their engine is gone, or has not heard of them. They are dropped."""
        gone = [
            order
            for order in self.orders.values()
            if fleet.held(order.id) is None or (not order.heard and now_ms - order.sent_ms > UNHEARD_MS)
        ]
        for order in gone:
            if fleet.held(order.id) is not None:
                text = f"{order.engine_id} did not take the order to load within {UNHEARD_MS // 1000} s"
                self._fail(order, f"{text}; is its daemon of an older release?", now_ms)
            self.drop(order, fleet, now_ms)
        return gone

    def drop(self, order: Order, fleet: Fleet, now_ms: int) -> None:
        """An order came to nothing."""
        self.orders.pop(order.id, None)
        fleet.end(order.id, now_ms, warm=False)

    def forget_gone(self) -> None:
        """Drop what is known of setups that nobody wants any more."""
        wanted = {pin.setup_key for pin in self.pins.values()}
        self.failed = {place: found for place, found in self.failed.items() if place[0] in wanted}

    def _adopt(
        self, engine_id: EngineId, report: LoadReport, fleet: Fleet, knowledge: Knowledge, now_ms: int
    ) -> None:
        """An order of the leader before this one."""
        worker = fleet.workers.get(WorkerId(report.worker_id))
        if worker is None or worker.engine.id != engine_id or not worker.engine.running:
            return
        key = SetupKey(report.setup_key)
        order = Order(TaskId(report.id), engine_id, worker.id, key, report.app, now_ms, heard=True)
        self.begin(order, fleet, knowledge.load_s(key, report.app))

    def _end(self, order: Order, report: LoadReport, fleet: Fleet, knowledge: Knowledge, now_ms: int) -> None:
        loaded = report.state is LoadState.LOADED
        self.orders.pop(order.id, None)
        fleet.end(order.id, now_ms, warm=loaded)
        if not loaded:
            worker = fleet.workers.get(order.worker_id)
            if worker is not None and report.hindered:
                fleet.keep(worker, order.sent_ms)
            self._fail(order, report.error, now_ms, hindered=report.hindered)
            return
        self.failed.pop((order.setup_key, order.worker_id), None)
        if report.load_s:
            learn = knowledge.learn_unpark if report.unparked else knowledge.learn_load
            learn(order.setup_key, order.app, report.load_s)

    def _fail(self, order: Order, error: str, now_ms: int, *, hindered: bool = False) -> None:
        place = (order.setup_key, order.worker_id)
        before = self.failed.get(place)
        tries, times = (before.tries, before.times) if before else (0, 0)
        pause_ms = RETRY_MS << min(tries, RETRY_DOUBLINGS)
        self.failed[place] = Failed(error, now_ms, now_ms + pause_ms, tries + 1, times + (not hindered))
