"""What an engine has taken on: one queue and one runner a worker slot, and every attempt by its task.

The messages of the inbox end here (`on_assign`, `on_cancel`, `on_evict`, `on_load`, `on_pins`), and so does what the
lease says (`disown`, `give_back`). One task at a time runs on a slot, or one load.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from stoker.core.events import Event
from stoker.core.messages import (
    Assignment,
    CancelOrder,
    EvictOrder,
    LoadOrder,
    PinOrder,
    Resident,
    SetupKey,
    TaskId,
    WorkerId,
    WorkerInfo,
)
from stoker.core.vram import VramState
from stoker.log import get_logger
from stoker_worker.execution import Execution, Stop, StopKind, Tools
from stoker_worker.ledger import DeviceMemory
from stoker_worker.loading import Job, Loads
from stoker_worker.parking import Lot
from stoker_worker.residency import Residency
from stoker_worker.spool import Spooled

QUEUE_LIMIT: Final = 64
"""Attempts that wait on one slot; the scheduler sends a few ahead at most."""

_log = get_logger("workload")


class Slot:
    """One worker: its instances, and the attempts that wait for it."""

    def __init__(
        self,
        worker: WorkerInfo,
        sensors: DeviceMemory,
        on_change: Callable[[], None],
        lot: Lot | None = None,
    ) -> None:
        self.worker = worker
        self.residency = Residency(worker, sensors, on_change, lot)
        self.queue: asyncio.Queue[Job] = asyncio.Queue(QUEUE_LIMIT)

    async def serve(self) -> None:
        """Run what waits, one after another, until cancelled."""
        while True:
            job = await self.queue.get()
            await job.run(self.worker, self.residency)


class Workload:
    """All attempts of one engine."""

    def __init__(
        self,
        workers: Iterable[WorkerInfo],
        tools: Tools,
        sensors: DeviceMemory,
        on_change: Callable[[], None],
    ) -> None:
        self.slots: dict[WorkerId, Slot] = {w.id: Slot(w, sensors, on_change, tools.lot) for w in workers}
        self.stale = 0
        self.loads = Loads(tools, on_change)
        self._on_change = on_change
        self._tools = tools
        self._held: dict[TaskId, Execution] = {}
        self._refusing = ""
        self._empty = asyncio.Event()
        self._empty.set()

    def held(self) -> dict[TaskId, int]:
        """Tasks that are this engine's -> attempt, also those whose end the store has not taken yet."""
        return {task_id: execution.order.attempt for task_id, execution in self._held.items()}

    def snapshot(self) -> tuple[Resident, ...]:
        """What lives on all slots."""
        return tuple(resident for slot in self.slots.values() for resident in slot.residency.snapshot())

    def parked(self) -> tuple[Resident, ...]:
        """What is parked on all slots."""
        return tuple(resident for slot in self.slots.values() for resident in slot.residency.bay.snapshot())

    def vram_states(self) -> dict[WorkerId, VramState]:
        """What is to be told of the devices of the slots, where it is anything."""
        states = {worker_id: slot.residency.vram_state for worker_id, slot in self.slots.items()}
        return {worker_id: state for worker_id, state in states.items() if state != VramState()}

    def pins(self) -> dict[WorkerId, tuple[SetupKey, ...]]:
        """Which setups are pinned on each slot, where any is."""
        pinned = {worker_id: tuple(sorted(slot.residency.pins)) for worker_id, slot in self.slots.items()}
        return {worker_id: keys for worker_id, keys in pinned.items() if keys}

    async def serve(self) -> None:
        """Run the slots until cancelled."""
        async with asyncio.TaskGroup() as group:
            for slot in self.slots.values():
                group.create_task(slot.serve(), name=f"slot {slot.worker.id}")

    def on_assign(self, entry: str, order: Assignment) -> None:
        """Take an assignment on, or hand it back. One that is known already is ignored."""
        known = self._held.get(order.task.id)
        if known is not None:
            if known.order.token == order.token or (
                known.order.attempt >= order.attempt and not known.disowned
            ):
                return  # of a disowned one the server has forgotten even the number
            known.stop(Stop(kind=StopKind.DISOWN, reason="a later attempt came to this machine"))
        execution = Execution(order, entry, self._tools, self._settled)
        self._held[order.task.id] = execution
        self._empty.clear()
        slot = self.slots.get(order.worker_id)
        if reason := self._refusing or self._unusable(slot, order):
            execution.stop(Stop(kind=StopKind.RETURN, reason=reason))
        elif slot is not None:
            slot.queue.put_nowait(execution)

    def on_cancel(self, order: CancelOrder) -> None:
        """Stop an attempt for its caller. An order for an attempt that is not here does nothing."""
        execution = self._held.get(order.task_id)
        if execution is None or execution.order.attempt != order.attempt:
            return
        grace_s = 0.0 if order.force else order.grace_ms / 1000
        execution.stop(Stop(kind=StopKind.CANCEL, reason="cancelled by its caller", grace_s=grace_s))

    def on_evict(self, order: EvictOrder) -> None:
        """Unload an idle instance; a busy one stays, and the next report says so."""
        slot = self.slots.get(order.worker_id)
        if slot is not None:
            slot.residency.evict(order.setup_key, order.reason)

    def on_load(self, order: LoadOrder) -> None:
        """Take an order to load on, or refuse it. One that is known already is ignored."""
        load, slot = self.loads.take(order), self.slots.get(order.worker_id)
        if load is None:
            return
        if slot is None:
            load.stop(f"worker {order.worker_id!r} is unknown here; known: {', '.join(self.slots)}")
        elif reason := self._refusing or slot.residency.lost or self._full(slot):
            load.stop(reason)
        else:
            slot.queue.put_nowait(load)
            self._on_change()

    def on_pins(self, order: PinOrder) -> None:
        """These setups stay on a slot from now on, and no others."""
        slot = self.slots.get(order.worker_id)
        if slot is not None and slot.residency.pins != frozenset(order.setup_keys):
            slot.residency.pins = frozenset(order.setup_keys)
            self._on_change()

    def disown(self, attempts: Mapping[TaskId, int], reason: str) -> None:
        """Stop attempts that are no longer this engine's; nothing more is written for them."""
        for task_id, attempt in attempts.items():
            execution = self._held.get(task_id)
            if execution is not None and execution.order.attempt == attempt:
                self.stale += 1
                _log.warning(
                    Event.ATTEMPT_STALE,
                    task_id=task_id,
                    attempt=execution.order.attempt,
                    reason=reason,
                    stale=self.stale,
                )
                execution.stop(Stop(kind=StopKind.DISOWN, reason=reason))

    def give_back(self, reason: str, *, running: bool) -> None:
        """Stop attempts and return them to the queue; those inside their function only if `running`."""
        self.loads.stop(reason)
        for execution in list(self._held.values()):
            if running or not execution.reached_function:
                execution.stop(Stop(kind=StopKind.RETURN, reason=reason))

    def leave_lost_devices(self) -> None:
        """Give back what needs a device that the driver calls lost: it cannot end well there."""
        for slot in self.slots.values():
            if not slot.residency.lost:
                continue
            self.loads.stop(slot.residency.lost, slot.worker.id)
            for execution in list(self._held.values()):
                if execution.order.worker_id == slot.worker.id and execution.needs_device:
                    execution.stop(Stop(kind=StopKind.RETURN, reason=slot.residency.lost))

    def refuse(self, reason: str) -> None:
        """Hand everything back that is assigned from now on."""
        self._refusing = reason

    def replay(self, spooled: Spooled) -> None:
        """Go on with an outcome of an earlier life of this daemon."""
        execution = Execution(spooled.order, "", self._tools, self._settled)
        execution.started = execution.reached_function = True
        self._held[execution.task_id] = execution
        self._empty.clear()
        execution.writes.resume(spooled.outcome, spooled.moves)
        _log.info(Event.SPOOL_REPLAYED, task_id=execution.task_id, attempt=execution.order.attempt)

    async def empty(self) -> None:
        """Return when nothing is held, and nothing is being loaded."""
        await self._empty.wait()
        await self.loads.empty()

    async def unload(self, reason: str) -> None:
        """End every instance."""
        await asyncio.gather(*(slot.residency.stop_all(reason) for slot in self.slots.values()))

    def kill(self) -> None:
        """End every process at once, without waiting: for a daemon that ends now."""
        for slot in self.slots.values():
            slot.residency.kill()

    def _unusable(self, slot: Slot | None, order: Assignment) -> str:
        if slot is None:
            return f"worker {order.worker_id!r} is unknown here; known: {', '.join(self.slots)}"
        if slot.residency.lost and (order.task.opens_session or not order.task.session_id):
            return slot.residency.lost  # a session's later task would come back here: it ends as what it is
        return self._full(slot)

    def _full(self, slot: Slot) -> str:
        return f"worker {slot.worker.id!r} has {QUEUE_LIMIT} tasks waiting" if slot.queue.full() else ""

    def _settled(self, execution: Execution) -> None:
        if self._held.get(execution.task_id) is execution:
            del self._held[execution.task_id]
        if not self._held:
            self._empty.set()
