"""One connection to Redis that is kept: requests leave at once, replies come back in their order.

redis-py finds the server (`stoker/protocol/servers.py`), encrypts and logs in; then its transport is taken over. Its own way to a reply, through a
stream, a parser, retries and time limits, is some sixty calls of Python, and a warm task waits for nine replies.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, InvalidResponse, MovedError, ReadOnlyError

from stoker.protocol.servers import Servers

Command = tuple[Any, ...]
TOLD_LIMIT: Final = 10_000
"""Messages that may wait for the subscriber; then the server has to."""
_NOTHING: Final = object()


class Exchange(Protocol):
    """What a `Connection` needs of a line. No second exchange may begin while one is under way."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands, errors of single ones among them.

        Raises:
            DataError: a value that cannot be sent; nothing was.
            RedisConnectionError: no connection, or it broke, or the server still reads its file.
        """
        ...

    async def close(self) -> None:
        """Drop the connection, whatever it waits for; the next exchange opens another."""
        ...


class Line:
    """An `Exchange` over a socket."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._library: Any = None
        self._wire: _Wire | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        request = b"".join([_pack(command) for command in commands])
        try:
            if self._wire is None or self._wire.lost:
                self._wire = await self._connect()
            replies = await self._wire.ask(request, len(commands))
        except BaseException:  # cancelled too: the next exchange must not get the replies of this one
            await self.close()
            raise
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if errors:
            await self._heed(errors, whole=len(errors) == len(replies))
        return replies

    async def close(self) -> None:
        library, self._library = self._library, None
        if self._wire is not None:
            self._wire.transport.abort()
            self._wire = None
        if library is not None:
            await library.disconnect(nowait=True)

    async def _connect(self) -> "_Wire":
        await self.close()
        self._library = await self._servers.connect()
        return _take_over(self._library)

    async def _heed(self, errors: Sequence[Exception], *, whole: bool) -> None:
        """Drop a connection that is of no use, and one to a server that says another one takes the writes."""
        dead = next((error for error in errors if isinstance(error, RedisConnectionError)), None)
        if dead is None and not any(isinstance(error, (MovedError, ReadOnlyError)) for error in errors):
            return
        await self.close()
        if dead is not None:
            raise dead
        if whole and all(
            isinstance(error, MovedError) for error in errors
        ):  # nothing was done: it may be repeated
            raise RedisConnectionError(
                f"this node of a cluster does not have the slot of the pool ({errors[0]})"
            )


class Subscription:
    """A connection that is told what others publish on a channel. One that broke stays so."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._library: Any = None
        self._wire: _Wire | None = None
        self._told: list[list[Any]] = []
        self._news = asyncio.Event()

    async def open(self, channel: str) -> None:
        """Subscribe; nothing that is published after the return is missed.

        Raises:
            RedisConnectionError: no connection.
        """
        self._library = await self._servers.connect()
        self._wire = _take_over(self._library)
        self._wire.on_push = self._on_push
        self._wire.transport.write(_pack(("SUBSCRIBE", channel)))
        await self.take()  # the confirmation

    async def take(self) -> list[bytes]:
        """What was published since the last call; waits for it.

        Raises:
            RedisConnectionError: the connection broke.
        """
        await self._news.wait()
        wire = self._alive()
        self._news.clear()
        told, self._told = self._told, []
        wire.transport.resume_reading()
        return [message[2] for message in told if message[0] == b"message"]

    async def prove(self) -> None:
        """Have the server answer.

        Raises:
            RedisConnectionError: the connection broke.
        """
        await self._alive().ask(_pack(("PING",)), 1)

    async def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._library is not None:
            await self._library.disconnect(nowait=True)

    def _alive(self) -> "_Wire":
        if self._wire is None or self._wire.lost:
            raise RedisConnectionError("the subscription's connection was closed")
        return self._wire

    def _on_push(self, message: "list[Any] | None") -> None:
        if message is not None:
            self._told.append(message)
        if len(self._told) > TOLD_LIMIT and self._wire is not None:
            self._wire.transport.pause_reading()
        self._news.set()


def _take_over(library: Any) -> "_Wire":
    """Read what comes on an open connection of the library from now on."""
    # The library has no public way to the transport that it made, nor to its names for errors.
    return _Wire(library._writer.transport, library._parser.parse_error)  # noqa: SLF001


class _Wire(asyncio.Protocol):
    """The transport of a connection: hiredis reads what comes, one waits for a number of replies.

    `on_push` gets what comes unasked, and None at the end.
    """

    def __init__(self, transport: asyncio.Transport, error: Callable[[str], Exception]) -> None:
        self.transport = transport
        self.on_push: Callable[[list[Any] | None], None] = _ignore
        self.lost = False
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=error,
            notEnoughData=_NOTHING,
        )
        self._replies: list[Any] = []
        self._missing = 0
        self._waiter: asyncio.Future[list[Any]] | None = None
        transport.set_protocol(self)

    async def ask(self, request: bytes, count: int) -> list[Any]:
        """Send a request, and wait for its `count` replies."""
        self._replies, self._missing = [], count
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiter

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                if isinstance(reply, hiredis.PushNotification):
                    self.on_push(reply)
                else:
                    self._replies.append(reply)
        except InvalidResponse as error:
            self._fail(RedisConnectionError(f"the server sent something that is no reply ({error})"))
            self.transport.abort()
        else:
            if self._waiter is not None and len(self._replies) >= self._missing and not self._waiter.done():
                self._waiter.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(RedisConnectionError(f"the connection was closed ({exc or 'by the server'})"))

    def _fail(self, error: RedisConnectionError) -> None:
        self.lost = True
        self.on_push(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _ignore(_message: "list[Any] | None") -> None:
    """Nobody subscribed on this line."""


def _pack(command: Command) -> bytes:
    try:
        packed: bytes = hiredis.pack_command(command)
    except TypeError as error:
        wrong = next(
            (repr(part) for part in command if type(part) not in {str, bytes, int, float}), "a value"
        )
        raise DataError(f"{command[0]}: {wrong} cannot be sent") from error
    return packed
