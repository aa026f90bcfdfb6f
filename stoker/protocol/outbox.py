"""What the jobs must look at: read by one consumer group, acknowledged once handed on.

Two kinds of entries: a task ended that something else waits for (written by `lua/lib/ending.lua`), and a document
was changed so that it goes on (`lua/put_document.lua`). An entry that a dead reader took is given to the next one
after `CLAIM_AFTER_MS`, or `CLAIM_EVERY_S` later. Engines may add entries, so one is a hint: who acts on it reads what is.
"""

import time
from collections.abc import Iterable
from math import inf
from typing import Final

import msgspec
from msgspec import Struct
from redis.exceptions import ResponseError

from stoker.core.errors import InvalidRequest
from stoker.core.events import Event
from stoker.core.ids import check_name
from stoker.core.messages import TaskId, Waiter
from stoker.core.states import TaskState
from stoker.log import get_logger
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import Entry, entries, stream

_log = get_logger("outbox")

_waiter = msgspec.json.Decoder(Waiter)
GROUP: Final = "relay"
CLAIM_AFTER_MS: Final = 60_000
CLAIM_EVERY_S: Final = 10.0
"""Between two looks at what dead readers left, when the last one found nothing: each is a round trip before the read."""
BATCH: Final = 100


class Ending(Struct, frozen=True, kw_only=True):
    """A task that ended, for those who asked to be told."""

    entry_id: str
    task_id: TaskId
    attempt: int
    state: TaskState
    notify: str  # the address that the caller named, or ''
    waiter: Waiter | None = None


class Nudge(Struct, frozen=True, kw_only=True):
    """A document that goes on."""

    entry_id: str
    kind: str
    id: str


Notice = Ending | Nudge


class Outbox:
    """The outbox of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._mono_claim = -inf
        """When to look again at what dead readers left."""

    async def open(self) -> None:
        """Make the consumer group; harmless when it is there.

        Raises:
            StoreUnavailable: no answer.
        """
        try:
            await self._connection.command("XGROUP", "CREATE", self._keys.outbox, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read(self, consumer: str, block_ms: int) -> list[Notice]:
        """Entries for this consumer: now and then what a dead one left, else new ones, waited for up to `block_ms`.

        Raises:
            StoreUnavailable: no answer.
        """
        if time.monotonic() >= self._mono_claim:
            claimed = await self._connection.command(
                "XAUTOCLAIM", self._keys.outbox, GROUP, consumer, CLAIM_AFTER_MS, "0-0", "COUNT", BATCH
            )
            if found := entries(claimed[1]):
                return await self._readable(found)
            self._mono_claim = time.monotonic() + CLAIM_EVERY_S
        found = await self._connection.read_stream(
            self._keys.outbox, ">", block_ms=block_ms, count=BATCH, group=(GROUP, consumer)
        )
        return await self._readable(found)

    async def left(self, consumer: str) -> list[Notice]:
        """What this consumer took and has not acknowledged: the connection broke between.

        Raises:
            StoreUnavailable: no answer.
        """
        found = await self._connection.command(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", BATCH, "STREAMS", self._keys.outbox, "0"
        )
        return await self._readable(stream(found))

    async def done(self, notices: Iterable[Notice]) -> None:
        """Acknowledge: they were handed on and need not be kept. Cost: one batch."""
        await self._remove(*(notice.entry_id for notice in notices))

    async def _readable(self, found: list[Entry]) -> list[Notice]:
        """What can be read. What nobody of ours wrote is removed: engines may add to the stream."""
        notices: list[Notice] = []
        for entry in found:
            try:
                notices.append(_nudge(entry) if b"document" in entry[1] else _ending(entry))
            except (ValueError, KeyError, InvalidRequest) as error:  # msgspec's errors are ValueErrors
                _log.warning(Event.OUTBOX_UNREADABLE, reason=type(error).__name__)
                await self._remove(entry[0].decode())
        return notices

    async def _remove(self, *entry_ids: str) -> None:
        acknowledged = self._connection.start("XACK", self._keys.outbox, GROUP, *entry_ids)
        removed = self._connection.start("XDEL", self._keys.outbox, *entry_ids)
        await acknowledged
        await removed


def _ending(entry: Entry) -> Ending:
    entry_id, fields = entry
    waiter = _waiter.decode(fields[b"waiter"]) if fields.get(b"waiter") else None
    if waiter is not None:
        check_name("kind", waiter.kind)
        check_name("document", waiter.id)
    return Ending(
        entry_id=entry_id.decode(),
        task_id=TaskId(check_name("task id", fields[b"task"].decode())),
        attempt=int(fields[b"attempt"]),
        state=TaskState(int(fields[b"state"])),
        notify=fields[b"notify"].decode(),
        waiter=waiter,
    )


def _nudge(entry: Entry) -> Nudge:
    entry_id, fields = entry
    kind, _, document_id = fields[b"document"].decode().partition(" ")
    return Nudge(
        entry_id=entry_id.decode(),
        kind=check_name("kind", kind),
        id=check_name("document", document_id),
    )
