"""Pages of an index by time, the latest first; what shares a moment with the last one of a page is on the next."""

from typing import Final

from stoker.protocol.connection import Connection
from stoker.protocol.streams import pairs

_TIES: Final = 10_000
"""Members of one moment that a cursor can tell apart; with the moment in ms it stays within 18 digits."""


Place = tuple[int, str]
"""Where a member stands in an index by time: (its moment in ms, the member)."""


async def beyond(
    connection: Connection, index: str, place: Place | None, limit: int, *, newer: bool = False
) -> tuple[list[Place], bool]:
    """What a sorted set has beyond a place, nearest first; older members unless `newer`.

    Args:
        place: of a member, which may be gone meanwhile; None = the set's end.

    Returns:
        At most `limit` members, and whether more may follow.
    """
    start = await _start(connection, index, place, newer=newer) if place else 0
    verb = "ZRANGE" if newer else "ZREVRANGE"
    found = pairs(await connection.command(verb, index, start, start + limit - 1, "WITHSCORES"))
    return [(int(score), member.decode()) for member, score in found], len(found) == limit


async def _start(connection: Connection, index: str, place: Place, *, newer: bool) -> int:
    """Where the list goes on, counted from its old end (`newer`) or its new one."""
    at_ms, member = place
    rank = await connection.command("ZRANK" if newer else "ZREVRANK", index, member)
    if rank is not None:
        return int(rank) + 1
    # It is gone. Redis orders what is of one moment by the member, so the place is known all the same.
    span = ("-inf", f"({at_ms}") if newer else (f"({at_ms}", "+inf")
    passed = int(await connection.command("ZCOUNT", index, *span))
    raw = await connection.command("ZRANGEBYSCORE", index, at_ms, at_ms)
    same: list[str] = [one.decode() for one in raw]
    return passed + sum(one < member if newer else one > member for one in same)


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
