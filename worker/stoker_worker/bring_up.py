"""How an attempt that finds nothing warm, or an order to load, gets an instance: what is parked comes back, else a process is started and set up."""

import time
from collections.abc import Awaitable, Callable

from stoker.core.events import Event
from stoker.core.messages import Assignment, LogType, WorkerInfo
from stoker.core.states import TaskState
from stoker.log import get_logger
from stoker_worker.logs import OnLine
from stoker_worker.parking_ways import ParkingFailed
from stoker_worker.ports import AppMachine, Prepared
from stoker_worker.residence import Residence
from stoker_worker.residency import Residency

_log = get_logger("execution")


class BringUp:
    """One attempt's, or one load's. `enter` moves its task, `blame` raises when the GPUs are at fault for an error."""

    def __init__(
        self,
        order: Assignment,
        machine: AppMachine,
        on_line: OnLine,
        *,
        enter: Callable[[TaskState], None],
        on_wait: Callable[[], None],
        blame: Callable[[Residence, Exception], Awaitable[None]],
    ) -> None:
        self.prepared: Prepared | None = None
        self.was_parked = False
        self.took_s = 0.0  # without what the environment took
        self._order = order
        self._machine = machine
        self._on_line = on_line
        self._enter = enter
        self._on_wait = on_wait
        self._blame = blame

    async def obtain(
        self, worker: WorkerInfo, residency: Residency, prepared: Prepared | None, limit_s: float
    ) -> Residence:
        """An instance that is ready. The caller bounds it; each further round has lost a parked one.

        Raises:
            NoCapacity: there is no room.
            StokerError: it could not be prepared, started or set up.
        """
        order, self.prepared = self._order, prepared
        while True:
            if self.prepared is None and order.task.setup_key not in residency.bay:
                self.prepared = await self._machine.prepare(order, self._on_line)
                self._enter(TaskState.SERVING)
            began = time.monotonic()
            declared = self.prepared.vram_bytes if self.prepared else 0
            residence = await residency.admit(
                order.task, declared_bytes=declared, ordered=order.evict, unpark=True
            )
            if residence.instance is not None:
                self.was_parked = await self._bring_back(residency, residence)
                if self.was_parked:
                    break
            elif self.prepared is not None:
                await self._start(worker, residency, residence, self.prepared, limit_s)
                break
            else:  # what is to be started must be prepared first, and that may fail: nobody may wait for this one
                residency.discard(residence, "its parked process has ended")
        self.took_s = time.monotonic() - began
        return residence

    async def _bring_back(self, residency: Residency, residence: Residence) -> bool:
        """Bring a parked instance back; one that does not come back is ended."""
        self._enter(TaskState.SETTING_UP)
        residence.on_line = self._on_line
        try:
            await residency.bay.bring_back(residence)
        except ParkingFailed as error:
            _log.warning(
                Event.INSTANCE_DIED,
                task_id=self._order.task.id,
                worker=self._order.worker_id,
                app=residence.app,
                setup_key=residence.setup_key,
                reason=f"it was parked and did not come back: {error}",
            )
            self._on_line(LogType.SETUP, f"The parked app did not come back and is loaded anew: {error}.")
            residency.discard(residence, str(error), at_once=True)
            await residence.gone.wait()
            return False
        except BaseException:  # told to stop, or out of time: half back is of no use
            residency.discard(residence, "it was stopped while it came back", at_once=True)
            await residence.gone.wait()
            raise
        return True

    async def _start(
        self,
        worker: WorkerInfo,
        residency: Residency,
        residence: Residence,
        prepared: Prepared,
        limit_s: float,
    ) -> None:
        """Start the process and run the app's setup; what fails half-way leaves nothing behind."""
        residence.on_line = self._on_line
        try:
            residence.instance = await self._machine.start(self._order, prepared, worker, residence.emit)
            self._enter(TaskState.SETTING_UP)
            async with self._machine.turn(residence.instance, self._on_wait):
                await residence.instance.setup(limit_s)
        except Exception as error:
            try:
                await self._blame(residence, error)
            finally:
                residency.discard(residence, "the app could not be set up")
            raise
        except BaseException:  # told to stop, or out of time: a half-loaded instance is nobody's
            residency.discard(residence, "it was stopped while it was loaded", at_once=True)
            await residence.gone.wait()
            raise
