"""The GPU memory of one worker: what its instances take, what others hold, and what cannot be used. One owner: residency.

NVML's total is the truth; what no instance accounts for is `other_bytes`, whoever has it. Nothing here evicts.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from stoker.core.events import Event
from stoker.core.messages import SetupKey, WorkerInfo
from stoker.core.sessions import plain_key
from stoker.core.telemetry import GpuSample
from stoker.core.vram import GIB, Peaks, VramState, device_type
from stoker.log import get_logger
from stoker_worker.gpus import is_gone

MEMORY_SLACK_BYTES: Final = 256 * 1024 * 1024
"""A driver context and other programs move a device's use by about this much."""
HELD_MAX_S: Final = 300.0
"""What did not come back for so long will not: it counts as somebody else's, and the worker goes on beside it."""
REST_S: Final = 1.0
"""A process that parked itself keeps a context of a few hundred MiB; what does not move for so long is that."""

_log = get_logger("ledger")


class DeviceMemory(Protocol):
    """What residency asks of the sensors."""

    async def sample(self) -> object: ...

    def memory_of_tree(self, pgid: int) -> int: ...

    def listed_bytes(self, uuids: frozenset[str]) -> int: ...

    def used_bytes(self, uuids: frozenset[str]) -> int: ...

    def lost(self, uuids: frozenset[str]) -> tuple[GpuSample, ...]: ...

    async def settle(self, settled: Callable[[], bool]) -> bool: ...


