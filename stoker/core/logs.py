"""The complete log of an attempt as a row of blocks, and how its parts become one log again. Pure.

A block is one line of ASCII, `<first> <count> <at_ms> <type> <bytes>`, and then `count` lines of UTF-8, each
ended by a line feed. Lines have their numbers from 1; blocks lie end to end. A gap is a block of type `-`: lines
that were written and not kept; `bytes` tells how much they were, and nothing follows. So what is kept and what
was dropped is always all that was written.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from stoker.core.errors import InvalidRequest
from stoker.core.messages import LogLine, LogType

CHUNK_BYTES: Final = 1024 * 1024
"""Blocks of one chunk, about: small beside memory, large beside the cost of a request."""
CHUNK_LIMIT_BYTES: Final = 4 * CHUNK_BYTES
"""More than this no chunk unpacks to: a block comes from one read of a pipe, or is one long line."""

_TYPES: Final = {str(kind.number).encode(): kind for kind in LogType}
_GAP: Final = b"-"
HEADER_BYTES: Final = 100
"""Longer than any header: five numbers of at most 19 digits."""
_TAIL_GAP: Final = re.compile(r"\.\.\. \d+ lines are missing here: ")


class BadChunk(InvalidRequest):
    """The chunk of a log is damaged."""


class Block(Struct, frozen=True, kw_only=True):
    """Lines that came at the same moment. `data` is empty and `type` None for a gap."""

    first: int
    count: int
    at_ms: int
    type: LogType | None
    size: int
    data: bytes = b""

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Chunk(Struct, frozen=True, kw_only=True, array_like=True):
    """What is known of a stored piece of an attempt's log. `dropped`: how many of its lines are gaps."""

    first: int
    last: int
    dropped: int = 0
    size: int = 0


def encode_lines(first: int, kind: LogType, text: str, at_ms: int) -> bytes:
    """A block of the lines of `text`, which are divided by line feeds."""
    data = text.encode(errors="replace")
    count = data.count(b"\n") + 1
    return b"%d %d %d %d %d\n%b\n" % (first, count, at_ms, kind.number, len(data) + 1, data)


def encode_gap(first: int, count: int, size: int, at_ms: int) -> bytes:
    """A block that stands for lines that were not kept: `count` lines of `size` bytes together."""
    return b"%d %d %d - %d\n" % (first, count, at_ms, size)


def blocks(data: bytes) -> Iterator[Block]:
    """The blocks of a chunk.

    Raises:
        BadChunk: it ends within a block, or is none.
    """
    at = 0
    while at < len(data):
        block, at = _next_block(data, at)
        yield block


def whole_bytes(data: bytes) -> int:
    """How many bytes at the start of `data` are whole blocks: the rest is of a write that broke off."""
    at = 0
    while at < len(data):
        try:
            _, at = _next_block(data, at)
        except BadChunk:
            break
    return at


def check_chunk(data: bytes, first: int) -> Chunk:
    """What a chunk holds.

    Raises:
        BadChunk: its blocks do not lie end to end from line `first` on, or it is empty.
    """
    number, dropped = first, 0
    for block in blocks(data):
        if block.first != number or block.count < 1:
            raise BadChunk(f"The chunk has line {block.first} where line {number} was expected.")
        if block.type is None:
            dropped += block.count
        elif block.data.count(b"\n") != block.count or not block.data.endswith(b"\n"):
            raise BadChunk(f"The block at line {block.first} does not have {block.count} lines.")
        number = block.last + 1
    if number == first:
        raise BadChunk("The chunk is empty.")
    return Chunk(first=first, last=number - 1, dropped=dropped, size=len(data))


def tail_gap_text(count: int) -> str:
    """What stands in the live tail for lines that came faster than it takes them."""
    return f"... {count} lines are missing here: the log came faster than it could be stored ..."


def is_tail_gap(line: LogLine) -> bool:
    """Whether a line of the live tail stands for missing ones."""
    return _TAIL_GAP.match(line.text) is not None


