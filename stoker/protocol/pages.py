"""Pages of an index by time, the latest first; what shares a moment with the last one of a page is on the next."""

from typing import Final

from stoker.protocol.connection import Connection
from stoker.protocol.streams import pairs

_TIES: Final = 10_000
"""Members of one moment that a cursor can tell apart; with the moment in ms it stays within 18 digits."""


async def page_of(connection: Connection, index: str, cursor: str, limit: int) -> tuple[list[str], str]:
    """Members of a sorted set, and the cursor of the next page ('' at the end).

    Args:
        cursor: of the page before, in plain digits: its last moment, and how many of that moment were shown.
    """
    moment, shown = divmod(int(cursor), _TIES) if cursor else (0, 0)
    found = pairs(
        await connection.command(
            *("ZREVRANGEBYSCORE", index, moment if cursor else "+inf", "-inf"),
            *("WITHSCORES", "LIMIT", shown, limit + 1),
        )
    )
    kept = found[:limit]
    members = [member.decode() for member, _ in kept]
    if len(found) <= limit:
        return members, ""
    last = int(kept[-1][1])
    told = sum(int(score) == last for _, score in kept) + (shown if cursor and last == moment else 0)
    return members, str(last * _TIES + told)
