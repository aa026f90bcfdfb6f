"""The increments of one attempt's output, between the app and the store. No I/O, no clock.

They are numbered here, and none is left out. The buffer is bounded all the same: what finds it full, because the
store does not keep up, is lost, and its number is missing; a reader who sees that turns to whole outputs.
"""

from dataclasses import dataclass
from typing import Final

BATCH_BYTES: Final = 64 * 1024
"""One write: keeps a script short."""
BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What may wait while Redis is away: as much as it would keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaWrite:
    """What one write carries: JSON values numbered from `first` on, and the output so far (or nothing).

    `last` is beyond the last of them when what followed was lost.
    """

    first: int
    last: int
    deltas: tuple[bytes, ...]
    partial: bytes = b""


class DeltaBuffer:
    """Increments that wait to be written, and the newest output that they add up to."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._number = 0
        self._told = 0  # the last number that was written
        self._partial = b""

    def __bool__(self) -> bool:
        return self._number > self._told

    @property
    def full(self) -> bool:
        """Whether a whole write waits."""
        return self._bytes >= BATCH_BYTES

    def add(self, delta: bytes) -> None:
        """Number the next increment (JSON) and keep it if there is room."""
        self._number += 1
        if self._bytes + len(delta) <= BUFFER_BYTES:
            self._waiting.append((self._number, delta))
            self._bytes += len(delta)

    def set_partial(self, output: bytes) -> None:
        """Replace the output so far (JSON); it goes out with the increments that wait."""
        self._partial = output

    def forget_partial(self) -> None:
        """Drop an output so far that a final one replaces."""
        self._partial = b""

    def take(self) -> DeltaWrite:
        """The next write: increments whose numbers follow each other."""
        first = self._waiting[0][0] if self._waiting else self._number + 1
        taken: list[bytes] = []
        size = 0
        for number, delta in self._waiting:
            if number != first + len(taken) or (taken and size + len(delta) > BATCH_BYTES):
                break
            taken.append(delta)
            size += len(delta)
        del self._waiting[: len(taken)]
        self._bytes -= size
        self._told = first + len(taken) - 1 if self._waiting else self._number
        write = DeltaWrite(first=first, last=self._told, deltas=tuple(taken), partial=self._partial)
        self._partial = b""
        return write
