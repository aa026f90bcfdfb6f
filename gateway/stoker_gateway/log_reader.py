"""The log of a task as one row of lines: stored chunks and the live tail, joined by number, attempt by attempt.

A reader holds one chunk at a time. Chunks are written by workers, so what they unpack to is bounded.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final

from msgspec import Struct

from stoker.core.errors import NotFound
from stoker.core.logs import CHUNK_LIMIT_BYTES, BadChunk, Block, Chunk, Joiner, blocks
from stoker.core.messages import LogLine, LogType, TaskId
from stoker.files import FileStore
from stoker.files.logs import log_key
from stoker.protocol import Store
from stoker.protocol.task_logs import LogState, Tail
from stoker_gateway.clock import now_ms

_GZIP: Final = zlib.MAX_WBITS | 16


class Position(Struct, frozen=True, order=True):
    """A place in a log: behind line `number` of an attempt."""

    attempt: int = 0
    number: int = 0


class Wanted(Struct, frozen=True, kw_only=True):
    """Which lines. `attempt` 0: of all; `types` empty: of all."""

    attempt: int = 0
    types: frozenset[LogType] = frozenset()

    def of_attempt(self, attempt: int) -> bool:
        return self.attempt in {0, attempt}

    def of_type(self, line: LogLine) -> bool:
        """Marks of gaps pass: they may stand for lines of any type."""
        return not self.types or line.type in self.types or line.text.startswith("... ")


EVERYTHING: Final = Wanted()


class LogReader:
    """Reads the log of one task, from its start or on from a position."""

    def __init__(self, store: Store, files: FileStore, task_id: TaskId, wanted: Wanted = EVERYTHING) -> None:
        self.position = Position()
        """Behind the last line that came out."""
        self._store = store
        self._files = files
        self._task_id = task_id
        self._wanted = wanted
        self._tail = Tail()
        self._joiner: Joiner | None = None

    async def refresh(self) -> LogState:
        """Look what is there now."""
        return await self._store.logs.read(self._task_id, self._tail)

    async def lines(self, state: LogState, *, patient: bool = False) -> AsyncIterator[list[LogLine]]:
        """What comes after `position`, a chunk or a tail at a time.

        Args:
            patient: stop before lines that are not there yet; they may come. Else a line stands for them.
        """
        for attempt in state.attempts:
            if attempt < self.position.attempt or not self._wanted.of_attempt(attempt):
                continue
            joiner = self._joiner_of(attempt)
            async for batch in self._of_attempt(joiner, attempt, state, patient=patient):
                yield self._filtered(batch)
            if patient and state.end(attempt) > joiner.seen:
                return

    def complete(self, state: LogState) -> bool:
        """Whether everything that is known of was read."""
        wanted = [attempt for attempt in state.attempts if self._wanted.of_attempt(attempt)]
        if not wanted or self.position.attempt > wanted[-1]:
            return True
        seen = self._joiner.seen if self._joiner and self.position.attempt == wanted[-1] else 0
        return seen >= state.end(wanted[-1])

    def start_at(self, position: Position) -> None:
        """Go on behind a line."""
        self.position = position
        self._joiner = None

    def _joiner_of(self, attempt: int) -> Joiner:
        if self._joiner is None or self.position.attempt != attempt:
            number = self.position.number if self.position.attempt == attempt else 0
            self._joiner = Joiner(attempt, number)
            self.position = Position(attempt, number)
        return self._joiner

    async def _of_attempt(
        self, joiner: Joiner, attempt: int, state: LogState, *, patient: bool
    ) -> AsyncIterator[list[LogLine]]:
        tail = [line for line in state.tail if line.attempt == attempt]
        for chunk in state.chunks.get(attempt, ()):
            if chunk.last <= joiner.seen:
                continue
            yield list(joiner.tail(_run(joiner, tail, chunk.first, patient=patient)))
            if patient and joiner.hole_before(chunk.first):
                return
            parts = await self._load(attempt, chunk)
            yield await asyncio.to_thread(list, joiner.chunk(parts))
        end = state.end(attempt)
        yield list(joiner.tail(_run(joiner, tail, end + 1, patient=patient)))
        if not patient:
            yield list(joiner.end(end, tail[-1].at_ms if tail else now_ms()))

    async def _load(self, attempt: int, chunk: Chunk) -> list[Block]:
        """The blocks of a stored chunk; none when it is gone or damaged: its lines count as missing then."""
        key = log_key(self._task_id, attempt, chunk.first)
        try:
            packed = b"".join([part async for part in self._files.get(key)])
            return await asyncio.to_thread(lambda: list(blocks(unpack(packed))))
        except (NotFound, BadChunk):
            return []

    def _filtered(self, batch: list[LogLine]) -> list[LogLine]:
        if batch:
            self.position = Position(batch[-1].attempt, batch[-1].number)
        return [line for line in batch if self._wanted.of_type(line)]


def unpack(packed: bytes) -> bytes:
    """A chunk as it was before it was compressed.

    Raises:
        BadChunk: it is no gzip, is cut off, or unpacks to more than a chunk may.
    """
    unpacker = zlib.decompressobj(_GZIP)
    try:
        data = unpacker.decompress(packed, CHUNK_LIMIT_BYTES)
    except zlib.error as error:
        raise BadChunk(f"The chunk is not compressed with gzip ({error}).") from error
    if not unpacker.eof:
        raise BadChunk(f"The chunk is cut off, or unpacks to more than {CHUNK_LIMIT_BYTES} bytes.")
    return data


def _run(joiner: Joiner, tail: Iterable[LogLine], before: int, *, patient: bool) -> Iterator[LogLine]:
    """Lines of the tail up to line `before`; a patient reader takes them only as far as none is missing."""
    for line in tail:
        if line.number >= before:
            return
        if patient and joiner.hole_before(line.number):
            return
        yield line
