"""Brings the closed segments of logs to the gateway: compressed, a few at a time, again while it is away."""

import asyncio
import contextlib
import gzip
import time
from typing import Final, Protocol

from stoker.core.events import Event
from stoker.log import get_logger
from stoker_worker.attempt_log import LogSpool, Segment
from stoker_worker.backoff import Backoff
from stoker_worker.files import GatewayRefused

TICK_S: Final = 0.5
PARALLEL: Final = 4
FAST: Final = 1
"""gzip's quickest level: it takes log text to a tenth at some 100 MB/s, and the best level to little less."""
LAST_PAUSE_S: Final = 10.0
"""Between two tries while the gateway is away."""

_REFUSALS: Final = frozenset({400, 401, 403, 404, 409, 413, 422})
"""Answers that stay the same however often one asks: the task is gone, or is not ours."""

_log = get_logger("logs")


class LogTaker(Protocol):
    """`stoker_worker.files.Gateway`, as far as logs use it."""

    async def put_log(self, task_id: str, attempt: int, token: str, first: int, body: bytes) -> None:
        """Store a chunk. Raises GatewayRefused, with the `status` of the answer, 0 without one."""


class LogUploader:
    """One engine's uploads. `run` is the one task that does them."""

    def __init__(self, spool: LogSpool, gateway: LogTaker) -> None:
        self._spool = spool
        self._gateway = gateway
        self._backoff = Backoff(first_s=0.5, last_s=LAST_PAUSE_S)
        self._delayed = False

    async def run(self) -> None:
        """Close and upload segments until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick_loop())
            group.create_task(self._upload_loop())

    async def flush(self, timeout_s: float) -> None:
        """Close everything and upload it, as far as that goes in time; the rest stays for the next start."""
        self._spool.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._spool.waiting and await self._upload_some():
                    pass

    async def _tick_loop(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._spool.tick(time.monotonic())

    async def _upload_loop(self) -> None:
        while True:
            await self._spool.due.wait()
            if not await self._upload_some():
                await self._backoff.wait()

    async def _upload_some(self) -> bool:
        """Upload the oldest segments; False when the gateway is away."""
        segments = self._spool.take_ready(PARALLEL)
        results = await asyncio.gather(*(self._upload(segment) for segment in segments))
        if all(results):
            if segments:
                self._backoff.reset()
                self._delayed = False
            return True
        return False

    async def _upload(self, segment: Segment) -> bool:
        """Upload one segment; False when it has to wait."""
        owned = segment.owned
        settled = False
        try:
            body = await asyncio.to_thread(_packed, segment)
            if body:
                await self._gateway.put_log(owned.task_id, owned.attempt, owned.token, owned.first, body)
            settled = True
        except FileNotFoundError as error:
            _log.error(Event.LOG_SPOOL_FAILED, path=str(segment.path), reason=str(error))
            settled = True
        except GatewayRefused as refusal:
            # Only the gateway's own words settle it: a proxy before it says 404, too, while it starts.
            settled = refusal.status in _REFUSALS and bool(refusal.said)
            self._tell(segment, refusal.message, settled=settled)
        except Exception as error:  # noqa: BLE001 - the edge: no chunk may end the daemon
            self._tell(segment, f"{type(error).__name__}: {error}", settled=False)
        finally:  # also when cancelled: the next start has the file
            if settled:
                self._spool.done(segment)
            else:
                self._spool.again(segment)
        return settled

    def _tell(self, segment: Segment, reason: str, *, settled: bool) -> None:
        owned = segment.owned
        if settled:
            _log.warning(
                Event.LOG_CHUNK_REFUSED,
                task_id=owned.task_id,
                attempt=owned.attempt,
                first=owned.first,
                bytes=segment.size,
                reason=reason,
            )
        elif not self._delayed:
            self._delayed = True
            _log.warning(Event.LOG_UPLOAD_DELAYED, waiting_bytes=self._spool.bytes, reason=reason)


def _packed(segment: Segment) -> bytes:
    """The segment as it is stored; empty when it has no whole block."""
    data = segment.read()
    return gzip.compress(data, FAST, mtime=0) if data else b""
