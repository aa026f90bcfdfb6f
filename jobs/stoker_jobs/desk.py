"""What steps work with: one event loop and one connection a process, kept from job to job.

RQ's jobs are plain functions. Opening Redis anew in each would cost more than a step does.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from msgspec import Struct
from rq.timeouts import BaseTimeoutException

from stoker.core.errors import StoreUnavailable
from stoker.protocol import Store
from stoker.runs.registry import Registry
from stoker.runs.submit import Submitter
from stoker.service import loop_factory
from stoker.settings import JobsSettings, load

T = TypeVar("T")
STEP_TIMEOUT_S: Final = 60.0
"""A step reads, decides and writes; RQ's own limit is far longer and breaks into whatever runs."""


class Desk(Struct, frozen=True, kw_only=True):
    """The parts of one process that takes steps."""

    store: Store
    settings: JobsSettings
    submitter: Submitter
    registry: Registry


Work = Callable[[Desk], Awaitable[T]]


async def open_desk(settings: JobsSettings) -> Desk:
    """A desk of its own.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    return desk_on(await Store.open(settings.store_url, settings.pool), settings)


def desk_on(store: Store, settings: JobsSettings) -> Desk:
    """A desk that speaks through a store."""
    registry = Registry(store)
    # Where clients see the files comes with what they sent (`Origin.files_url`).
    submitter = Submitter(store, registry, settings, base_url=settings.public_url)
    return Desk(store=store, settings=settings, submitter=submitter, registry=registry)


class _Shop:
    """The loop and the desk of this process."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        self._settings = load(JobsSettings)
        self._desk: Desk | None = None
        self._broken_by: BaseTimeoutException | None = None

    def do(self, work: Work[T], limit_s: float) -> T:
        try:
            return self._runner.run(self._bounded(work, limit_s))
        except asyncio.CancelledError:
            if self._broken_by is None:
                raise
            raise self._broken_by from None

    async def _bounded(self, work: Work[T], limit_s: float) -> T:
        self._heed_rq(asyncio.current_task())
        if self._desk is None:
            self._desk = await open_desk(self._settings)
        async with asyncio.timeout(limit_s):
            return await work(self._desk)

    def _heed_rq(self, task: "asyncio.Task[T] | None") -> None:
        """End `task` when RQ's limit breaks into the loop: our own, which is shorter, was swallowed by what it ended.

        It is an exception in the handler of SIGALRM. asyncio's loop breaks off with it; uvloop runs the handler in a
        callback, and would log it and go on.
        """

        def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            if task is None or not isinstance(error, BaseTimeoutException):
                loop.default_exception_handler(context)
                return
            self._broken_by = error
            task.cancel()

        asyncio.get_running_loop().set_exception_handler(on_error)

    def close(self) -> None:
        desk, self._desk = self._desk, None
        if desk is not None:
            with contextlib.suppress(StoreUnavailable):
                self._runner.run(desk.store.close())
        self._runner.close()


_shops: dict[int, _Shop] = {}


def at_desk(work: Work[T], limit_s: float = STEP_TIMEOUT_S) -> T:
    """Do `work` on this process's desk. After a failure the next one gets a new desk.

    Raises:
        TimeoutError: it took longer than `limit_s`.
    """
    pid = os.getpid()  # a forked process inherits the entry, and must not use its parent's connection
    shop = _shops.get(pid) or _Shop()
    _shops[pid] = shop
    try:
        return shop.do(work, limit_s)
    except BaseException:
        _shops.pop(pid, None)
        shop.close()
        raise
