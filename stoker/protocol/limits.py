"""Rate limits: fixed windows of a minute, counted in Redis, so that many gateways count as one."""

import time
from math import ceil

from msgspec import Struct

from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys

WINDOW_S = 60
_UNLIMITED = 1_000_000_000


class RateState(Struct, frozen=True, kw_only=True):
    """What a key has left. `limit` 0 = unlimited; `reset_at` is in unix seconds."""

    limit: int
    remaining: int
    reset_at: int
    allowed: bool

    def retry_after_s(self, now_s: float) -> int:
        return max(1, self.reset_at - int(now_s))


class Limits:
    """Counts requests a minute."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def hit(self, key_id: str, kind: str, limit: int) -> RateState:
        """Count one request of `kind` by an API key; `limit` a minute, 0 = count but never refuse.

        Raises:
            StoreUnavailable: no answer.

        Cost: a place in the next batch. Script: lua/hit.lua.
        """
        used, left_ms = await self._connection.script(
            "hit", [self._keys.rate(key_id, kind)], [WINDOW_S * 1000]
        )
        top = limit or _UNLIMITED
        return RateState(
            limit=limit,
            remaining=max(0, top - used),
            reset_at=ceil(time.time() + left_ms / 1000),
            allowed=used <= top,
        )
