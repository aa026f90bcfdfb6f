"""The instances that live on one worker: who is warm, who must go, what each one costs. One owner a worker.

All changes happen between two awaits of the event loop: a check and the change that follows are one step.
What to evict is decided in `admission.py`; here it is done.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Final, Protocol

from stoker.core.errors import NoCapacity
from stoker.core.events import Event
from stoker.core.messages import LogType, Resident, ResidentState, SetupKey, TaskRequest, WorkerInfo
from stoker.core.sessions import plain_key, session_of
from stoker.log import get_logger
from stoker_worker.admission import Refuse, Standing, decide_admit, value_of
from stoker_worker.ports import OnLine, RunningInstance
from stoker_worker.procs import signal_group

MEMORY_SLACK_BYTES: Final = 256 * 1024 * 1024
"""A driver context and other programs move a device's use by about this much."""

_log = get_logger("residency")


class DeviceMemory(Protocol):
    """What residency asks of the sensors."""

    async def sample(self) -> object: ...

    def memory_of_group(self, pgid: int) -> int: ...

    def used_bytes(self, uuids: frozenset[str]) -> int: ...

    async def settle(self, uuids: frozenset[str], target_bytes: int) -> bool: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Residence:
    """An instance and what is known of it. `instance` is None while it is being loaded."""

    setup_key: SetupKey
    version_id: str
    app: str
    state: ResidentState = ResidentState.LOADING
    instance: RunningInstance | None = None
    task_id: str = ""
    pinned: bool = False
    vram_bytes: int = 0
    base_bytes: int = 0  # in use on the devices before it was loaded
    load_s: float = 0.0
    since_ms: int = 0
    uses: int = 0
    value: float = 0.0
    used_mono: float = 0.0
    on_line: OnLine | None = None  # where its lines go: the log of the task that it works for, or did last
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def session(self) -> str:
        """The session that has this instance for itself, or ''."""
        return session_of(self.setup_key)

    def emit(self, kind: LogType, text: str) -> None:
        """Lines of the process; what a child prints when the run is over belongs to the task that ran last."""
        if self.on_line is not None:
            self.on_line(kind, text)