class Joiner:
    """Puts the parts of one attempt's log together, by number: each line once, and a line for each hole.

    `pos` is the number of the last line that is out. Give it parts in ascending order; what is out already is
    passed over. Lines that are known to be dropped and lines that are not there (yet) are told apart.
    """

    def __init__(self, attempt: int, pos: int = 0) -> None:
        self.pos = pos
        self._attempt = attempt
        self._gap_lines = 0
        self._gap_bytes = 0

    @property
    def seen(self) -> int:
        """The line up to which nothing is missing: all are out, or known to be dropped."""
        return self.pos + self._gap_lines

    def hole_before(self, number: int) -> bool:
        """Whether lines before `number` are neither out nor known to be dropped."""
        return number > self.seen + 1

    def chunk(self, parts: Iterable[Block]) -> Iterator[LogLine]:
        """The lines of a stored chunk."""
        for block in parts:
            if block.last <= self.seen:
                continue
            if block.type is None:
                self._add_gap(block)
                continue
            texts = block.data.decode(errors="replace").split("\n")[:-1]
            skip = max(0, self.pos + 1 - block.first)
            yield from self._hole(block.first + skip, block.at_ms)
            for number, text in enumerate(texts[skip:], block.first + skip):
                yield self._line(number, block.at_ms, block.type, text)
            self.pos = block.last

    def tail(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Lines of the live tail; its own marks of gaps are left out, the holes show by themselves.

        What was dropped from the complete log stays dropped, also where the tail still has it: one account.
        """
        for line in lines:
            if line.number > self.seen and not is_tail_gap(line):
                yield from self._hole(line.number, line.at_ms)
                yield line
                self.pos = line.number

    def end(self, last: int, at_ms: int) -> Iterator[LogLine]:
        """What is missing at the end: the log is known to go to line `last`."""
        yield from self._hole(max(last, self.seen) + 1, at_ms)

    def _add_gap(self, block: Block) -> None:
        new = block.last - self.seen
        if self.hole_before(block.first):  # a hole before the gap: the two are told as one
            return
        self._gap_lines += new
        self._gap_bytes += block.size * new // block.count

    def _hole(self, number: int, at_ms: int) -> Iterator[LogLine]:
        """The line that stands for those between `pos` and `number`."""
        missing = number - 1 - self.pos
        if missing > 0:
            if missing == self._gap_lines:
                text = (
                    f"... {missing} lines ({self._gap_bytes} bytes) were dropped here: the log is longer than "
                    "the worker keeps (STOKER_LOG_MAX_BYTES) ..."
                )
            else:
                text = f"... {missing} lines are missing here: they did not reach the store ..."
            self.pos = number - 1
            yield self._line(self.pos, at_ms, LogType.TASK, text)
        self._gap_lines = self._gap_bytes = 0

    def _line(self, number: int, at_ms: int, kind: LogType, text: str) -> LogLine:
        return LogLine(number=number, at_ms=at_ms, type=kind, text=text, attempt=self._attempt)


def _next_block(data: bytes, at: int) -> tuple[Block, int]:
    """The block at `at`, and where the next one begins."""
    end = data.find(b"\n", at, at + HEADER_BYTES)
    fields = data[at:end].split(b" ") if end >= 0 else []
    if len(fields) != 5 or not all(field.isdigit() for field in (*fields[:3], fields[4])):
        raise BadChunk("The chunk of a log is damaged: there is no block where one should begin.")
    first, count, at_ms, size = int(fields[0]), int(fields[1]), int(fields[2]), int(fields[4])
    kind = _TYPES.get(fields[3])
    if kind is None and fields[3] != _GAP:
        raise BadChunk(f"The chunk of a log is damaged: {fields[3]!r} is no type of a line.")
    start = end + 1
    stop = start if kind is None else start + size
    if stop > len(data):
        raise BadChunk("The chunk of a log is damaged: it ends within a block.")
    block = Block(first=first, count=count, at_ms=at_ms, type=kind, size=size, data=data[start:stop])
    return block, stop
