"""The pub/sub channel on which scripts say that a task has a new event.

Only a hint: whoever listens reads the task again after every reconnect and every few seconds anyway.
"""

import asyncio
import contextlib
from typing import Any, Final, Self

from msgspec import Struct
from redis.exceptions import RedisError

from stoker.core.errors import StoreUnavailable
from stoker.core.messages import TaskId
from stoker.protocol.connection import CALL_TIMEOUT_S, Connection, unavailable
from stoker.protocol.keys import Keys

PROOF_S: Final = 2.0
"""What a subscription may take to answer a PING. A connection that was cut without a word would stay quiet for ever."""
CLOSE_S: Final = 1.0
_BATCH: Final = 1000


class Announcement(Struct, frozen=True, kw_only=True):
    """A task has a new event; `ended` when it is its last."""

    task_id: TaskId
    event_id: str
    ended: bool


class Announcements:
    """One subscription. Raises StoreUnavailable when the server is away; open a new one then."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._channel = keys.channel
        self._pubsub: Any = connection.redis.pubsub()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._pubsub.subscribe(self._channel)
                # The confirmation: nothing announced after this line is missed.
                while (await self._arrived(CALL_TIMEOUT_S))["type"] != "subscribe":
                    pass
        except (RedisError, OSError, TimeoutError) as error:
            await self._close()
            raise unavailable(error) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        """Let go of the connection, also of one that cannot even be closed any more."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._pubsub.aclose()

    async def next(self, timeout_s: float) -> list[Announcement]:
        """What was announced; waits up to `timeout_s` for the first, then takes all.

        Whenever it returns, the server was heard: a quiet subscription is asked whether it still lives.

        Raises:
            StoreUnavailable: the connection broke, or said nothing for `timeout_s` and `PROOF_S`.
        """
        found: list[Announcement] = []
        try:
            async with asyncio.timeout(
                timeout_s + PROOF_S
            ):  # the client may reconnect within, which it does not bound
                message = await self._pubsub.get_message(timeout=timeout_s)
                if message is None:
                    await self._pubsub.ping()
                    message = await self._arrived(PROOF_S)
                while message is not None and len(found) < _BATCH:
                    if message["type"] == "message":
                        task_id, event_id, *ended = message["data"].decode().split(" ")
                        found.append(
                            Announcement(task_id=TaskId(task_id), event_id=event_id, ended=bool(ended))
                        )
                    message = await self._pubsub.get_message(timeout=0)
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(error) from error
        return found

    async def _arrived(self, timeout_s: float) -> dict[str, Any]:
        """The next thing that the server says, whatever it is."""
        message: dict[str, Any] | None = await self._pubsub.get_message(timeout=timeout_s)
        if message is None:
            raise StoreUnavailable(
                "Redis does not answer (the subscription is silent). Try again in a moment."
            )
        return message
