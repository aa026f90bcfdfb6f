"""One connection to Redis that batches by itself.

Calls made while an earlier batch is under way leave together in the next pipeline, so a busy process pays one
round trip for many scripts, and an idle one waits for nobody.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Self

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from stoker.core.errors import Bug, ProtocolRefusal, ScriptFailed, StaleAttempt, StoreUnavailable
from stoker.core.events import Event
from stoker.log import get_logger
from stoker.protocol.line import Exchange, Line, Subscription
from stoker.protocol.scripts import Script, scripts
from stoker.protocol.servers import Servers, open_servers
from stoker.protocol.streams import Entry, stream

_log = get_logger("connection")

CALL_TIMEOUT_S = 4.0
"""What a request waits at most; a loop that called just before the server came back hears it again within 5 s."""
BLOCK_MARGIN_S = 3.0
"""How much longer than the server's own bound this side waits for a blocking read."""
RETRY_PAUSE_S = 0.05
BATCH_LIMIT = 512
"""Commands a pipeline: bounds what one slow answer holds up."""
QUEUE_LIMIT = 50_000
"""Calls waiting in this process; beyond it callers are told at once that the store is behind."""

_UNAVAILABLE = (
    RedisConnectionError,
    RedisTimeoutError,
    AskError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    ClusterDownError,
    TryAgainError,
    OSError,
)

_NOT_NOW = re.compile(r"^(?:MISCONF|NOREPLICAS|UNBLOCKED|BUSY) |: -(?:OOM|READONLY|MISCONF|NOREPLICAS) ")
"""UNBLOCKED ends the blocking reads of a primary that becomes a replica. The second form is how servers before 7.0 tell
of a refusal from within a script."""

Arg = str | bytes | int | float
_Call = tuple[tuple[Any, ...], asyncio.Future[Any], bool]
"""What to send, who waits for the answer, and whether it is never sent again."""


def unavailable(error: BaseException, *, several: bool = False) -> StoreUnavailable:
    """What to raise for a failure of Redis.

    `nobody_listens`: no server is at its address at all, or it still reads its file. Nothing changes there meanwhile,
    unless there are `several`, and another one has taken over.
    """
    cause = error.__cause__ or error.__context__
    return StoreUnavailable(
        f"Redis does not answer ({type(error).__name__}: {str(error) or 'no answer in time'}). Try again in a moment.",
        nobody_listens=not several
        and (
            isinstance(error, BusyLoadingError)
            or isinstance(cause, (ConnectionRefusedError, FileNotFoundError))
        ),
    )


