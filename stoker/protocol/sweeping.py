"""Indexes whose members' own keys expire by themselves."""

from collections.abc import Callable

from stoker.protocol.connection import Connection


async def sweep(connection: Connection, index: str, key_of: Callable[[str], str], limit: int) -> int:
    """Take the members out of an index that have no key any more, of the `limit` first ones; how many were taken.

    Cost: two round trips, and one more when there are some.
    """
    ids = [member.decode() for member in await connection.command("ZRANGE", index, 0, limit - 1)]
    calls = [connection.start("EXISTS", key_of(each)) for each in ids]
    gone = [each for each, call in zip(ids, calls, strict=True) if not await call]
    if gone:
        await connection.command("ZREM", index, *gone)
    return len(gone)
