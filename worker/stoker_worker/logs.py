"""The live tail of one attempt's log, and its partial outputs, between the app and the store. No I/O, no clock.

The buffer is bounded: while the store does not keep up, further lines are dropped, counted, and a marker line says
how many are missing. The complete log is elsewhere (`attempt_log.py`); the numbers are the same. A partial output
replaces the one before it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stoker.core.logs import tail_gap_text
from stoker.core.messages import LogLine, LogType

BATCH_S: Final = 0.05
"""The longest that a line waits for company."""
FLOOD_S: Final = 0.2
"""Between two writes while lines are dropped anyway: nobody reads faster, and Redis has other work."""
BATCH_BYTES: Final = 64 * 1024
"""One write: keeps a script short, and a quarter of the tail that the store keeps."""
BUFFER_BYTES: Final = 256 * 1024
"""The store keeps a tail of this size for a task, so more would only be written to be cut."""
LINE_CHARS: Final = 8 * 1024
_LINE_OVERHEAD: Final = 40  # number, time, type and punctuation of an encoded line

OnLine = Callable[[LogType, str], None]
"""Takes what was printed or is to be told: its kind, and lines that line feeds divide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one write carries."""

    lines: tuple[LogLine, ...] = ()
    partial: bytes = b""
    dropped: int = 0


class LogBuffer:
    """Lines and the newest partial output that wait to be written."""

    def __init__(self, attempt: int = 1) -> None:
        self._attempt = attempt
        self._lines: deque[LogLine] = deque()
        self._bytes = 0
        self._number = 0
        self._missing = 0  # dropped since the last line that was kept
        self._counted = 0  # dropped, and not yet told to the store
        self._partial = b""
        self.whole = True
        """Whether every line got in as it was."""

    def __bool__(self) -> bool:
        return bool(self._lines or self._partial or self._missing)

    @property
    def pause_s(self) -> float:
        """How long the next write may wait for company."""
        return FLOOD_S if self._missing else BATCH_S

    def add(self, kind: LogType, text: str, at_ms: int) -> None:
        """Number lines, which line feeds divide, and keep them, or count them as dropped when the buffer is full."""
        texts = text.split("\n")
        for index, line in enumerate(texts):
            if self._bytes + min(len(line), LINE_CHARS) + _LINE_OVERHEAD > BUFFER_BYTES:
                left = len(texts) - index
                self._number += left
                self._missing += left
                self.whole = False
                return
            self._add(kind, line, at_ms)

    def _add(self, kind: LogType, text: str, at_ms: int) -> None:
        if self._missing:
            self._mark(self._number, kind, at_ms)
        self._number += 1
        if len(text) > LINE_CHARS:
            text = shortened(text, LINE_CHARS)
            self.whole = False
        self._keep(self._line(self._number, at_ms, kind, text))

    def set_partial(self, output: bytes) -> None:
        """Replace the partial output (JSON)."""
        self._partial = output

    def forget_partial(self) -> None:
        """Drop a partial output that a final one replaces."""
        self._partial = b""

    def take(self, at_ms: int) -> Batch:
        """The next write: lines up to `BATCH_BYTES`, with the partial output."""
        taken: list[LogLine] = []
        size = 0
        while self._lines and (not taken or size + _size(self._lines[0]) <= BATCH_BYTES):
            line = self._lines.popleft()
            size += _size(line)
            taken.append(line)
        self._bytes -= size
        if not self._lines and self._missing:
            self._mark(self._number, LogType.TASK, at_ms)
            line = self._lines.pop()
            self._bytes -= _size(line)
            taken.append(line)
        batch = Batch(lines=tuple(taken), partial=self._partial, dropped=self._counted)
        self._partial, self._counted = b"", 0
        return batch

    def _mark(self, number: int, kind: LogType, at_ms: int) -> None:
        """Put the gap into the log itself, under the number of the last line that is missing."""
        text = tail_gap_text(self._missing)
        self._counted += self._missing
        self._missing = 0
        self._keep(self._line(number, at_ms, kind, text))

    def _line(self, number: int, at_ms: int, kind: LogType, text: str) -> LogLine:
        return LogLine(number=number, at_ms=at_ms, type=kind, text=text, attempt=self._attempt)

    def _keep(self, line: LogLine) -> None:
        self._lines.append(line)
        self._bytes += _size(line)


def shortened(text: str, chars: int) -> str:
    """The beginning of a text that is too long, with a mark."""
    return text if len(text) <= chars else f"{text[:chars]} ... ({len(text) - chars} more characters)"


def _size(line: LogLine) -> int:
    return len(line.text) + _LINE_OVERHEAD
