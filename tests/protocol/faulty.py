"""A connection that behaves as a bad network does: repeats what it sent, or dies between two calls."""

from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from stoker.protocol import Store
from stoker.protocol.connection import Connection


class FaultyConnection(Connection):
    """`repeat`: every call is sent twice, as after a lost reply. `calls_left`: then the caller is cut off."""

    repeat = False
    calls_left: int | None = None

    async def _execute(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        if self.calls_left is not None:
            if self.calls_left <= 0:
                raise RedisConnectionError("cut off by the test")
            self.calls_left -= len(commands)
        results = await super()._execute(commands)
        if self.repeat:
            results = await super()._execute(commands)
        return results


def lose_replies(store: Store, monkeypatch: Any) -> None:
    """From now on the first reply to each batch is lost, and the batch sent again."""
    execute = store._connection._execute

    async def again(commands: list[tuple[Any, ...]]) -> list[Any]:
        await execute(commands)
        return await execute(commands)

    monkeypatch.setattr(store._connection, "_execute", again)


async def open_store(url: str, pool: str) -> tuple[Store, FaultyConnection]:
    """A store whose connection can be made to fail."""
    connection = FaultyConnection.open(url)
    store = Store(connection, pool, url)
    await store.ping()
    return store, connection
