"""Readings of the machine: CPU and memory by psutil, devices by NVML, from one thread that may hang alone.

A driver that does not answer must not hold up the heartbeat: the thread is a daemon thread, a reading has a
bound, and while one hangs the devices count as lost, with that reason.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

import psutil
import pynvml

from stoker.core.events import Event
from stoker.core.messages import GpuInfo, GpuSample, Telemetry
from stoker.log import get_logger
from stoker_worker.gpus import Nvml, lost_sample, newly

READ_TIMEOUT_S: Final = 3.0
"""A healthy NVML answers in milliseconds; one that resets a device takes seconds."""
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

    def __init__(self, sample_s: float, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._sample_s = sample_s
        self._read_timeout_s = read_timeout_s
        self._thread: SamplingThread | None = None
        self._nvml: Nvml | None = None
        self._processes: dict[int, int] = {}
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
        self._thread = SamplingThread()
        try:
            self._nvml = await self._thread.call(Nvml.open, OPEN_TIMEOUT_S)
        except (TimeoutError, pynvml.NVMLError) as error:
            _log.error(
                Event.GPU_UNREADABLE, reason=str(error) or f"NVML did not start within {OPEN_TIMEOUT_S:g} s"
            )
        await self.sample()

    async def stop(self) -> None:
        """End the thread and NVML. May be called twice or first."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if self._nvml is not None:
                thread.post(self._nvml.close)  # nobody waits: a hung driver must not hold up the end
            thread.stop()

    async def sample_loop(self) -> None:
        """Read the machine again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._sample_s)
            await self.sample()

    async def sample(self) -> Telemetry:
        """Read the machine once; always returns, with lost devices marked."""
        gpus = await self._read_gpus() if self._nvml and self._thread else ()
        lost, back = newly(self.latest.gpus, gpus)
        for gpu in lost:
            _log.error(Event.GPU_LOST, gpu=gpu.index, uuid=gpu.uuid, reason=gpu.lost)
        for gpu in back:
            _log.info(Event.GPU_FOUND, gpu=gpu.index, uuid=gpu.uuid)
        self.latest = _host_reading(gpus)
        for listener in self._on_sample:
            listener()
        return self.latest

    def memory_of_group(self, pgid: int) -> int:
        """GPU memory of a process group at the last reading, in bytes; 0 = unknown or none."""
        return sum(used for pid, used in self._processes.items() if _group(pid) == pgid)

    def used_bytes(self, uuids: frozenset[str]) -> int:
        """Memory in use on some devices at the last reading."""
        return sum(gpu.memory_used_bytes for gpu in self.latest.gpus if gpu.uuid in uuids)

    async def settle(self, uuids: frozenset[str], target_bytes: int) -> bool:
        """Wait until the devices use at most `target_bytes`; False when they do not in `SETTLE_TIMEOUT_S`."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            await self.sample()
            if self.used_bytes(uuids) <= target_bytes:
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(SETTLE_POLL_S)

    async def _read_gpus(self) -> tuple[GpuSample, ...]:
        nvml, thread = self._nvml, self._thread
        if nvml is None or thread is None:
            return ()
        try:
            gpus, self._processes = await thread.call(
                lambda: (nvml.sample(), nvml.memory_by_process()), self._read_timeout_s
            )
        except TimeoutError:
            reason = f"NVML did not answer within {self._read_timeout_s:g} s"
            return tuple(lost_sample(device, reason) for device in nvml.devices)
        return gpus


def _host_reading(gpus: tuple[GpuSample, ...]) -> Telemetry:
    memory = psutil.virtual_memory()
    return Telemetry(
        cpu_percent=psutil.cpu_percent(),
        ram_used_bytes=memory.total - memory.available,
        ram_total_bytes=memory.total,
        gpus=gpus,
    )


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:  # gone, or of another process namespace
        return -1