class Residency:
    """The instances of one worker."""

    def __init__(self, worker: WorkerInfo, sensors: DeviceMemory, on_change: Callable[[], None]) -> None:
        self._worker = worker
        self._sensors = sensors
        self._on_change = on_change
        self._uuids = frozenset(gpu.uuid for gpu in worker.gpus)
        self._vram_bytes = sum(gpu.vram_bytes for gpu in worker.gpus)
        self._residents: dict[SetupKey, Residence] = {}
        self._learned_bytes: dict[SetupKey, int] = {}
        self._clock = 0.0
        self._background: set[asyncio.Task[None]] = set()

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
        self, request: TaskRequest, *, declared_bytes: int = 0, ordered: Collection[SetupKey] = ()
    ) -> Residence:
        """Make room for a new instance and count it as loading.

        Raises:
            NoCapacity: what is loaded is busy or pinned; names what is missing.
        """
        key = request.setup_key
        while (leaving := self._residents.get(key)) is not None:
            await self._stop(leaving, "its setup is loaded anew")
        decision = decide_admit(
            [
                self._standing(r, ordered)
                for r in self._residents.values()
                if r.state is not ResidentState.STOPPING
            ],
            need_bytes=self._learned_bytes.get(plain_key(key), declared_bytes),
            vram_bytes=self._vram_bytes,
            max_residents=self._worker.max_residents,
            ordered=ordered,
        )
        if isinstance(decision, Refuse):
            raise NoCapacity(f"Worker '{self._worker.id}' has no room for this app: {decision.reason}")
        residence = Residence(setup_key=key, version_id=request.version_id, app=request.app)
        for gone, reason in decision.evict:
            self._begin_eviction(gone, reason)
        leaving_all = [r for r in self._residents.values() if r.state is ResidentState.STOPPING]
        self._residents[key] = residence
        self._on_change()
        try:
            for stopping in leaving_all:  # what still unloads counts as used
                await stopping.gone.wait()  # bounded by the instance's own escalation to SIGKILL
        except BaseException:  # its task was stopped: nobody else knows of this newcomer
            self._begin_stop(residence, "its task was stopped before it was loaded")
            raise
        residence.base_bytes = self._sensors.used_bytes(self._uuids)
        return residence

    async def loaded(self, residence: Residence, load_s: float) -> None:
        """The instance is set up: measure it, and watch for its death."""
        residence.load_s = load_s
        residence.since_ms = int(time.time() * 1000)
        if self._uuids:
            await self._sensors.sample()
            self._measure(residence)
        residence.state = ResidentState.IDLE
        self._spawn(self._watch(residence))
        _log.info(
            Event.INSTANCE_LOADED,
            worker=self._worker.id,
            app=residence.app,
            setup_key=residence.setup_key,
            load_s=round(load_s, 3),
            vram_bytes=residence.vram_bytes,
        )

    def use(self, residence: Residence, task_id: str, on_line: OnLine) -> None:
        """A task has the instance from now on."""
        residence.state = ResidentState.BUSY
        residence.on_line = on_line
        residence.task_id = task_id
        residence.uses += 1
        residence.used_mono = time.monotonic()
        residence.value = value_of(self._clock, residence.uses, residence.load_s, residence.vram_bytes)
        if residence.uses == 1:
            self._on_change()  # that it is ready; who is busy the scheduler knows from its own assignments

    def release(self, residence: Residence) -> None:
        """The task has left; the instance is warm, if it lives."""
        if residence.state is ResidentState.BUSY:
            residence.state = ResidentState.IDLE
            if residence.instance is not None and residence.instance.exited.is_set():
                self._forget_dead(residence)
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
        """Unload an idle instance in the background; False when it is busy, pinned or not there."""
        residence = self.warm(key)
        if residence is None or residence.pinned:
            return False
        self._begin_eviction(key, reason)
        return True

    async def stop_all(self, reason: str) -> None:
        """End every instance."""
        for residence in list(self._residents.values()):
            self._begin_stop(residence, reason)
        for residence in list(self._residents.values()):
            await residence.gone.wait()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def kill(self) -> None:
        """Kill every process group at once, without waiting."""
        for residence in self._residents.values():
            _kill(residence)

    def refresh(self) -> None:
        """Take over the latest reading of the devices; a large change is reported."""
        changed = [self._measure(r) for r in self._residents.values() if r.instance is not None]
        if any(changed):
            self._on_change()

    def snapshot(self) -> tuple[Resident, ...]:
        """What lives here, for a report."""
        return tuple(
            Resident(
                worker_id=self._worker.id,
                setup_key=r.setup_key,
                version_id=r.version_id,
                app=r.app,
                state=r.state,
                vram_bytes=r.vram_bytes,
                load_s=r.load_s,
                since_ms=r.since_ms,
                task_id=r.task_id,
            )
            for r in self._residents.values()
        )

    def _standing(self, residence: Residence, ordered: Collection[SetupKey]) -> Standing:
        leased = bool(residence.session) and residence.setup_key not in ordered
        return Standing(
            setup_key=residence.setup_key,
            value=residence.value,
            vram_bytes=residence.vram_bytes,
            fixed=residence.pinned or leased or residence.state is not ResidentState.IDLE,
            used_mono=residence.used_mono,
        )

    def _measure(self, residence: Residence) -> bool:
        """Update what the instance takes; whether that is worth a report.

        By process where NVML tells (not from inside most containers), else what the devices gained meanwhile.
        """
        if residence.instance is None or not self._uuids:
            return False
        used = self._sensors.memory_of_group(residence.instance.pgid)
        if not used and not residence.vram_bytes:
            used = max(self._sensors.used_bytes(self._uuids) - residence.base_bytes, 0)
        old = residence.vram_bytes
        residence.vram_bytes = used or old
        self._learned_bytes[plain_key(residence.setup_key)] = residence.vram_bytes
        return abs(residence.vram_bytes - old) > MEMORY_SLACK_BYTES

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
        """Stop the process, wait until its memory is back, forget it."""
        used = self._sensors.used_bytes(self._uuids)
        try:
            if residence.instance is not None:
                await residence.instance.stop(reason)
                await self._memory_back(residence, used)
        finally:
            if self._residents.get(residence.setup_key) is residence:
                del self._residents[residence.setup_key]
            residence.gone.set()
            self._on_change()

    async def _memory_back(self, residence: Residence, used_bytes: int) -> None:
        if not self._uuids or residence.vram_bytes <= MEMORY_SLACK_BYTES:
            return
        target = used_bytes - residence.vram_bytes + MEMORY_SLACK_BYTES
        if not await self._sensors.settle(self._uuids, target):
            _log.warning(
                Event.GPU_MEMORY_HELD,
                worker=self._worker.id,
                app=residence.app,
                expected_bytes=target,
                used_bytes=self._sensors.used_bytes(self._uuids),
            )

    async def _watch(self, residence: Residence) -> None:
        """Notice the death of an idle instance; a busy one is its task's to notice."""
        if residence.instance is None:
            return
        await residence.instance.exited.wait()
        if residence.state is ResidentState.IDLE:
            self._forget_dead(residence)

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
