"""The instances that live on one worker: who is warm, who must go, what each one costs. One owner a worker.

All changes happen between two awaits of the event loop: a check and the change that follows are one step.
What to evict is decided in `admission.py`; here it is done.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Final

from stoker.core.errors import NoCapacity
from stoker.core.events import Event
from stoker.core.messages import Resident, SetupKey, TaskRequest, WorkerInfo
from stoker.core.sessions import plain_key
from stoker.core.states import ResidentState
from stoker.core.vram import GIB, VramState
from stoker.log import get_logger
from stoker_worker.admission import Refuse, Standing, decide_admit, value_of
from stoker_worker.bay import Bay
from stoker_worker.instance_errors import (
    AppError,
    DeviceLost,
    InstanceFailed,
    InstanceLost,
    OutOfGpuMemory,
)
from stoker_worker.ledger import MEMORY_SLACK_BYTES, DeviceMemory, Ledger
from stoker_worker.logs import OnLine
from stoker_worker.parking import Lot
from stoker_worker.procs import signal_group
from stoker_worker.residence import Residence

FIRST_RUN_POLL_S: Final = 0.5
"""The usual pause between readings is longer than many runs."""

_log = get_logger("residency")


class Residency:
    """The instances of one worker."""

    def __init__(
        self,
        worker: WorkerInfo,
        sensors: DeviceMemory,
        on_change: Callable[[], None],
        lot: Lot | None = None,
    ) -> None:
        self._worker = worker
        self._on_change = on_change
        self.pins: frozenset[SetupKey] = frozenset()  # setups that make room for nothing, loaded or not
        self._ledger = Ledger(worker, sensors)
        self._residents: dict[SetupKey, Residence] = {}
        self._clock = 0.0
        self._background: set[asyncio.Task[None]] = set()
        self.bay = Bay(
            worker,
            lot or Lot(),
            self._ledger,
            own_bytes=lambda: self._own_bytes(living=True),
            on_end=self._end_parked,
            on_change=on_change,
        )

    def warm(self, key: SetupKey) -> Residence | None:
        """The idle instance with this setup, or None."""
        found = self._residents.get(key)
        if found is None or found.state is not ResidentState.IDLE or found.instance is None:
            return None
        return None if found.instance.exited.is_set() else found

    def warm_for(self, request: TaskRequest) -> Residence | None:
        """The idle instance for a task, or None. A session's first task makes one of the plain setup its own.

        From then on no task without the session finds it, and it goes only when the scheduler says so.
        """
        key = request.setup_key
        if not request.opens_session or key in self._residents:
            return self.warm(key)
        found = self.warm(plain_key(key))
        if found is not None:
            self._residents[key] = self._residents.pop(found.setup_key)
            found.setup_key = key
            self._on_change()
        return found

    async def admit(
        self,
        request: TaskRequest,
        *,
        declared_bytes: int = 0,
        ordered: Collection[SetupKey] = (),
        unpark: bool = False,
    ) -> Residence:
        """Make room for a new instance and count it as loading.

        `unpark`: one that is parked here will do, and has its process already; else that one is ended first.

        1. read the devices  2. decide what goes  3. wait until its memory is back  4. read and decide again: what
        did not come back, or was taken by others meanwhile, is not given away twice.

        Raises:
            NoCapacity: what is loaded is busy or pinned, or others hold the memory, or a device does not tell what is
                in use; names what is missing.
        """
        key = request.setup_key
        await self._read()
        while (leaving := self._residents.get(key)) is not None or (key in self.bay and not unpark):
            if leaving is None:
                self.bay.end(key, "its setup is loaded anew")
            else:
                await self._stop(leaving, "its setup is loaded anew")
                await (
                    self._read()
                )  # which may end a parked one of this setup, for want of the machine's memory
        residence = Residence(
            setup_key=key,
            version_id=request.version_id,
            app=request.app,
            need_bytes=self._ledger.need(key, declared_bytes),
        )
        self._make_room(residence, ordered)
        self._residents[key] = residence
        self._on_change()
        try:
            await self._wait_for_room(residence, ordered)
        except BaseException:  # its task was stopped, or there is no room: nobody else knows of this newcomer
            self._begin_stop(residence, "its task was stopped before it was loaded")
            raise
        if (parked := self.bay.take(key)) is not None:
            residence = self._residents[key] = parked
            self._on_change()
        residence.base_bytes = self._ledger.used_bytes() - residence.vram_bytes
        return residence

    async def loaded(self, residence: Residence, load_s: float) -> None:
        """The instance is set up: measure it, and watch for its death."""
        residence.load_s = load_s
        residence.since_ms = int(time.time() * 1000)
        await self._read_for(residence)
        residence.state = ResidentState.IDLE
        residence.used_mono = time.monotonic()
        self._measure(residence)
        residence.value = value_of(self._clock, 1, load_s, residence.peak_bytes)  # before its first use
        self._ledger.learn_more(residence.setup_key, residence.peak_bytes)
        self._spawn(self._watch(residence))
        _log.info(
            Event.INSTANCE_LOADED,
            worker=self._worker.id,
            app=residence.app,
            setup_key=residence.setup_key,
            load_s=round(load_s, 3),
            vram_bytes=residence.peak_bytes,
        )

    async def brought_back(self, residence: Residence, unpark_s: float) -> None:
        """The instance was parked, and is on its devices again."""
        await self._read_for(residence)
        residence.state = ResidentState.IDLE
        residence.used_mono = time.monotonic()
        self._measure(residence)
        residence.value = value_of(
            self._clock, max(1, residence.uses), residence.load_s, residence.peak_bytes
        )
        self._on_change()
        _log.info(
            Event.INSTANCE_UNPARKED,
            worker=self._worker.id,
            app=residence.app,
            setup_key=residence.setup_key,
            unpark_s=round(unpark_s, 3),
            vram_bytes=residence.vram_bytes,
        )

    def use(self, residence: Residence, task_id: str, on_line: OnLine) -> None:
        """A task has the instance from now on."""
        residence.state = ResidentState.BUSY
        residence.on_line = on_line
        residence.task_id = task_id
        residence.uses += 1
        residence.used_mono = time.monotonic()
        residence.value = value_of(self._clock, residence.uses, residence.load_s, residence.peak_bytes)
        if residence.uses == 1:
            self._on_change()  # that it is ready; who is busy the scheduler knows from its own assignments
            if self._ledger.uuids:
                self._spawn(self._watch_first_run(residence))

    def release(self, residence: Residence) -> None:
        """The task has left; the instance is warm, if it lives."""
        if residence.state is ResidentState.BUSY:
            residence.state = ResidentState.IDLE
            if residence.instance is not None and residence.instance.exited.is_set():
                self._forget_dead(residence)
            else:
                self._learn(residence)
        residence.task_id = ""
        residence.used_mono = time.monotonic()

    def discard(self, residence: Residence, reason: str, *, at_once: bool = False) -> None:
        """End an instance that is broken or half loaded, in the background; `at_once`: with SIGKILL.

        It counts as used until it is `gone`; the next admission waits for that.
        """
        if at_once:
            _kill(residence)
        self._begin_stop(residence, reason)

    def evict(self, key: SetupKey, reason: str) -> bool:
        """Unload an idle or parked instance in the background; False when it is busy, pinned or not there."""
        if key in self.pins:
            return False
        if self.warm(key) is None:
            return self.bay.end(key, reason)
        self._begin_eviction(key, reason)
        return True

    async def stop_all(self, reason: str) -> None:
        """End every instance."""
        self.bay.close(reason)
        for residence in self.bay:
            _kill(residence)
        for residence in list(self._residents.values()):
            self._begin_stop(residence, reason)
        for residence in list(self._residents.values()):
            await residence.gone.wait()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def kill(self) -> None:
        """Kill every process group at once, without waiting."""
        for residence in (*self._residents.values(), *self.bay):
            _kill(residence)

    def refresh(self) -> None:
        """Take over the latest reading of the devices; a large change is reported."""
        residents = self._residents.values()
        changed = [self._measure(r) for r in residents if r.instance is not None]
        self.bay.refresh()
        calm = all(r.living and r.state is not ResidentState.LOADING for r in residents)
        told = self._ledger.note(self._own_bytes(), calm=calm)
        if told or any(changed):
            self._on_change()
        if self._ledger.gone:
            self.bay.end_all(self._ledger.gone)
            for idle in [r for r in residents if r.state is ResidentState.IDLE]:
                self.discard(idle, self._ledger.gone, at_once=True)

    @property
    def lost(self) -> str:
        """Why nothing runs here any more: the driver says that a device is lost. Empty = it does."""
        return self._ledger.gone

    @property
    def vram_state(self) -> VramState:
        """What is to be told of the devices, beside the residents."""
        return self._ledger.state

    async def blame(self, residence: Residence, error: AppError | InstanceFailed | InstanceLost) -> None:
        """Look at the devices after a failure of an app's process.

        Raises:
            DeviceLost: one of them is lost.
            OutOfGpuMemory: memory ran out; says who has it. The next instance of the setup gets all that there is.
        """
        if not self._ledger.uuids:
            return
        await self._read()
        if self._ledger.gone:
            raise DeviceLost(f"{self._ledger.gone}. The app said: {error.message}") from error
        if not error.vram_short:
            return
        shares = self._ledger.shares(residence.vram_bytes, self._own_bytes(living=True))
        counted = f"it was counted with {residence.need_bytes / GIB:.1f} GiB"
        needed = self._ledger.ran_out(residence.setup_key)
        text = f"{error.message} (GPU memory ran out: {shares}; {counted}.)"
        raise OutOfGpuMemory(text, peak_bytes=residence.vram_bytes, needed_bytes=needed) from error

    def snapshot(self) -> tuple[Resident, ...]:
        """What lives here, for a report."""
        return tuple(r.reported(self._worker.id, parks=self.bay.takes(r)) for r in self._residents.values())

    def _standing(self, residence: Residence, ordered: Collection[SetupKey]) -> Standing:
        leased = bool(residence.session) and residence.setup_key not in ordered
        return Standing(
            setup_key=residence.setup_key,
            value=residence.value,
            vram_bytes=max(residence.peak_bytes, residence.vram_bytes),
            fixed=residence.setup_key in self.pins or leased or residence.state is not ResidentState.IDLE,
            used_mono=residence.used_mono,
        )

    async def _read(self) -> None:
        await self._ledger.read()
        self.refresh()

    async def _read_for(self, newcomer: Residence) -> None:
        """Have the devices read once a newcomer is up. One that is given up meanwhile is ended."""
        try:
            await self._read()
        except BaseException:
            # Told to stop, or out of time: nobody watches it yet, and nobody else would end it.
            self.discard(newcomer, "it was stopped while it was measured", at_once=True)
            raise

    def _make_room(self, newcomer: Residence, ordered: Collection[SetupKey]) -> None:
        """Begin to evict what must go.

        Raises:
            NoCapacity: there is no room, whatever may go.
        """
        others = [r for r in self._residents.values() if r is not newcomer]
        decision = decide_admit(
            [self._standing(r, ordered) for r in others if r.state is not ResidentState.STOPPING],
            need_bytes=newcomer.need_bytes,
            vram_bytes=self._ledger.total_bytes,
            max_residents=self._worker.max_residents,
            other_bytes=self._ledger.other_bytes + self.bay.held_bytes(but=newcomer.setup_key),
            ordered=ordered,
        )
        if isinstance(decision, Refuse) and self.bay.clear_device(but=newcomer.setup_key):
            return  # the admission waits for its end, and asks again
        if isinstance(decision, Refuse):
            raise NoCapacity(f"Worker '{self._worker.id}' has no room for this app: {decision.reason}")
        for gone, reason in decision.evict:
            self._residents[gone].parks = True
            self._begin_eviction(gone, reason)

    async def _wait_for_room(self, newcomer: Residence, ordered: Collection[SetupKey]) -> None:
        """Wait for the end of what unloads, and look again.

        Raises:
            NoCapacity: there is no room after all, or a device does not tell what is in use.
        """
        while leaving := [r for r in self._residents.values() if r.state is ResidentState.STOPPING]:
            for stopping in leaving:  # what still unloads counts as used
                await stopping.gone.wait()  # bounded by the instance's own escalation to SIGKILL
            await self._read()
            if (
                newcomer.state is ResidentState.LOADING
            ):  # not stopped itself: a parked one that ended had its place
                self._residents.setdefault(newcomer.setup_key, newcomer)
            self._make_room(newcomer, ordered)
        if unread := self._ledger.unreadable:  # what others have would count as the newcomer's
            raise NoCapacity(f"Worker '{self._worker.id}' loads nothing now: {unread}")

    def _own_bytes(self, *, living: bool = False) -> int:
        """What the instances account for; of one that ends, what it last had, unless only the `living` count."""
        own = sum(r.vram_bytes for r in self._residents.values() if r.living or not living)
        return own + self.bay.held_bytes()

    def _learn(self, residence: Residence) -> None:
        """A run has ended well. The first one is read for: it may have been shorter than the pause of the readings."""
        if residence.uses > 1 or not self._ledger.uuids:
            self._ledger.learn(residence.setup_key, residence.peak_bytes)
        else:
            self._spawn(self._learn_first(residence))

    async def _watch_first_run(self, residence: Residence) -> None:
        """Read the devices often: the first run is the one that shows what a run takes."""
        while residence.uses == 1 and residence.state is ResidentState.BUSY:
            await asyncio.sleep(FIRST_RUN_POLL_S)
            await self._read()

    async def _learn_first(self, residence: Residence) -> None:
        await self._read()
        self._ledger.learn(residence.setup_key, residence.peak_bytes)

    def _measure(self, residence: Residence) -> bool:
        """Update what the instance takes; whether that is worth a report.

        By process where NVML tells (not from inside most containers), else what the devices gained meanwhile. Of one
        that has ended, what it took is not forgotten before its memory is back.
        """
        if residence.instance is None or not self._ledger.uuids or not residence.living:
            return False
        used = self._ledger.bytes_of(residence.instance.pgid)
        loading = residence.state is ResidentState.LOADING
        if used is None and (loading or not residence.vram_bytes):
            used = max(self._ledger.used_bytes() - residence.base_bytes, 0)
        if used is not None and not self._ledger.gone:
            residence.vram_bytes = used
        if loading:
            return False
        old = residence.peak_bytes
        residence.peak_bytes = max(old, residence.vram_bytes)
        return residence.peak_bytes - old > MEMORY_SLACK_BYTES

    def _begin_eviction(self, key: SetupKey, reason: str) -> None:
        residence = self._residents[key]
        self._clock = max(self._clock, residence.value)
        _log.info(
            Event.INSTANCE_EVICTED, worker=self._worker.id, app=residence.app, setup_key=key, reason=reason
        )
        self._begin_stop(residence, reason)

    def _begin_stop(self, residence: Residence, reason: str) -> None:
        if residence.state is ResidentState.STOPPING:
            return
        residence.state = ResidentState.STOPPING
        self._spawn(self._end(residence, reason))
        self._on_change()

    async def _stop(self, residence: Residence, reason: str) -> None:
        self._begin_stop(residence, reason)
        await residence.gone.wait()

    async def _end(self, residence: Residence, reason: str) -> None:
        """Park the process, or stop it and wait until its memory is back; forget it."""
        try:
            if residence.parks and await self.bay.park(residence):
                return
            if residence.instance is not None:
                await residence.instance.stop(reason)
                await self._memory_back(residence)
        finally:
            if self._residents.get(residence.setup_key) is residence:
                del self._residents[residence.setup_key]
            residence.gone.set()
            self._on_change()

    async def _memory_back(self, residence: Residence) -> None:
        if residence.instance is None or residence.vram_bytes <= MEMORY_SLACK_BYTES:
            return

        def own_bytes() -> int:
            return self._own_bytes(living=True)

        await self._ledger.memory_back(residence.instance.pgid, residence.app, own_bytes)

    async def _watch(self, residence: Residence) -> None:
        """Notice the death of an idle or parked instance; a busy one is its task's to notice."""
        if residence.instance is None:
            return
        await residence.instance.exited.wait()
        if residence.state is ResidentState.IDLE:
            self._forget_dead(residence)
        elif residence.state is ResidentState.PARKED:
            self.bay.end(residence.setup_key, "the parked process ended by itself")

    def _end_parked(self, residence: Residence, reason: str) -> None:
        """A parked instance must go: it counts as used until it is gone. It is asked nothing: it may be locked."""
        residence.parks = False
        self._residents[residence.setup_key] = residence
        self.discard(residence, reason, at_once=True)

    def _forget_dead(self, residence: Residence) -> None:
        _log.warning(
            Event.INSTANCE_DIED,
            worker=self._worker.id,
            app=residence.app,
            setup_key=residence.setup_key,
            reason="the process ended while no function ran on it",
        )
        self._begin_stop(residence, "the process ended by itself")

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _kill(residence: Residence) -> None:
    # A group of 0 would be this daemon's own.
    if (
        residence.instance is not None
        and not residence.instance.exited.is_set()
        and residence.instance.pgid > 0
    ):
        signal_group(residence.instance.pgid, signal.SIGKILL)
