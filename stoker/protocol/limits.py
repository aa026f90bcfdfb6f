"""Rate limits: the library `limits` with its fixed window, on the same Redis."""

import time
from math import ceil

from limits.aio.storage import RedisStorage
from msgspec import Struct

from stoker.protocol.connection import Connection, unavailable
from stoker.protocol.keys import Keys

WINDOW_S = 60
_UNLIMITED = 1_000_000_000
_KNOWN_WINDOWS = 10_000


class RateState(Struct, frozen=True, kw_only=True):
    """What a key has left. `limit` 0 = unlimited; `reset_at` is in unix seconds."""

    limit: int
    remaining: int
    reset_at: int
    allowed: bool

    def retry_after_s(self, now_s: float) -> int:
        return max(1, self.reset_at - int(now_s))


class Limits:
    """Counts requests a minute. One round trip each: the end of a window is asked once and remembered."""

    def __init__(self, connection: Connection, keys: Keys, url: str) -> None:
        self._prefix = keys.rates
        self._pool = connection.redis.connection_pool
        self._url = "async+redis+" + url if url.startswith("unix:") else "async+" + url
        self._storage: RedisStorage | None = None
        self._ends: dict[str, float] = {}

    async def hit(self, key_id: str, kind: str, limit: int) -> RateState:
        """Count one request of `kind` by an API key; `limit` a minute, 0 = count but never refuse.

        Raises:
            StoreUnavailable: no answer.
        """
        if self._storage is None:
            self._storage = RedisStorage(
                self._url,
                implementation="redispy",
                key_prefix=self._prefix,
                connection_pool=self._pool,  # type: ignore[arg-type]  # the stub knows scalar options only
            )
        name = f"{key_id}:{kind}"
        try:
            used = await self._storage.incr(name, WINDOW_S)
            end = self._ends.get(name, 0)
            if used == 1 or end <= time.time():
                if len(self._ends) >= _KNOWN_WINDOWS:
                    self._ends.clear()
                end = self._ends[name] = await self._storage.get_expiry(name)
        except self._storage.base_exceptions as error:
            raise unavailable(error) from error
        top = limit or _UNLIMITED
        return RateState(limit=limit, remaining=max(0, top - used), reset_at=ceil(end), allowed=used <= top)
