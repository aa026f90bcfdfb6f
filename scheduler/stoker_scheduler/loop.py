"""The scheduler's loop: take all that waits on `wake`, apply it, decide once, commit in one batch.

It owns the mirror; nothing else changes it. What Redis refuses is put right in the mirror; when Redis does
not answer, the mirror is thrown away and read anew, because nobody knows then what has arrived.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from stoker.core.errors import NotFound, ProtocolRefusal, StoreUnavailable
from stoker.core.events import Event
from stoker.core.explanations import Explanation
from stoker.core.measures import Measures
from stoker.core.messages import EngineId, EngineView, TaskId
from stoker.core.protocol_version import OURS, disagreement
from stoker.core.states import ON_ENGINE, TaskState
from stoker.log import Logger
from stoker.protocol import Store
from stoker.protocol.scheduling import AssignOrder, AssignResult
from stoker.protocol.wake import WakeEvent, WakeKind
from stoker_scheduler import reasons
from stoker_scheduler.actions import Assign, Changed, Rules, Start, Wait, Why
from stoker_scheduler.chores import Chores
from stoker_scheduler.clock import ServerClock
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.engine_chores import EngineChores
from stoker_scheduler.leader import LeadershipLost
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.pin_chores import PinChores
from stoker_scheduler.policy import decide
from stoker_scheduler.reason_chores import ReasonChores
from stoker_scheduler.session_chores import SessionChores

BLOCK_MS: Final = 1000
"""Longest wait for an event: also how often the clock's work is done in a quiet system."""
TICK_S: Final = 1.0
RETRY_S: Final = 0.5
RETURN_GRACE_S: Final = 6.0
"""No engine is declared lost for so long after an outage of Redis: each may need 5 s to renew its lease."""
DRAIN_BLOCK_MS: Final = 1
READ_AT_ONCE: Final = 1000
GROUPS_AT_ONCE: Final = 500
"""New groups that one decision may be asked about: the renewal of the leadership must get its turn."""

DEFAULT_LIMITS: Final = Limits()


@dataclass(slots=True)
class Counters:
    """What the loop has done since its start."""

    rounds: int = 0
    events: int = 0
    assigned_warm: int = 0
    assigned_ahead: int = 0
    assigned_cold: int = 0
    assigned_parked: int = 0  # of those, to a parked instance
    refused: int = 0
    evicted: int = 0
    taken_back: int = 0
    failed: int = 0
    rebuilt: int = 0
    decide_s: float = 0.0
    waits: Counter[Why] = field(default_factory=Counter)

    def decisions(self) -> dict[str, int]:
        """How often each kind of decision was made; a group that is told to wait counts each time that it is looked at."""
        made = {
            "warm": self.assigned_warm,
            "ahead": self.assigned_ahead,
            "cold": self.assigned_cold,
            "refused": self.refused,
            "evicted": self.evicted,
            "taken_back": self.taken_back,
            "failed": self.failed,
        }
        return made | {f"wait_{why}": number for why, number in self.waits.items()}


@dataclass(slots=True)
class _Errands:
    """What events ask for that needs Redis."""

    orphans: list[WakeEvent] = field(default_factory=list)
    engines: dict[EngineId, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.orphans or self.engines)


