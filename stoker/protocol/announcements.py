"""The pub/sub channel on which scripts say that a task has a new event.

Only a hint: whoever listens reads the task again after every reconnect and every few seconds anyway.
"""

import asyncio
from typing import Any, Self

from redis.exceptions import RedisError

from stoker.core.messages import TaskId
from stoker.protocol.connection import Connection, unavailable
from stoker.protocol.keys import Keys

_BATCH = 1000


class Announcements:
    """One subscription. Raises StoreUnavailable when the server is away; open a new one then."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._channel = keys.channel
        self._pubsub: Any = connection.blocking.pubsub(ignore_subscribe_messages=True)

    async def __aenter__(self) -> Self:
        try:
            await self._pubsub.subscribe(self._channel)
            # The confirmation: nothing announced after this line is missed.
            await self._pubsub.get_message(ignore_subscribe_messages=False, timeout=5.0)
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pubsub.aclose()

    async def next(self, timeout_s: float) -> list[tuple[TaskId, str]]:
        """Task and event ids that were announced; waits up to `timeout_s` for the first, then takes all."""
        found: list[tuple[TaskId, str]] = []
        try:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=timeout_s)
            while message is not None and len(found) < _BATCH:
                task_id, _, stream_id = message["data"].decode().partition(" ")
                found.append((TaskId(task_id), stream_id))
                message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0)
        except asyncio.CancelledError:
            raise
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
        return found