class Ledger:
    """What is known of the memory as of the last reading. A worker without GPUs has one that is always empty."""

    def __init__(self, worker: WorkerInfo, sensors: DeviceMemory) -> None:
        self.uuids = frozenset(gpu.uuid for gpu in worker.gpus)
        self.total_bytes = sum(gpu.vram_bytes for gpu in worker.gpus)
        self.device = device_type([gpu.name for gpu in worker.gpus])
        self.other_bytes = 0
        self.gone = ""  # the driver says that a device is lost: nothing on it works any more
        self._worker = worker
        self._sensors = sensors
        self._peaks = Peaks()
        self._calm_bytes = (
            0  # in use and nobody's, of which NVML names no process, while nothing was unloaded
        )
        self._held = ""
        self._held_mono = 0.0
        self._state = VramState()

    def need(self, key: SetupKey, declared_bytes: int) -> int:
        """What a new instance is counted with."""
        return self._peaks.need(plain_key(key), self.device, declared_bytes) if self.uuids else 0

    def learn(self, key: SetupKey, peak_bytes: int) -> None:
        """An instance took so much, at most, and has worked with it."""
        if peak_bytes:
            self._peaks.learn(plain_key(key), self.device, peak_bytes)

    def learn_more(self, key: SetupKey, peak_bytes: int) -> None:
        """An instance takes so much at least; how much a run takes is not known yet."""
        self._peaks.at_least(plain_key(key), self.device, peak_bytes)

    def ran_out(self, key: SetupKey) -> int:
        """Memory ran out for an instance: the next one gets all that there is. What it is counted with."""
        self._peaks.infer(plain_key(key), self.device, self.total_bytes)
        return self.total_bytes

    async def read(self) -> None:
        """Have the devices read now."""
        if self.uuids:
            await self._sensors.sample()

    @property
    def unreadable(self) -> str:
        """Which devices the last reading says nothing of, and why: its numbers lack them. Empty = all were read."""
        return ", ".join(_name(gpu) for gpu in self._sensors.lost(self.uuids))

    def used_bytes(self) -> int:
        """In use on the worker's devices, by anybody; too little while one is `unreadable`."""
        return self._sensors.used_bytes(self.uuids)

    def bytes_of(self, pgid: int) -> int | None:
        """What a process and all below it have now; None = NVML does not tell, as inside most containers."""
        found = self._sensors.memory_of_tree(pgid)
        return found if found or self._sensors.listed_bytes(self.uuids) else None

    def note(self, own_bytes: int, *, calm: bool) -> bool:
        """Take over the last reading.

        Args:
            own_bytes: what the instances account for.
            calm: none of them is being loaded or unloaded.

        Returns:
            Whether what `state` says has changed.
        """
        if not self.uuids:
            return False
        lost = self._sensors.lost(self.uuids)
        self.gone = next((_name(gpu) for gpu in lost if is_gone(gpu)), "")
        if not lost:
            self.other_bytes = max(0, self.used_bytes() - own_bytes)
            if self._held and self._is_over(own_bytes):
                self._held = ""
            if calm and not self._held:
                self._calm_bytes = self._nameless_bytes(own_bytes)
        told = self._state.other_bytes
        moved = calm and not lost and abs(self.other_bytes - told) > MEMORY_SLACK_BYTES
        trouble = self.unreadable or self._held
        return self._tell(self.other_bytes if moved else told, trouble)

    async def memory_back(self, pgid: int, app: str, own_bytes: Callable[[], int]) -> None:
        """Wait until the memory of a process that has ended is back; say so when it is not."""
        target = self._calm_bytes + MEMORY_SLACK_BYTES

        def settled() -> bool:
            gone = not self.unreadable and not self._sensors.memory_of_tree(pgid)
            return gone and self._nameless_bytes(own_bytes()) <= target

        if await self._sensors.settle(settled):
            return
        held = None if self.unreadable else self.used_bytes() - own_bytes() - self._calm_bytes
        if not self._held:
            self._held = _held_text(held, app)
            self._held_mono = time.monotonic()
        _log.warning(Event.GPU_MEMORY_HELD, worker=self._worker.id, app=app, held_bytes=held)

    async def kept(self, pgid: int, had_bytes: int, used_before: int, own_bytes: Callable[[], int]) -> int:
        """What a living process that has left the devices still has there, once that has come to rest.

        All that it had, while a device cannot be read: nothing says that it freed any of it.

        Args:
            pgid: the process' group.
            had_bytes: what it had before.
            used_before: in use on the devices then, by anybody; for a driver that names no processes.
            own_bytes: what the other instances account for.
        """
        if not self.uuids:
            return 0
        known, since = -1, 0.0

        def left() -> int:
            """Of the process, or in use and nobody's: memory may be freed after its owner has gone from the list."""
            if self.unreadable:
                return had_bytes
            listed = self.bytes_of(pgid)
            if listed is None:
                return max(0, had_bytes - (used_before - self.used_bytes()))
            late = self._nameless_bytes(own_bytes() + listed) - self._calm_bytes - MEMORY_SLACK_BYTES
            return listed + max(0, late)

        def settled() -> bool:
            nonlocal known, since
            now, found = time.monotonic(), left()
            if found != known:
                known, since = found, now
            return found <= MEMORY_SLACK_BYTES or (found < had_bytes / 2 and now - since > REST_S)

        await self._sensors.settle(settled)
        return left()

    @property
    def state(self) -> VramState:
        """For the report: it moves only by what is worth a decision."""
        return self._state

    def shares(self, held_bytes: int, own_bytes: int) -> str:
        """Who has the memory, for whom it ran out on."""
        others = max(0, own_bytes - held_bytes)
        return (
            f"it held {held_bytes / GIB:.1f} GiB of the {self.total_bytes / GIB:.1f} GiB of {self._worker.id} "
            f"({self.device}), other instances {others / GIB:.1f} GiB, other programs "
            f"{self.other_bytes / GIB:.1f} GiB"
        )

    def _nameless_bytes(self, own_bytes: int) -> int:
        """In use, by no instance, and by no process that NVML names: the driver's, or not freed yet."""
        return self.used_bytes() - max(self._sensors.listed_bytes(self.uuids), own_bytes)

    def _is_over(self, own_bytes: int) -> bool:
        if self._nameless_bytes(own_bytes) <= self._calm_bytes + MEMORY_SLACK_BYTES:
            return True
        return time.monotonic() - self._held_mono > HELD_MAX_S

    def _tell(self, other_bytes: int, trouble: str) -> bool:
        old = self._state
        if (other_bytes, trouble) == (old.other_bytes, old.trouble):
            return False
        since_ms = old.since_ms if old.trouble and trouble else int(time.time() * 1000) if trouble else 0
        self._state = VramState(other_bytes=other_bytes, trouble=trouble, since_ms=since_ms)
        if trouble and not old.trouble:
            _log.error(Event.WORKER_QUARANTINED, worker=self._worker.id, reason=trouble)
        elif old.trouble and not trouble:
            _log.info(Event.WORKER_RELEASED, worker=self._worker.id, reason="its GPUs work again")
        return True


def _held_text(held_bytes: int | None, app: str) -> str:
    """Args: held_bytes: None = no reading tells."""
    if held_bytes is None:
        return f"no reading has shown that GPU memory is free since {app} was unloaded"
    return f"{held_bytes / GIB:.1f} GiB of GPU memory are not free since {app} was unloaded"


def _name(gpu: GpuSample) -> str:
    return f"GPU {gpu.index} ({gpu.uuid}) is lost: {gpu.lost}"