class Loop:
    """One leadership after the other of this process.

    A round: 1. read `wake`  2. apply the events  3. decide, about pins first, and commit  4. take orphans back, read
    changed engines, and decide about those  5. once a second, the clock's chores.
    """

    def __init__(
        self,
        store: Store,
        rules: Rules,
        log: Logger,
        *,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], int] | None = None,
        return_grace_s: float = RETURN_GRACE_S,
    ) -> None:
        self.mirror = Mirror(rules, limits)
        self.counters = Counters()
        self._store = store
        self._rules = rules
        self._log = log
        self._server_clock = ServerClock()
        self._clock = clock or self._server_clock
        self._return_grace_s = return_grace_s
        self._epoch = 0
        self._cursor = "0"
        self._mono_tick = 0.0
        self._refused: dict[EngineId, int] = {}  # which life of an engine was told of already
        self._mono_read = time.monotonic()
        self._store_was_lost = False
        self._mono_reap = 0.0
        self._history = ""
        self._due_ms = 0  # when the next delayed task is due, as far as is known; 0 = none
        self._take_up_chores()

    def deaf_s(self) -> float:
        """Seconds since Redis last answered a read of `wake`."""
        return time.monotonic() - self._mono_read

    def on_store_lost(self) -> None:
        """Redis was away: the leases that ran out meanwhile are nobody's fault."""
        self._store_was_lost = True

    async def run(self, epoch: int) -> None:
        """Decide until cancelled.

        Raises:
            LeadershipLost: a write was refused because another scheduler leads.
        """
        self._epoch = epoch
        self._mono_read = time.monotonic()
        while True:
            try:
                await self._rebuild()
                while True:
                    await self._round()
            except StoreUnavailable as error:
                self._log.warning(Event.STORE_UNAVAILABLE, reason=error.message)
                self.on_store_lost()
            except ProtocolRefusal as refusal:
                if refusal.refusal == "NOT_LEADER":
                    raise LeadershipLost from refusal
                raise
            await asyncio.sleep(RETRY_S)

    async def _round(self) -> None:
        events = await self._read(self._block_ms())
        self.counters.rounds += 1
        errands = self.on_wake(events)
        await self._pins.run()
        await self._commit()
        if errands:
            await self._run_errands(errands)
            await self._pins.run()
            await self._commit()
        if self._due_ms and self._clock() >= self._due_ms:
            await self._release()
        await self._sessions.run()  # after the release: the session of a delayed call may be over
        await self._tell_quarantines()
        await self._commit()
        if time.monotonic() >= self._mono_tick:
            await self._tick()

    def _block_ms(self) -> int:
        """How long to wait for an event: not beyond the time of a delayed task."""
        return min(BLOCK_MS, max(1, self._due_ms - self._clock())) if self._due_ms else BLOCK_MS

    async def _release(self) -> None:
        """Queue the tasks whose time has come; a part of them, if they are very many."""
        now_ms = self._clock()
        specs, self._due_ms = await self._store.scheduling.release(self._epoch, now_ms)
        for spec in specs:
            self.mirror.on_released(spec, now_ms)

    async def _read(self, block_ms: int) -> list[WakeEvent]:
        self._cursor, events = await self._store.scheduling.wake(self._cursor, block_ms, READ_AT_ONCE)
        self._mono_read = time.monotonic()
        self.counters.events += len(events)
        return events

    def on_wake(self, events: Iterable[WakeEvent]) -> _Errands:
        """Apply events to the mirror; what is left needs Redis."""
        now_ms = self._clock()
        errands = _Errands()
        for event in events:
            match event.kind:
                case WakeKind.ENGINE:
                    errands.engines[event.engine_id] = None
                case WakeKind.LOST:
                    errands.engines.pop(event.engine_id, None)
                    self.mirror.on_lost(event.engine_id, now_ms)
                case WakeKind.ORPHANED:
                    errands.orphans.append(event)
                case WakeKind.RELEASED:
                    self._on_worker_released(event)
                case WakeKind.PINS:
                    self.mirror.pins.stale = True
                case WakeKind.UNLOAD:
                    self.mirror.pins.unloads[event.worker_id, event.setup_key] = None
                case WakeKind.SESSION:
                    self.mirror.sessions.was_ended(event.session_id, event.session_end)
                case _:
                    self._on_task(event, now_ms)
        return errands

    def _on_worker_released(self, event: WakeEvent) -> None:
        if self.mirror.on_worker_released(event.worker_id):
            self._log.info(Event.WORKER_RELEASED, worker=event.worker_id, reason="somebody said so")

    async def _tell_quarantines(self) -> None:
        """Write down which workers get no tasks, for people and for the next leader."""
        for worker_id, found in self.mirror.wards.take_errands().items():
            if found is None:
                await self._store.quarantines.remove(worker_id)
                continue
            await self._store.quarantines.put(found)
            self._log.error(
                Event.WORKER_QUARANTINED, worker=worker_id, failures=found.failures, reason=found.reason
            )

    def _on_task(self, event: WakeEvent, now_ms: int) -> None:
        mirror, spec = self.mirror, event.spec
        if event.kind is WakeKind.FINISHED:
            mirror.on_finished(
                event.task_id, event.state or TaskState.FAILED, event.measures or Measures(), now_ms
            )
        elif event.kind is WakeKind.DELAYED:
            self._due_ms = min(self._due_ms or event.due_ms, event.due_ms)
            mirror.on_delayed(event.task_id, event.attempt, event.measures or Measures(), now_ms)
        elif event.kind is WakeKind.CANCELLED:
            mirror.on_cancelled(event.task_id)
        elif event.kind is WakeKind.MOVED and event.state is not None:
            mirror.on_moved(event.task_id, event.state, now_ms)
        elif event.kind is WakeKind.SUBMITTED and spec is not None:
            mirror.on_submitted(spec)
        elif event.kind is WakeKind.REQUEUED and spec is not None:
            mirror.on_requeued(spec, now_ms, event.attempt)

    async def _commit(self) -> None:
        """Decide about what has changed and carry it out: one batch, unless very much has changed."""
        while changed := self.mirror.take_changed(GROUPS_AT_ONCE):
            await self._decide(changed)

    async def _decide(self, changed: Changed) -> None:
        now_ms = self._clock()
        mono = time.perf_counter()
        mirror = self.mirror
        actions = decide(now_ms, mirror.queues, mirror.fleet, mirror.knowledge, changed, self._rules)
        self.counters.decide_s += time.perf_counter() - mono
        assigns = [action for action in actions if isinstance(action, Assign)]
        if assigns:
            self._apply_assigns(assigns, await self._assign(assigns), now_ms)
        for action in actions:
            if isinstance(action, Wait):
                mirror.apply_wait(action, now_ms)
                self.counters.waits[action.reason.why] += 1
        waits = [action.group_id for action in actions if isinstance(action, Wait)]
        await self._reasons.write(waits, only_new=True)

    async def _assign(self, assigns: list[Assign]) -> list[AssignResult]:
        orders = [
            AssignOrder(
                task_id=a.task_id,
                engine_id=a.engine_id,
                worker_id=a.worker_id,
                evict=a.evict,
                why=Explanation(text=reasons.assigned(a), candidates=a.candidates),
            )
            for a in assigns
        ]
        return await self._store.scheduling.assign_many(self._epoch, orders)

    def _apply_assigns(self, assigns: list[Assign], results: list[AssignResult], now_ms: int) -> None:
        for assign, result in zip(assigns, results, strict=True):
            if result.refusal == "NOT_LEADER":
                raise LeadershipLost
            if result.refusal:
                self.counters.refused += 1
                self._log.info(Event.TASK_REFUSED, task_id=assign.task_id, reason=result.refusal)
                self.mirror.apply_refused(assign, engine_gone=result.refusal == "ENGINE_GONE")
                continue
            self.mirror.apply_assign(assign, result.attempt, now_ms)
            self._count(assign)
            self._log.info(
                Event.TASK_ASSIGNED,
                task_id=assign.task_id,
                attempt=result.attempt,
                worker=assign.worker_id,
                reason=reasons.assigned(assign),
            )

    def _count(self, assign: Assign) -> None:
        counters = self.counters
        match assign.start:
            case Start.WARM:
                counters.assigned_warm += 1
            case Start.AHEAD:
                counters.assigned_ahead += 1
            case Start.COLD:
                counters.assigned_cold += 1
                counters.assigned_parked += assign.parked
        counters.evicted += len(assign.evict)

    async def _run_errands(self, errands: _Errands) -> None:
        await self._take_back(errands.orphans)
        await self._read_engines(errands.engines)

    async def _take_back(self, orphans: list[WakeEvent]) -> None:
        """Queue again, or end, what an engine no longer runs. Repeatable: the attempt is the fence."""
        scheduling = self._store.scheduling
        states = await asyncio.gather(
            *(scheduling.requeue(self._epoch, o.task_id, o.engine_id, o.attempt, o.reason) for o in orphans)
        )
        for orphan, state in zip(orphans, states, strict=True):
            held = self.mirror.fleet.held(orphan.task_id)
            if held is not None and held.attempt <= orphan.attempt:
                self.mirror.on_taken_back(orphan.task_id, self._clock())
            if state is not None:
                self.mirror.on_task_lost(orphan.task_id, waits_again=state is TaskState.QUEUED)
                self.counters.taken_back += 1
                self._log.warning(
                    Event.TASK_REQUEUED,
                    task_id=orphan.task_id,
                    attempt=orphan.attempt,
                    engine=orphan.engine_id,
                    state=state.wire_name,
                    reason=orphan.reason,
                )

    async def _read_engines(self, engine_ids: Iterable[EngineId]) -> None:
        for engine_id in engine_ids:
            try:
                view = await self._store.engines.get(engine_id)
            except NotFound:
                self.mirror.on_forgotten(engine_id, self._clock())
                self._refused.pop(engine_id, None)
                continue
            self._on_engine(view, self._clock())

    def _on_engine(self, view: EngineView, now_ms: int) -> None:
        """An engine joined, changed or leaves; one that speaks another protocol gets nothing."""
        problem = disagreement(view.info.id, view.info.speaks, OURS)
        if problem and self._refused.get(view.info.id) != view.registered_ms:
            self._refused[view.info.id] = view.registered_ms
            self._log.warning(Event.ENGINE_REFUSED, engine=view.info.id, reason=problem)
        self.mirror.on_engine(view, now_ms)

    async def _tick(self) -> None:
        """The clock's work: leases, deadlines, second looks, reasons; and forget the events acted upon."""
        self._mono_tick = time.monotonic() + TICK_S
        server_ms, history = await asyncio.gather(self._store.now_ms(), self._store.scheduling.history())
        if history != self._history:  # a replica may have taken over without a call that failed
            self.on_store_lost()
            await self._rebuild()
            return
        self._server_clock.set(server_ms)
        await self._release()
        now_ms = self._clock()
        chores = Chores(self._store, self.mirror, self._epoch, self._log)
        if time.monotonic() >= self._mono_reap:
            await chores.reap()
        await self._sessions.tick()
        await self._pins.tick()
        await self._engines.tick()
        self.counters.failed += await chores.fail_late(now_ms)
        await self._read_engines(self.mirror.fleet.suspects())
        self.counters.evicted += await chores.unload(now_ms)
        self.counters.taken_back += await chores.audit(now_ms)
        for worker_id in self.mirror.end_quarantines(now_ms):
            self._log.info(Event.WORKER_RELEASED, worker=worker_id, reason="its time is over")
        chores.look_again()
        await self._commit()
        await self._reasons.write([group.id for group in self.mirror.queues.groups()], only_new=False)
        await self._reasons.forget()
        if self._cursor != "0":
            await self._store.scheduling.forget_wake(self._cursor)
        self.mirror.deadlines.compact(self.mirror.queues)

    async def _rebuild(self) -> None:
        """Read everything anew: what was not forgotten on `wake`, the queue, the engines, what they run."""
        self.counters.rebuilt += 1
        mono = time.monotonic()
        knowledge = self.mirror.knowledge
        self.mirror = Mirror(self._rules, self.mirror.deadlines.limits)
        self.mirror.knowledge = knowledge
        self._history = await self._store.scheduling.history()
        orphans = await self._drain()
        self._server_clock.set(await self._store.now_ms())
        for spec in await self._store.scheduling.pending():
            self.mirror.on_submitted(spec)
        views = await self._store.scheduling.engines()
        now_ms = self._clock()
        for view in views:
            self._on_engine(view, now_ms)
        for found in (await self._store.quarantines.list()).values():
            self.mirror.wards.restore(found)
            self.mirror.quarantine(found)
        await self._restore([TaskId(task_id) for view in views for task_id in view.tasks])
        self._take_up_chores()
        await self._recall([view.info.id for view in views])
        await self._reasons.restore()
        await self._sessions.restore()
        await self._take_back(orphans)
        await self._pins.run()
        await self._commit()
        await self._spare_leases()
        self._log.info(
            Event.SCHEDULER_REBUILT,
            waiting=len(self.mirror.queues),
            engines=len(views),
            duration_s=round(time.monotonic() - mono, 3),
        )

    async def _recall(self, engine_ids: Sequence[EngineId]) -> None:
        """Compare with the engines what the server knows, once after it may have lost the last writes.

        Nothing is ordered before: registering empties an engine's inbox, and an assignment in it would be an attempt
        that no worker has seen.
        """
        if await self._store.scheduling.recall(self._epoch, self._history, engine_ids):
            for engine_id in engine_ids:
                self.mirror.fleet.suspect(engine_id)
            self._log.warning(Event.STORE_CHANGED, history=self._history, engines=len(engine_ids))

    async def _spare_leases(self) -> None:
        """Give engines the time to renew that they had not, because Redis was away or has just started."""
        if self._store_was_lost or await self._store.uptime_s() < self._return_grace_s:
            self._mono_reap = time.monotonic() + self._return_grace_s
        self._store_was_lost = False

    def _take_up_chores(self) -> None:
        """The work on what a mirror knows of sessions, pins, reasons and engines, for a mirror that was made anew."""
        facts = (self._store, self.mirror, self._epoch, self._log, self._clock)
        self._sessions, self._pins = SessionChores(*facts), PinChores(*facts)
        self._reasons = ReasonChores(self._store, self.mirror.queues)
        forget_s = self.mirror.deadlines.limits.engine_forget_s
        self._engines = EngineChores(self._store, self._epoch, self._log, forget_s)

    async def _drain(self) -> list[WakeEvent]:
        """Skip what the snapshot that follows will show; lost tasks and what shall go are in none, so keep those."""
        self._cursor = "0"
        orphans: list[WakeEvent] = []
        while events := await self._read(DRAIN_BLOCK_MS):
            orphans += [event for event in events if event.kind is WakeKind.ORPHANED]
            for event in events:
                if event.kind is WakeKind.UNLOAD:
                    self.mirror.pins.unloads[event.worker_id, event.setup_key] = None
        return orphans

    async def _restore(self, task_ids: list[TaskId]) -> None:
        for start in range(0, len(task_ids), READ_AT_ONCE):
            part = task_ids[start : start + READ_AT_ONCE]
            for task in await self._store.tasks.read_many(part, with_logs=False):
                if task is not None and task.state in ON_ENGINE:
                    self.mirror.restore(task, task.request.app, self._clock())