class Connection:
    """Commands and scripts on one Redis.

    Every method raises StoreUnavailable when no answer comes within `CALL_TIMEOUT_S` or the server cannot
    write now. Scripts are safe to repeat after it. A batch whose line broke is sent once more, with what the server may
    have done already: a script that would answer otherwise then knows its caller again, or is sent `once`.
    """

    def __init__(self, servers: Servers, make_line: Callable[[Servers], Exchange] = Line) -> None:
        self._servers = servers
        self._make_line = make_line
        self._line = make_line(servers)
        self._blocking: list[Exchange] = []
        """Lines of blocking reads, while none goes on."""
        self._waiting: list[_Call] = []
        self._flusher: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, url: str, key: str = "") -> Self:
        """Connect lazily; for the arguments see `stoker.protocol.servers.open_servers`."""
        return cls(open_servers(url, key))

    async def close(self) -> None:
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        for line in (self._line, *self._blocking):
            await line.close()
        await self._servers.close()

    async def command(self, *parts: Arg) -> Any:
        """One command, in the next batch."""
        return await self._enqueue(parts)

    def start(self, *parts: Arg) -> asyncio.Future[Any]:
        """Put a command into the next batch without waiting; await the result later."""
        return self._enqueue(parts)

    async def script(
        self, name: str, keys: Sequence[str], args: Sequence[Arg], *, once: bool = False
    ) -> list[Any]:
        """Run a script; its result without the leading ``OK``.

        Args:
            once: a broken line is told as StoreUnavailable, and not mended by another try.

        Raises:
            StaleAttempt: the attempt does not own the task any more.
            ScriptFailed: it broke off on what it found.
            ProtocolRefusal: any other refusal; `refusal` is its name in the script's header.
        """
        return await self.start_script(name, keys, args, once=once)

    def start_script(
        self, name: str, keys: Sequence[str], args: Sequence[Arg], *, once: bool = False
    ) -> Coroutine[Any, Any, list[Any]]:
        """Put a script into the next batch at once; await the result later (see `script`)."""
        script = scripts()[name]
        if len(keys) != len(script.keys) or len(args) != len(script.args):
            raise Bug(f"script {name} takes {len(script.keys)} keys and {len(script.args)} arguments")
        given = (len(keys), *keys, *args)
        call = self._enqueue(("EVALSHA", script.sha, *given), once=once)
        return self._outcome(script, call, given, once=once)

    async def _outcome(
        self, script: Script, call: asyncio.Future[Any], given: tuple[Arg, ...], *, once: bool
    ) -> list[Any]:
        name = script.name
        try:
            result = await call
        except NoScriptError:
            result = await self._with_text(script, given, once=once)
        except ResponseError as error:
            raise _failed(name, error) from error
        code = result[0].decode()
        if code == "OK":
            return list(result[1:])
        if code == "STALE_ATTEMPT":
            raise StaleAttempt
        raise ProtocolRefusal(code, f"{name}: {code}", detail=result[1:])

    async def _with_text(self, script: Script, given: tuple[Arg, ...], *, once: bool) -> Any:
        """The script with its text, for a server that does not know it."""
        try:
            return await self._enqueue(("EVAL", script.source, *given), once=once)
        except ResponseError as error:
            raise _failed(script.name, error) from error

    async def block(self, *parts: Arg, timeout_s: float) -> Any:
        """A blocking command on its own connection, bounded by `timeout_s` on this side too."""
        line = self._blocking.pop() if self._blocking else self._make_line(self._servers)
        try:
            async with asyncio.timeout(timeout_s):
                [reply] = await line.exchange([parts])
        except (*_UNAVAILABLE, TimeoutError) as error:
            raise self._unavailable(error) from error
        finally:
            self._blocking.append(line)
        if isinstance(reply, _UNAVAILABLE) or _refuses(reply):
            raise self._unavailable(reply) from reply
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def read_stream(
        self, key: str, after: str, *, block_ms: int, count: int, group: tuple[str, str] | None = None
    ) -> list[Entry]:
        """Entries of a stream behind `after`; waits up to `block_ms` for the first.

        Args:
            group: a consumer group and the name of the one who reads in it; `after` is ">" then.

        Raises:
            StoreUnavailable: no answer.
        """
        verb = ("XREAD",) if group is None else ("XREADGROUP", "GROUP", *group)
        parts = (*verb, "COUNT", count, "BLOCK", block_ms, "STREAMS", key, after)
        return stream(await self.block(*parts, timeout_s=block_ms / 1000 + BLOCK_MARGIN_S))

    def subscription(self) -> Subscription:
        """A connection for what is published; not open yet."""
        return Subscription(self._servers)

    def _enqueue(self, parts: tuple[Arg, ...], *, once: bool = False) -> asyncio.Future[Any]:
        if len(self._waiting) >= QUEUE_LIMIT:
            raise StoreUnavailable(f"{QUEUE_LIMIT} calls wait for Redis already. Try again in a moment.")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((parts, future, once))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_LIMIT], self._waiting[BATCH_LIMIT:]
            try:
                once = {index for index, call in enumerate(batch) if call[2]}
                results = await self._execute([parts for parts, _, _ in batch], once)
            except _UNAVAILABLE as error:
                batch, self._waiting = batch + self._waiting, []  # who waited behind it need not wait anew
                results = [self._unavailable(error)] * len(batch)
            except asyncio.CancelledError:
                for _, future, _ in batch + self._waiting:
                    future.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - a value that cannot be sent; whoever waits must hear of it
                results = [error] * len(batch)
            for (_, future, _), result in zip(batch, results, strict=True):
                away = isinstance(result, _UNAVAILABLE) or _refuses(result)
                _resolve(future, self._unavailable(result) if away else result)

    def _unavailable(self, error: BaseException) -> StoreUnavailable:
        return unavailable(error, several=self._servers.several)

    async def _execute(self, commands: list[tuple[Any, ...]], once: Collection[int]) -> list[Any]:
        """The answers to a batch, errors of single commands among them. A line that broke is tried once more.

        Args:
            once: which commands are not sent again; the error is their answer then.
        """
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                try:
                    return await self._line.exchange(commands)
                except BusyLoadingError:
                    raise
                except (RedisConnectionError, ConnectionError) as error:
                    await asyncio.sleep(RETRY_PAUSE_S)
                    again = [command for index, command in enumerate(commands) if index not in once]
                    answers = iter(await self._line.exchange(again) if again else ())
                    return [error if index in once else next(answers) for index in range(len(commands))]
        except TimeoutError:
            raise RedisTimeoutError(f"nothing came within {CALL_TIMEOUT_S:g} s") from None


def _failed(name: str, error: ResponseError) -> Exception:
    """What to raise for a script that broke off: one spoiled task must not stop who works for all others."""
    if isinstance(error, NoPermissionError) or "script" not in str(error):
        return error
    _log.error(Event.SCRIPT_FAILED, script=name, reason=str(error))
    return ScriptFailed(script=name)


def _refuses(result: Any) -> bool:
    """Whether the server is in a state that passes: its disk or its replicas are gone, it changes its role."""
    return isinstance(result, ResponseError) and _NOT_NOW.search(str(result)) is not None


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(result, Exception):
        future.set_exception(result)
        future.exception()  # of several calls of one caller the first tells; the others are no news for the log
    else:
        future.set_result(result)
