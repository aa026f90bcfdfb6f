"""What Redis knows of the logs of tasks: the live tail, and which chunks of the complete log are stored where."""

import hashlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence

import msgspec
from msgspec import Struct

from stoker.core.errors import NotFound, ProtocolRefusal, Unauthorized
from stoker.core.logs import Chunk
from stoker.core.messages import EngineId, LogLine, TaskId
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import entries, mapping

LOG_TAIL_BYTES = 256 * 1024
"""What a task's live tail holds at most, as JSON."""
SCAN = 500

_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(Chunk)
_lines = msgspec.json.Decoder(list[LogLine])


class LogState(Struct, frozen=True, kw_only=True):
    """Where the log of a task is. `last`: number of the last line that attempt `attempt` told the tail."""

    chunks: dict[int, tuple[Chunk, ...]]  # attempt -> in the order of their lines
    tail: tuple[LogLine, ...]
    attempt: int = 0
    last: int = 0

    @property
    def attempts(self) -> list[int]:
        """The attempts that have a log, in order."""
        told = {self.attempt} if self.last else set()
        return sorted({*self.chunks, *(line.attempt for line in self.tail), *told})

    def end(self, attempt: int) -> int:
        """The number of the last line of an attempt that is known of."""
        stored = max((chunk.last for chunk in self.chunks.get(attempt, ())), default=0)
        told = max((line.number for line in self.tail if line.attempt == attempt), default=0)
        return max(stored, told, self.last if attempt == self.attempt else 0)


class Tail:
    """The live tail of one task, kept by a reader that looks again and again."""

    def __init__(self, *, keep_new: bool = False) -> None:
        self.cursor = ""
        """The id of the last event that was read."""
        self._added: list[LogLine] | None = [] if keep_new else None
        self._batches: deque[tuple[int, tuple[LogLine, ...]]] = deque()
        self._bytes = 0

    @property
    def lines(self) -> tuple[LogLine, ...]:
        return tuple(line for _, batch in self._batches for line in batch)

    def add(self, cursor: str, batches: Sequence[bytes]) -> None:
        """Take what came after `cursor`; the oldest lines go when it is more than a tail holds."""
        self.cursor = cursor
        for raw in batches:
            try:
                batch = tuple(_lines.decode(raw))
            except msgspec.MsgspecError:  # an engine may write the stream; nobody could read these lines
                continue
            self._batches.append((len(raw), batch))
            self._bytes += len(raw)
            if self._added is not None:
                self._added += batch
        while self._bytes > LOG_TAIL_BYTES:
            self._bytes -= self._batches.popleft()[0]

    def take_new(self) -> list[LogLine]:
        """What came since this was asked last; nothing without `keep_new`."""
        if not self._added:
            return []
        added, self._added = self._added, []
        return added


class TaskLogs:
    """The logs of the tasks of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def check(self, task_id: TaskId, attempt: int, token: str) -> EngineId:
        """The engine of an attempt whose secret is `token`, also of one that has ended or was taken back.

        Raises:
            NotFound: no such task.
            Unauthorized: it is not.
        """
        created, writer = await self._connection.command(
            "HMGET", self._keys.control(task_id), "created", f"writer:{attempt}"
        )
        if created is None:
            raise NotFound("Task not found")
        return engine_of(writer, token)

    async def keep(self, task_id: TaskId, attempt: int, token: str, chunk: Chunk) -> None:
        """Name a chunk that is stored now; a repeat changes nothing.

        Raises:
            NotFound: no such task.
            StaleAttempt: the token is not this attempt's.

        Script: lua/keep_log.lua.
        """
        keys = self._keys
        try:
            await self._connection.script(
                "keep_log",
                [keys.control(task_id), keys.task_logs(task_id), keys.logged],
                [task_id, attempt, token, chunk.first, _encode(chunk)],
            )
        except ProtocolRefusal as refusal:
            raise NotFound("Task not found") from refusal

    async def read(self, task_id: TaskId, tail: Tail | None = None) -> LogState:
        """Where a task's log is; with `tail` only what is new since is read of the live tail."""
        keys, connection = self._keys, self._connection
        tail = tail or Tail()
        start = f"({tail.cursor}" if tail.cursor else "-"
        known, stored, events = (
            connection.start("HMGET", keys.task(task_id), "log_attempt", "log_last"),
            connection.start("HGETALL", keys.task_logs(task_id)),
            connection.start("XRANGE", keys.task_events(task_id), start, "+"),
        )
        attempt, last = await known
        chunks: dict[int, list[Chunk]] = {}
        for name, raw in mapping(await stored).items():
            chunks.setdefault(int(name.partition(b":")[0]), []).append(_chunk.decode(raw))
        _take(tail, await events)
        return LogState(
            chunks={
                number: tuple(sorted(found, key=lambda chunk: chunk.first))
                for number, found in chunks.items()
            },
            tail=tail.lines,
            attempt=int(attempt or 0),
            last=int(last or 0),
        )

    async def read_tails(self, tails: Sequence[tuple[TaskId, Tail]]) -> None:
        """Bring live tails up to date. Cost: one batch, and only what is new is sent."""
        calls = [
            self._connection.start(
                "XRANGE", self._keys.task_events(task_id), f"({tail.cursor}" if tail.cursor else "-", "+"
            )
            for task_id, tail in tails
        ]
        for (_, tail), call in zip(tails, calls, strict=True):
            _take(tail, await call)

    async def chunks(self, task_id: TaskId) -> list[tuple[int, int]]:
        """(attempt, first line) of every stored chunk of a task."""
        names = await self._connection.command("HKEYS", self._keys.task_logs(task_id))
        pairs = (name.partition(b":") for name in names)
        return [(int(attempt), int(first)) for attempt, _, first in pairs]

    async def forget(self, task_id: TaskId) -> None:
        """Forget the chunks of a task that is gone; their bytes were removed before."""
        await self._connection.command("DEL", self._keys.task_logs(task_id))
        await self._connection.command("SREM", self._keys.logged, task_id)

    async def orphans(self) -> AsyncIterator[TaskId]:
        """Tasks that are gone and have chunks still."""
        cursor = b"0"
        while True:
            cursor, members = await self._connection.command(
                "SSCAN", self._keys.logged, cursor, "COUNT", SCAN
            )
            ids = [TaskId(member.decode()) for member in members]
            calls = [self._connection.start("EXISTS", self._keys.task(task_id)) for task_id in ids]
            for task_id, call in zip(ids, calls, strict=True):
                if not await call:
                    yield task_id
            if int(cursor) == 0:
                return


def engine_of(writer: bytes | None, token: str) -> EngineId:
    """The engine that an attempt was given to, as the scheduler noted it, when `token` is that attempt's.

    Raises:
        Unauthorized: it is another one's.
    """
    digest, _, engine_id = (writer or b"").decode().partition(" ")
    if not secrets.compare_digest(digest, hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()):
        raise Unauthorized("This attempt does not own the task")
    return EngineId(engine_id)


def _take(tail: Tail, reply: object) -> None:
    found = entries(reply)
    cursor = found[-1][0].decode() if found else tail.cursor
    tail.add(cursor, [fields[b"l"] for _, fields in found if b"l" in fields])
