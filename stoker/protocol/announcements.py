"""The pub/sub channel on which scripts say that a task has a new event, or that a document has changed.

Only a hint: whoever listens reads the task again after every reconnect and every few seconds anyway.
"""

import asyncio
import contextlib
from typing import Final, Self

from msgspec import Struct
from redis.exceptions import RedisError

from stoker.core.events import Event
from stoker.core.messages import TaskId
from stoker.log import get_logger
from stoker.protocol.connection import CALL_TIMEOUT_S, Connection, unavailable
from stoker.protocol.keys import Keys

PROOF_S: Final = 2.0
"""What a subscription may take to answer a PING. A connection that was cut without a word would stay quiet for ever."""
CLOSE_S: Final = 1.0

_log = get_logger("announcements")


class Announcement(Struct, frozen=True, kw_only=True):
    """A task has a new event; `ended` when it is its last. Or a document has changed: `kind:id` in place of a task."""

    task_id: TaskId
    event_id: str
    ended: bool

    @property
    def document(self) -> str:
        """`kind:id`, or '' for a task: ids hold no colon."""
        return self.task_id if ":" in self.task_id else ""


class Announcements:
    """One subscription. Raises StoreUnavailable when the server is away; open a new one then."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._channel = keys.channel
        self._line = connection.subscription()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._line.open(self._channel)
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
                await self._line.close()

    async def next(self, timeout_s: float) -> list[Announcement]:
        """What was announced; waits up to `timeout_s` for the first, then takes all.

        Whenever it returns, the server was heard: a quiet subscription is asked whether it still lives.

        Raises:
            StoreUnavailable: the connection broke, or said nothing for `timeout_s` and `PROOF_S`.
        """
        try:
            return await self._told(timeout_s)
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(error) from error

    async def _told(self, timeout_s: float) -> list[Announcement]:
        try:
            async with asyncio.timeout(timeout_s):
                texts = await self._line.take()
        except TimeoutError:
            async with asyncio.timeout(PROOF_S):
                await self._line.prove()
            return []
        return [said for text in texts if (said := _readable(text)) is not None]


def _readable(text: bytes) -> Announcement | None:
    """What is announced; None for what no script says: engines may publish too."""
    try:
        task_id, event_id, *ended = text.decode().split(" ")
    except ValueError as error:
        _log.warning(Event.ANNOUNCEMENT_UNREADABLE, reason=type(error).__name__)
        return None
    return Announcement(task_id=TaskId(task_id), event_id=event_id, ended=bool(ended))
