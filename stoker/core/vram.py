"""How much GPU memory an instance is counted with: what was measured, else what its app declares. No I/O, no clock.

Scheduler and worker use the same rules, so that what one places the other takes.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

GIB: Final = 1024**3
MARGIN: Final = 0.1
"""On top of what was not measured on this type of device: contexts, kernels and workspaces are in no declaration."""
DRIVER_BYTES: Final = GIB
DRIVER_SHARE: Final = 1 / 32
"""What driver, display and the like hold on devices that are called empty, the larger of the two: a model that declares
all that a device has still fits."""
WEIGHT: Final = 0.1
"""Share of a smaller measurement: one small run says little about what the next one takes."""
MAX_KEYS: Final = 20_000
"""Setups that are remembered, least lately learned first out: they come from callers without bound."""


class VramState(Struct, frozen=True, kw_only=True):
    """What a worker says of the memory of its GPUs, beside its residents.

    `other_bytes` are in use there, and not by its instances: other programs', or not freed yet. `trouble` says why
    it must get no tasks, since `since_ms`; empty = it may.
    """

    other_bytes: int = 0
    trouble: str = ""
    since_ms: int = 0


class Peaks:
    """The most that each setup was seen to take, by type of device.

    A larger measurement counts at once, a smaller one little by little. What was only inferred, when memory ran out,
    holds until something is measured.
    """

    def __init__(self) -> None:
        self._bytes: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._inferred: set[tuple[str, str]] = set()
        self._anywhere: OrderedDict[str, float] = OrderedDict()

    def learn(self, key: str, device: str, measured: int) -> None:
        """An instance took so much, at most, in its life so far."""
        place = (key, device)
        old = 0.0 if place in self._inferred else self._bytes.get(place, 0.0)
        self._inferred.discard(place)
        self._set(place, measured if measured >= old else old + WEIGHT * (measured - old))
        self._anywhere[key] = self._bytes[place]
        self._anywhere.move_to_end(key)
        if len(self._anywhere) > MAX_KEYS:
            self._anywhere.popitem(last=False)

    def at_least(self, key: str, device: str, measured: int) -> None:
        """An instance takes so much so far; that it takes less than others did says nothing yet."""
        if measured > self._bytes.get((key, device), 0.0):
            self.learn(key, device, measured)

    def infer(self, key: str, device: str, needed: int) -> None:
        """Memory ran out: at least so much is needed."""
        place = (key, device)
        if needed > self._bytes.get(place, 0.0):
            self._inferred.add(place)
            self._set(place, needed)

    def need(self, key: str, device: str, declared: int) -> int:
        """What a new instance is counted with. 0 = nothing is known, and nothing was declared."""
        found = self._bytes.get((key, device))
        if found is not None:
            return int(found)
        return int(self._anywhere.get(key, declared) * (1 + MARGIN))

    def _set(self, place: tuple[str, str], value: float) -> None:
        self._bytes[place] = value
        self._bytes.move_to_end(place)
        if len(self._bytes) > MAX_KEYS:
            gone, _ = self._bytes.popitem(last=False)
            self._inferred.discard(gone)


def device_type(names: list[str]) -> str:
    """The GPUs of a worker as one word for what is learned on them: ["L4", "L4"] -> "2 x L4"."""
    kinds = sorted(set(names))
    return " + ".join(name if (count := names.count(name)) == 1 else f"{count} x {name}" for name in kinds)


def wanted_bytes(need_bytes: int, total_bytes: int, other_bytes: int) -> int:
    """What must be free for an instance: what it needs, at most all that an empty device has."""
    held = other_bytes if other_bytes <= max(DRIVER_BYTES, total_bytes * DRIVER_SHARE) else 0
    return min(need_bytes, total_bytes - held)
