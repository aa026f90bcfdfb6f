"""A task's log as it grows, up to the end of the task.

The live tail is quick and may skip; chunks are complete and come seconds later. So lines of the tail go out as long
as none is missing before them, and then the chunks are waited for, but not for ever: then a line stands for those
that did not come.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from stoker.core.errors import NotFound
from stoker.core.messages import LogLine, TaskId, TaskView
from stoker.core.states import TERMINAL
from stoker.protocol import Store
from stoker.protocol.task_logs import LogState
from stoker_gateway.log_reader import LogReader
from stoker_gateway.streams import MIN_GAP_S, Hub, woken

PATIENCE_S: Final = 10.0
"""Chunks come every few seconds while much is printed, and within one after the end."""
LOOK_S: Final = 0.5
"""A chunk that arrives is not announced."""


class Quiet:
    """Nothing came for the time of a heartbeat."""


class LogStream:
    """One reader's stream."""

    def __init__(
        self, store: Store, hub: Hub, heartbeat_s: float, reader: LogReader, task_id: TaskId
    ) -> None:
        self._store = store
        self._hub = hub
        self._heartbeat_s = heartbeat_s
        self._reader = reader
        self._task_id = task_id
        self._mono_moved = time.monotonic()

    async def items(self, *, follow: bool) -> AsyncIterator[list[LogLine] | Quiet | TaskView]:
        """Lines as they come; Quiet now and then; the task, once, when it has ended and all was told.

        Args:
            follow: stay until the task has ended; else a task that goes on is told as far as it got.
        """
        mono_told = time.monotonic()
        with self._hub.watching(self._task_id) as waker:
            while True:
                try:
                    view = await self._store.tasks.read(self._task_id, with_logs=False)
                except NotFound:
                    return
                state = await self._reader.refresh()  # after the task: what an ended one printed is in it
                async for batch in self._next(view, state, follow=follow):
                    self._mono_moved = mono_told = time.monotonic()
                    yield batch
                if view.state not in TERMINAL:
                    if not follow:
                        return
                elif self._reader.complete(state) or self._has_waited(view, follow=follow):
                    yield view
                    return
                if time.monotonic() - mono_told > self._heartbeat_s:
                    mono_told = time.monotonic()
                    yield Quiet()
                await woken(waker, LOOK_S)
                await asyncio.sleep(MIN_GAP_S)

    async def _next(self, view: TaskView, state: LogState, *, follow: bool) -> AsyncIterator[list[LogLine]]:
        """What can be told now."""
        async for batch in self._reader.lines(state, patient=True):
            if batch:
                yield batch
        ended = view.state in TERMINAL
        if (ended and self._reader.complete(state)) or self._has_waited(view, follow=follow):
            async for batch in self._reader.lines(state):
                if batch:
                    yield batch

    def _has_waited(self, view: TaskView, *, follow: bool) -> bool:
        """Whether what is missing is not worth more waiting; long after the end nothing comes any more."""
        if view.state in TERMINAL:
            return time.time() * 1000 - view.updated_ms > PATIENCE_S * 1000
        return not follow or time.monotonic() - self._mono_moved > PATIENCE_S
