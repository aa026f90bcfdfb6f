"""The memory of a simulated worker's machine: what made room on the device waits there, as a real worker keeps it."""

from dataclasses import dataclass, field

from stoker.core.vram import GIB


@dataclass(slots=True)
class _Kept:
    size: int
    value: float


@dataclass(slots=True, eq=False)
class HostMemory:
    """Parked instances, within a number of bytes: what is worth least for its memory goes first, and old worth ages.

    A worker weighs them alike (GreedyDual-Size-Frequency; `stoker_worker/parking.py`).
    """

    capacity: int = 0
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _uses: dict[str, int] = field(default_factory=dict)
    _clock: float = 0.0

    def used(self, setup: str) -> None:
        """A task ran on the instance of a setup."""
        self._uses[setup] = self._uses.get(setup, 0) + 1

    def put(self, setup: str, size: int, load_s: float) -> bool:
        """Park an instance that makes room; False when it is ended instead."""
        value = self._clock + self._uses.get(setup, 1) * load_s * GIB / max(size, GIB)
        lesser = sorted((kept.value, name) for name, kept in self._kept.items() if kept.value < value)
        gone: list[str] = []
        free = self.capacity - sum(kept.size for kept in self._kept.values())
        for _, name in lesser:
            if free >= size:
                break
            gone.append(name)
            free += self._kept[name].size
        if free < size:
            self._clock = max(self._clock, value)
            self._uses.pop(setup, None)
            return False
        for name in gone:
            self._clock = max(self._clock, self._kept.pop(name).value)
            self._uses.pop(name, None)
        self._kept[setup] = _Kept(size, value)
        return True

    def take(self, setup: str) -> bool:
        """Bring an instance back, if it is here."""
        return self._kept.pop(setup, None) is not None

    def setups(self) -> tuple[str, ...]:
        """What is parked."""
        return tuple(self._kept)
