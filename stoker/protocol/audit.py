"""The record of changes, in a stream of the control plane that no engine reads or writes.

A change that is one script is recorded by that script (`lua/lib/audit.lua`); `note` makes its arguments.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.audit import KEPT, Change, Recorded
from stoker.core.errors import InvalidRequest
from stoker.protocol.connection import Arg, Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import entries

FIELD: Final = b"change"
_CURSOR: Final = re.compile(r"\d{1,16}-\d{1,16}")
_encode = msgspec.json.Encoder().encode
_change = msgspec.json.Decoder(Change)


def note(change: Change | None) -> tuple[Arg, Arg]:
    """The last two arguments of a script that records what it changes; None = it is not recorded."""
    return ("" if change is None else _encode(change)), KEPT


class Audit:
    """The record of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def start(self, change: Change) -> asyncio.Future[bytes]:
        """Record a change in the same batch as the commands before it; await it later."""
        text, kept = note(change)
        return self._connection.start("XADD", self._keys.audit, "MAXLEN", "~", kept, "*", FIELD, text)

    async def add(self, change: Change) -> None:
        """Record a change that was made.

        Raises:
            StoreUnavailable: no answer.
        """
        await self.start(change)

    async def count(self) -> int:
        """How many changes are kept."""
        return int(await self._connection.command("XLEN", self._keys.audit))

    async def page(self, cursor: str, limit: int) -> tuple[Sequence[Recorded], str]:
        """Changes before `cursor`, the latest first, and the cursor of the next page; '' = there is none.

        Raises:
            InvalidRequest: the cursor is none of ours.
        """
        if cursor and not _CURSOR.fullmatch(cursor):
            raise InvalidRequest(
                "Input validation failed: cursor: take it from next_cursor of the page before"
            )
        before = f"({cursor}" if cursor else "+"
        raw = await self._connection.command("XREVRANGE", self._keys.audit, before, "-", "COUNT", limit + 1)
        found = [
            Recorded(
                id=entry_id.decode(),
                at_ms=int(entry_id.partition(b"-")[0]),
                change=_change.decode(fields[FIELD]),
            )
            for entry_id, fields in entries(raw)
        ]
        return found[:limit], found[limit - 1].id if len(found) > limit else ""
