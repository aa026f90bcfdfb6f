"""A connection that behaves as a bad network does: repeats what it sent, or dies between two calls."""

from collections.abc import Collection, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from stoker.protocol import Store
from stoker.protocol.connection import Connection
from stoker.protocol.line import Command


class FaultyConnection(Connection):
    """`repeat`: every call is sent twice, as after a lost reply. `calls_left`: then the caller is cut off."""

    repeat = False
    calls_left: int | None = None

    async def _execute(self, commands: list[Command], once: Collection[int]) -> list[Any]:
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise RedisConnectionError("cut off by the test")
            self.calls_left -= len(commands)
        results = await super()._execute(commands, once)
        if self.repeat:
            results = await super()._execute(commands, once)
        return results


def lose_replies(store: Store, monkeypatch: Any) -> None:
    """From now on the line breaks behind each batch, before its replies come; what is sent again is answered."""
    line = store._connection._line
    own = line.exchange
    broke = False

    async def exchange(commands: Sequence[Command]) -> list[Any]:
        nonlocal broke
        replies: list[Any] = await own(commands)
        broke = not broke
        if broke:
            raise RedisConnectionError("the test broke the line")
        return replies

    monkeypatch.setattr(line, "exchange", exchange)


async def open_store(url: str, pool: str) -> tuple[Store, FaultyConnection]:
    """A store whose connection can be made to fail."""
    connection = FaultyConnection.open(url)
    store = Store(connection, pool, url)
    await store.ping()
    return store, connection
