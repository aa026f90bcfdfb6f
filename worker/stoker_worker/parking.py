"""The machine's side of parking: which instances may be parked, and how much of the machine's memory they get.

A parked instance is a living process without its GPU memory. `Lot` is one a daemon; what is parked on a worker is in its
`Bay` (`bay.py`). Deciding is pure: `decide_room`, `decide_shortage`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from stoker.core.events import Event
from stoker.core.messages import SetupKey
from stoker.core.vram import GIB
from stoker.log import get_logger
from stoker.parking_settings import ParkingFields
from stoker_worker.admission import value_of
from stoker_worker.host_memory import HostMemory
from stoker_worker.parking_ways import CudaDriver, Hooks, NoHostMemory, ParkingFailed, Way
from stoker_worker.ports import RunningInstance

HOST_SHARE: Final = 0.25
"""Of the machine's memory, for parked instances, where nothing is set."""

_log = get_logger("parking")


@dataclass(slots=True, eq=False, kw_only=True)
class Stay:
    """What an instance takes of the machine's memory, parked or about to be. `end` is None while it moves."""

    setup_key: SetupKey
    value: float
    host_bytes: int
    end: Callable[[str], object] | None = None


def decide_room(
    stays: Sequence[Stay], newcomer: Stay, moves_bytes: int, limit_bytes: int, memory: HostMemory
) -> tuple[Stay, ...] | str:
    """Which parked instances go for another one; a text says why it finds no room: those that stay are worth more.

    Args:
        stays: the others.
        newcomer: with all that it is expected to take.
        moves_bytes: what of that is not in the machine's memory yet.
        limit_bytes: what all may take together.
    """
    used = sum(stay.host_bytes for stay in stays) + newcomer.host_bytes
    free = memory.free_bytes - moves_bytes - memory.reserve_bytes
    gone: list[Stay] = []
    lesser = [stay for stay in stays if stay.end is not None and stay.value < newcomer.value]
    for stay in sorted(lesser, key=lambda each: each.value):
        if used <= limit_bytes and free >= 0:
            break
        gone.append(stay)
        used, free = used - stay.host_bytes, free + stay.host_bytes
    if used > limit_bytes:
        return (
            f"{newcomer.host_bytes / GIB:.1f} GiB of the machine's memory are needed, and parked instances worth more "
            f"leave {max(0, limit_bytes - used + newcomer.host_bytes) / GIB:.1f} of {limit_bytes / GIB:.1f} GiB"
        )
    if free < 0:
        return (
            f"the machine is short of memory: {memory.free_bytes / GIB:.1f} of {memory.total_bytes / GIB:.1f} GiB are "
            f"free, and a tenth must stay so when {moves_bytes / GIB:.1f} GiB more are taken"
        )
    return tuple(gone)


def decide_shortage(stays: Sequence[Stay], limit_bytes: int, memory: HostMemory) -> tuple[Stay, ...]:
    """Which parked instances go, the least valuable first, when the machine runs short of memory or they exceed the limit."""
    over = sum(stay.host_bytes for stay in stays) - limit_bytes
    short = max(over, memory.reserve_bytes - memory.free_bytes)
    gone: list[Stay] = []
    for stay in sorted((each for each in stays if each.end is not None), key=lambda each: each.value):
        if short <= 0:
            break
        gone.append(stay)
        short -= stay.host_bytes
    return tuple(gone)


class Lot:
    """What is parked on this machine, and what more may be. One owner a daemon.

    1. `start`  2. `admit`, `settle`, and `forget` for each instance, `check` with each reading of the machine.
    """

    def __init__(
        self,
        settings: ParkingFields | None = None,
        memory: Callable[[], HostMemory] = HostMemory.now,
        host_bytes: Callable[[int], int] | None = None,
    ) -> None:
        settings = settings or ParkingFields()
        self._mode = settings.parking
        self._max_bytes = settings.parking_max_bytes
        self._memory = memory
        self._host_bytes = host_bytes or host_bytes_of
        self._stays: dict[int, Stay] = {}  # by the process
        self._clock = 0.0
        self.hooks: Way = Hooks()
        self.driver: Way | None = None

    async def start(self) -> None:
        """Find out whether the CUDA driver can do it, if it is wanted; what it cannot is logged once."""
        if self._mode != "auto":
            return
        driver = CudaDriver()
        try:
            await driver.probe()
        except ParkingFailed as error:
            _log.warning(Event.PARKING_UNAVAILABLE, reason=str(error))
        else:
            self.driver = driver

    def way_of(self, instance: RunningInstance, *, on_gpu: bool) -> Way | None:
        """How an instance would be parked; None = not at all."""
        if self._mode == "off":
            return None
        if instance.parks:
            return self.hooks
        return self.driver if on_gpu else None

    async def admit(
        self, key: SetupKey, instance: RunningInstance, *, uses: int, load_s: float, vram_bytes: int
    ) -> None:
        """Find room for an instance that is about to be parked, and count it.

        Raises:
            NoHostMemory: there is none; says why.
        """
        has = await asyncio.to_thread(self._host_bytes, instance.pid)
        memory = self._memory()
        stay = Stay(setup_key=key, value=0.0, host_bytes=has + vram_bytes)
        stay.value = value_of(self._clock, uses, load_s, stay.host_bytes)
        found = decide_room(list(self._stays.values()), stay, vram_bytes, self._limit_bytes(memory), memory)
        if isinstance(found, str):
            self._clock = max(self._clock, stay.value)  # what is worth more now is not so for ever
            raise NoHostMemory(found)
        self._end(found, "a more valuable instance is parked in its place")
        self._stays[instance.pid] = stay

    async def settle(self, instance: RunningInstance, end: Callable[[str], object]) -> int:
        """It is parked: count what it really takes; `end` is called when it must go. The bytes.

        Raises:
            ParkingFailed: its process has ended meanwhile.
        """
        has = await asyncio.to_thread(self._host_bytes, instance.pid)
        stay = self._stays.get(instance.pid)
        if stay is None or instance.exited.is_set():
            raise ParkingFailed("its process has ended")
        stay.host_bytes, stay.end = has, end
        return has

    def moves(self, instance: RunningInstance) -> None:
        """It is on its way back: nobody ends it now, and it counts until `forget`."""
        stay = self._stays.get(instance.pid)
        if stay is not None:
            stay.end = None

    def forget(self, instance: RunningInstance) -> None:
        """It is parked no longer, or never was. May be called twice."""
        self._stays.pop(instance.pid, None)

    def check(self) -> None:
        """Look at the machine's memory: where it runs short, the least valuable parked instance goes."""
        if not self._stays:
            return
        memory = self._memory()
        gone = decide_shortage(list(self._stays.values()), self._limit_bytes(memory), memory)
        self._end(gone, "the machine runs short of memory")

    def _limit_bytes(self, memory: HostMemory) -> int:
        return int(memory.total_bytes * HOST_SHARE) if self._max_bytes is None else self._max_bytes

    def _end(self, stays: Sequence[Stay], reason: str) -> None:
        for stay in stays:
            self._clock = max(self._clock, stay.value)
            if stay.end is not None:
                stay.end(reason)


def host_bytes_of(pid: int) -> int:
    """Memory of a process and all below it, as the sum of what each has resident: what they share counts more than once."""
    try:
        process = psutil.Process(pid)
        return sum(map(_resident_bytes, (process, *process.children(recursive=True))))
    except psutil.Error:
        return 0


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has ended
        return 0
