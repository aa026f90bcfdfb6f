"""The record of changes, in a stream of the control plane that no engine reads or writes.

A change that is one script is recorded by that script (`lua/lib/audit.lua`); `note` makes its arguments. Refused attempts
have a stream of their own, and are read with the changes.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.audit import KEPT, REFUSAL_S, REFUSALS_KEPT, Change, Recorded
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
        self._streams = (keys.audit, keys.audit_refused)

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

    async def refused(self, who: str, change: Change) -> bool:
        """Record an attempt that was refused, unless one of `who` was recorded within `REFUSAL_S`; whether it was.

        Raises:
            StoreUnavailable: no answer.

        Cost: one round trip. Script: lua/note_refusal.lua.
        """
        keys = [self._keys.audit_refused, self._keys.refused(who)]
        [recorded] = await self._connection.script(
            "note_refusal", keys, [_encode(change), REFUSALS_KEPT, REFUSAL_S * 1000]
        )
        return bool(recorded)

    async def count(self) -> int:
        """How many changes and refused attempts are kept."""
        counts = [self._connection.start("XLEN", key) for key in self._streams]
        return sum([int(await count) for count in counts])

    async def page(self, cursor: str, limit: int) -> tuple[Sequence[Recorded], str]:
        """Changes and refused attempts before `cursor`, the latest first, and the next page's cursor; '' = none.

        Raises:
            InvalidRequest: the cursor is none of ours.
        """
        if cursor and not _CURSOR.fullmatch(cursor):
            raise InvalidRequest(
                "Input validation failed: cursor: take it from next_cursor of the page before"
            )
        before = f"({cursor}" if cursor else "+"
        calls = [
            self._connection.start("XREVRANGE", key, before, "-", "COUNT", limit + 1) for key in self._streams
        ]
        found = [
            Recorded(
                id=entry_id.decode(),
                at_ms=int(entry_id.partition(b"-")[0]),
                change=_change.decode(fields[FIELD]),
            )
            for call in calls
            for entry_id, fields in entries(await call)
        ]
        found.sort(key=lambda recorded: _order(recorded.id), reverse=True)
        end = limit
        while end < len(found) and found[end].id == found[end - 1].id:
            end += 1  # one of each stream in the same moment: the cursor could not tell them apart
        return found[:end], found[end - 1].id if len(found) > end else ""


def _order(entry_id: str) -> tuple[int, int]:
    at_ms, _, number = entry_id.partition("-")
    return int(at_ms), int(number)
