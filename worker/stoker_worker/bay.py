"""What is parked on one worker: how an instance gets there, comes back, and ends. One owner: residency.

What goes wrong on the way ends the instance, with the reason in the log; the next task that wants it loads it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from stoker.core.events import Event
from stoker.core.messages import Resident, SetupKey, WorkerInfo
from stoker.core.states import ResidentState
from stoker.core.vram import GIB
from stoker.log import get_logger
from stoker_worker.ledger import MEMORY_SLACK_BYTES, Ledger
from stoker_worker.parking import Lot
from stoker_worker.parking_ways import NoHostMemory, ParkingFailed, Way
from stoker_worker.residence import Residence

PARK_TIMEOUT_S: Final = 60.0
"""80 GiB take 30 s at 3 GB/s, which is what memory that is not pinned is copied with."""
KEEPS_MAX: Final = 0.5
"""Share of its GPU memory that a parked instance may keep: else it makes too little room to be worth it."""
RETRY_S: Final = 600.0
"""A setup for which it failed is not parked for so long: each try costs the next app seconds."""
FAILED_MAX: Final = 1_000
"""Setups that are remembered for it; they come from callers without bound."""

_log = get_logger("parking")


class Bay:
    """The parked instances of a worker.

    `on_end` takes one that must go back among the residents, as one that stops.
    """

    def __init__(
        self,
        worker: WorkerInfo,
        lot: Lot,
        ledger: Ledger,
        *,
        own_bytes: Callable[[], int],
        on_end: Callable[[Residence, str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._lot = lot
        self._ledger = ledger
        self._own_bytes = own_bytes
        self._on_end = on_end
        self._on_change = on_change
        self._parked: dict[SetupKey, Residence] = {}
        self._moving: set[Residence] = set()
        self._failed: dict[SetupKey, float] = {}  # until when it is not tried again
        self._closed = False

    def __contains__(self, key: SetupKey) -> bool:
        return key in self._parked

    def __iter__(self) -> Iterator[Residence]:
        """Those that are parked, and those that are on their way."""
        yield from (*self._parked.values(), *self._moving)

    def held_bytes(self, but: SetupKey | None = None) -> int:
        """What the parked ones, but for one, still have on the devices: contexts of processes that freed their models."""
        return sum(residence.vram_bytes for key, residence in self._parked.items() if key != but)

    def takes(self, residence: Residence) -> bool:
        """Whether an instance would be parked. One of a session never is: it holds what belongs to its caller."""
        if residence.session or self._closed or self._way_of(residence) is None:
            return False
        return self._failed.get(residence.setup_key, 0.0) <= time.monotonic()

    async def park(self, residence: Residence) -> bool:
        """Park an instance that is stopping; False = it must be ended.

        1. room in the machine's memory  2. off the devices  3. wait until their memory is back, as measured.
        """
        instance, way = residence.instance, self._way_of(residence)
        if instance is None or way is None or not self.takes(residence):
            return False
        began = time.monotonic()
        had, used = residence.vram_bytes, self._ledger.used_bytes()
        key, parked = residence.setup_key, False
        self._moving.add(residence)
        try:
            async with asyncio.timeout(PARK_TIMEOUT_S):
                await self._lot.admit(
                    key, instance, uses=residence.uses, load_s=residence.load_s, vram_bytes=had
                )
                await way.park(instance)
            keeps = await self._ledger.kept(instance.pgid, had, used, self._own_bytes)
            _check_memory(keeps, had)
            async with asyncio.timeout(PARK_TIMEOUT_S):
                host_bytes = await self._lot.settle(instance, lambda reason: self.end(key, reason))
            parked = not self._closed
        except (ParkingFailed, TimeoutError) as error:
            if not isinstance(error, NoHostMemory):
                self._remember(key)
            self._not_parked(residence, str(error) or f"it took longer than {PARK_TIMEOUT_S:g} s")
        finally:
            self._moving.discard(residence)
            if not parked:
                self._lot.forget(instance)
        if not parked:
            return False
        residence.vram_bytes, residence.host_bytes = keeps, host_bytes
        residence.state = ResidentState.PARKED
        self._parked[key] = residence
        _log.info(
            Event.INSTANCE_PARKED,
            worker=self._worker.id,
            app=residence.app,
            setup_key=key,
            way=way.name,
            park_s=round(time.monotonic() - began, 3),
            host_bytes=host_bytes,
            vram_bytes=keeps,
        )
        return True

    def take(self, key: SetupKey) -> Residence | None:
        """The parked instance of a setup, which is loading from now on; None when there is none."""
        residence = self._parked.pop(key, None)
        if residence is None or residence.instance is None:
            return None
        self._lot.moves(residence.instance)
        residence.state, residence.parks = ResidentState.LOADING, False
        residence.gone = asyncio.Event()
        return residence

    async def bring_back(self, residence: Residence) -> None:
        """Put an instance that was taken back on its devices.

        Raises:
            ParkingFailed: it did not come back; the instance is of no use any more.
        """
        instance, way = residence.instance, self._way_of(residence)
        if instance is None or way is None:
            self._settled(residence)
            raise ParkingFailed("its process has ended")
        try:
            async with asyncio.timeout(PARK_TIMEOUT_S):
                await way.unpark(instance)
        except ParkingFailed:
            self._remember(residence.setup_key)
            raise
        except TimeoutError:
            self._remember(residence.setup_key)
            raise ParkingFailed(f"it did not come back within {PARK_TIMEOUT_S:g} s") from None
        finally:
            self._settled(residence)

    def end(self, key: SetupKey, reason: str) -> bool:
        """End a parked instance; False when it is not there."""
        residence = self._parked.pop(key, None)
        if residence is None:
            return False
        self._settled(residence)
        residence.gone = asyncio.Event()
        _log.info(
            Event.INSTANCE_EVICTED, worker=self._worker.id, app=residence.app, setup_key=key, reason=reason
        )
        self._on_end(residence, reason)
        return True

    def clear_device(self, but: SetupKey) -> bool:
        """End the least valuable of those that still hold GPU memory, but for one; False when there is none."""
        holding = [r for key, r in self._parked.items() if r.vram_bytes and key != but]
        if not holding:
            return False
        least = min(holding, key=lambda residence: residence.value)
        return self.end(least.setup_key, "what it still holds of the GPU memory is needed")

    def end_all(self, reason: str) -> None:
        """End what is parked."""
        for key in list(self._parked):
            self.end(key, reason)

    def close(self, reason: str) -> None:
        """End what is parked, and park nothing any more."""
        self._closed = True
        self.end_all(reason)

    def refresh(self) -> None:
        """Take over what NVML says of the parked ones."""
        for residence in self._parked.values():
            found = self._ledger.bytes_of(residence.instance.pgid) if residence.instance else None
            if found is not None and abs(found - residence.vram_bytes) > MEMORY_SLACK_BYTES:
                residence.vram_bytes = found
                self._on_change()

    def snapshot(self) -> tuple[Resident, ...]:
        """What is parked here, for a report."""
        return tuple(residence.reported(self._worker.id) for residence in self._parked.values())

    def _way_of(self, residence: Residence) -> Way | None:
        if residence.instance is None or residence.instance.exited.is_set():
            return None
        return self._lot.way_of(residence.instance, on_gpu=bool(self._ledger.uuids))

    def _settled(self, residence: Residence) -> None:
        """It is parked no longer."""
        if residence.instance is not None:
            self._lot.forget(residence.instance)
        residence.host_bytes = 0

    def _remember(self, key: SetupKey) -> None:
        """It failed for a setup; the oldest of very many is forgotten."""
        self._failed.pop(key, None)
        self._failed[key] = time.monotonic() + RETRY_S
        if len(self._failed) > FAILED_MAX:
            del self._failed[next(iter(self._failed))]

    def _not_parked(self, residence: Residence, reason: str) -> None:
        _log.warning(
            Event.INSTANCE_NOT_PARKED,
            worker=self._worker.id,
            app=residence.app,
            setup_key=residence.setup_key,
            reason=reason,
        )


def _check_memory(keeps: int, had: int) -> None:
    """Raise `ParkingFailed` when too little came back."""
    if keeps > max(had * KEEPS_MAX, MEMORY_SLACK_BYTES):
        raise ParkingFailed(f"{keeps / GIB:.1f} of its {had / GIB:.1f} GiB of GPU memory did not come back")
