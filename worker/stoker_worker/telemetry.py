"""Readings of the machine: CPU and memory by psutil, devices by NVML, disks, from threads that may hang alone.

A driver or a disk that does not answer must not hold up the heartbeat: the threads are daemon threads, a reading has
a bound, and while one hangs the devices count as lost, with that reason; disks are left out.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

import psutil
import pynvml
from msgspec import structs

from stoker.core.events import Event
from stoker.core.messages import GpuInfo
from stoker.core.telemetry import XIDS_OF_APPS, GpuSample, Telemetry, Volume, xid_text
from stoker.log import get_logger
from stoker_worker.gpus import Nvml, fresh_xids, lost_sample, newly
from stoker_worker.history import History
from stoker_worker.process_tree import Holder
from stoker_worker.volumes import read_volumes

READ_TIMEOUT_S: Final = 3.0
"""A healthy NVML answers in milliseconds; one that resets a device takes seconds."""
DISK_TIMEOUT_S: Final = 1.0
"""A disk answers in microseconds; a network disk whose server is away does not answer at all."""
OPEN_TIMEOUT_S: Final = 30.0
"""Without the persistence daemon the driver initialises its devices first."""
SETTLE_TIMEOUT_S: Final = 10.0
"""How long the driver may take to give the memory of an ended process back."""
SETTLE_POLL_S: Final = 0.1

T = TypeVar("T")

_log = get_logger("telemetry")


class SamplingThread:
    """Runs reads one after another in a thread that the interpreter does not wait for at its end."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="sampling", daemon=True).start()

    async def call(self, read: Callable[[], T], timeout_s: float) -> T:
        """The result of `read`.

        Raises:
            TimeoutError: it did not return in time; it may return later, to nobody.
            Exception: whatever `read` raises.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            if future.cancelled():
                return
            try:
                result = read()
            except Exception as error:  # noqa: BLE001 - handed to the caller as it is
                self._post(partial(_fail, future, error))
            else:
                self._post(partial(_settle, future, result))

        self._jobs.put(job)
        return await asyncio.wait_for(future, timeout_s)

    def post(self, job: Callable[[], None]) -> None:
        """Run `job`, which must not raise, after the reads that wait."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end after the read that it is in. May be called twice."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _post(self, answer: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(answer)


def _settle(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class Sensors:
    """The machine as last read.

    1. `start` opens NVML and takes the first reading  2. `sample_loop` repeats it  3. `stop`.
    """

    def __init__(
        self, sample_s: float, read_timeout_s: float = READ_TIMEOUT_S, folders: Sequence[Path] = ()
    ) -> None:
        self._sample_s = sample_s
        self._read_timeout_s = read_timeout_s
        self._folders = folders
        self._thread: SamplingThread | None = None
        self._disks: SamplingThread | None = None
        self._volumes: tuple[Volume, ...] = ()
        self._history = History(sample_s)
        self._nvml: Nvml | None = None
        self._holders: tuple[Holder, ...] = ()
        self._on_sample: list[Callable[[], None]] = []
        self.latest = _host_reading(())

    @property
    def devices(self) -> tuple[GpuInfo, ...]:
        """The devices found at the start."""
        return self._nvml.devices if self._nvml else ()

    @property
    def driver_version(self) -> str:
        return self._nvml.driver_version if self._nvml else ""

    @property
    def cuda_version(self) -> str:
        return self._nvml.cuda_version if self._nvml else ""

    def on_sample(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each reading."""
        self._on_sample.append(listener)

    async def start(self) -> None:
        """Find the devices and read once. A driver that fails counts as no devices, with a log event."""
        self._thread, self._disks = SamplingThread(), SamplingThread()
        try:
            self._nvml = await self._thread.call(Nvml.open, OPEN_TIMEOUT_S)
        except (TimeoutError, pynvml.NVMLError) as error:
            _log.error(
                Event.GPU_UNREADABLE, reason=str(error) or f"NVML did not start within {OPEN_TIMEOUT_S:g} s"
            )
        self._history = History(self._sample_s, [device.uuid for device in self.devices])
        await self._sample_and_remember()

    async def stop(self) -> None:
        """End the threads and NVML. May be called twice or first."""
        thread, self._thread = self._thread, None
        disks, self._disks = self._disks, None
        if disks is not None:
            disks.stop()
        if thread is not None:
            if self._nvml is not None:
                thread.post(self._nvml.close)  # nobody waits: a hung driver must not hold up the end
            thread.stop()

    async def sample_loop(self) -> None:
        """Read the machine again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._sample_s)
            await self._sample_and_remember()

    async def sample(self) -> Telemetry:
        """Read the machine once; always returns, with lost devices marked."""
        gpus = await self._read_gpus()
        self._tell(gpus)
        self.latest = self._history.beside(_host_reading(gpus, self._volumes))
        for listener in self._on_sample:
            listener()
        return self.latest

    async def _sample_and_remember(self) -> None:
        """A reading at the regular pace: a point of the history, and the moment to look at the disks."""
        self._volumes = await self._read_volumes()
        await self.sample()
        self._history.add(self.latest)
        self.latest = self._history.beside(self.latest)

    def _tell(self, gpus: tuple[GpuSample, ...]) -> None:
        """Log what became of devices since the last reading."""
        lost, back = newly(self.latest.gpus, gpus)
        for gpu in lost:
            _log.error(Event.GPU_LOST, gpu=gpu.index, uuid=gpu.uuid, reason=gpu.lost)
        for gpu in back:
            _log.info(Event.GPU_FOUND, gpu=gpu.index, uuid=gpu.uuid)
        for gpu, xid in fresh_xids(self.latest.gpus, gpus):
            log = _log.warning if xid.code in XIDS_OF_APPS else _log.error
            log(Event.GPU_XID, gpu=gpu.index, uuid=gpu.uuid, xid=xid.code, reason=xid_text(xid.code))

    def memory_of_tree(self, pgid: int) -> int:
        """GPU memory of a process group and all below it at the last reading, in bytes; 0 = unknown or none."""
        return sum(holder.used_bytes for holder in self._holders if pgid in holder.kin)

    def listed_bytes(self, uuids: frozenset[str]) -> int:
        """Memory on some devices of which NVML says, at the last reading, which living process has it."""
        return sum(holder.used_bytes for holder in self._holders if holder.alive and holder.uuid in uuids)

    def used_bytes(self, uuids: frozenset[str]) -> int:
        """Memory in use on some devices at the last reading."""
        return sum(gpu.memory_used_bytes for gpu in self.latest.gpus if gpu.uuid in uuids)

    def lost(self, uuids: frozenset[str]) -> tuple[GpuSample, ...]:
        """Those of some devices that could not be read at the last reading."""
        return tuple(gpu for gpu in self.latest.gpus if gpu.uuid in uuids and gpu.lost)

    async def settle(self, settled: Callable[[], bool]) -> bool:
        """Read until `settled` is true of the reading; False when it is not within `SETTLE_TIMEOUT_S`."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            await self.sample()
            if settled():
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(SETTLE_POLL_S)

    async def _read_gpus(self) -> tuple[GpuSample, ...]:
        nvml, thread = self._nvml, self._thread
        if nvml is None or thread is None:
            return ()
        try:
            gpus, self._holders = await thread.call(
                lambda: (nvml.sample(), _holders(nvml)), self._read_timeout_s
            )
        except TimeoutError:
            reason = f"NVML did not answer within {self._read_timeout_s:g} s"
            known = {gpu.uuid: gpu for gpu in self.latest.gpus}
            return tuple(_silent(device, reason, known.get(device.uuid)) for device in nvml.devices)
        return gpus

    async def _read_volumes(self) -> tuple[Volume, ...]:
        if self._disks is None or not self._folders:
            return ()
        try:
            return await self._disks.call(lambda: read_volumes(self._folders), DISK_TIMEOUT_S)
        except TimeoutError:
            return ()


def _holders(nvml: Nvml) -> tuple[Holder, ...]:
    return tuple(
        Holder.of(uuid, pid, used)
        for uuid, processes in nvml.memory_by_process().items()
        for pid, used in processes.items()
    )


def _silent(device: GpuInfo, reason: str, before: GpuSample | None) -> GpuSample:
    """A device whose driver does not answer; what was told of it before is not told again when it does."""
    sample = lost_sample(device, reason)
    return structs.replace(sample, xids=before.xids, xid_count=before.xid_count) if before else sample


def _host_reading(gpus: tuple[GpuSample, ...], volumes: tuple[Volume, ...] = ()) -> Telemetry:
    memory = psutil.virtual_memory()
    return Telemetry(
        cpu_percent=psutil.cpu_percent(),
        ram_used_bytes=memory.total - memory.available,
        ram_total_bytes=memory.total,
        gpus=gpus,
        load=tuple(round(mean, 2) for mean in os.getloadavg()),
        volumes=volumes,
    )
