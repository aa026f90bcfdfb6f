"""Indexes whose members' own keys expire by themselves."""

from collections.abc import Callable
from typing import Final

from stoker.protocol.connection import Connection

BATCH: Final = 1000


async def sweep(
    connection: Connection, index: str, key_of: Callable[[str], str], *, batch: int = BATCH
) -> int:
    """Take the members out of an index that have no key any more; how many were taken.

    All are looked at: the oldest may well live on, and those behind them be gone. Cost: O(n), in batches of two round
    trips.
    """
    kept = taken = 0
    while raw := await connection.command("ZRANGE", index, kept, kept + batch - 1):
        ids = [member.decode() for member in raw]
        calls = [connection.start("EXISTS", key_of(each)) for each in ids]
        gone = [each for each, call in zip(ids, calls, strict=True) if not await call]
        if gone:
            await connection.command("ZREM", index, *gone)
        taken += len(gone)
        kept += len(ids) - len(gone)
    return taken
