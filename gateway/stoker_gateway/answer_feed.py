"""The answer of a language model's task as it grows: increments whose sum is the answer, then how the task ended.

Built on what the hub knows of the task, so it survives a lost announcement, another attempt, a time without Redis
and a restart of everything but this process. Apps that yield increments and apps that yield whole outputs look the
same here.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import msgspec

from stoker.core.errors import StoreUnavailable
from stoker.core.messages import TaskId
from stoker.core.states import TERMINAL
from stoker.llm.growth import Delta, Growth
from stoker.protocol import Store
from stoker.protocol.task_hash import Standing
from stoker_gateway.deltas import BATCHES
from stoker_gateway.streams import RETRY_S, Hub, woken

_decode = msgspec.json.Decoder(dict[str, object]).decode


class Quiet:
    """Nothing came for the time of a heartbeat."""


QUIET: Final = Quiet()
Part = Delta | Standing | Quiet


class AnswerFeed:
    """One reader of one task."""

    def __init__(
        self, store: Store, hub: Hub, heartbeat_s: float, task_id: TaskId, growth: Growth | None = None
    ) -> None:
        """Args: growth: what the reader was told by an earlier feed of this task."""
        self.growth = growth or Growth()
        self._store = store
        self._hub = hub
        self._heartbeat_s = heartbeat_s
        self._task_id = task_id
        self._told_attempt = 0
        """Whose output begins with all that was told."""
        self._attempt = 0
        self._last = 0
        self._after = "0"
        self._unread = False
        """Whether increments are to be read again, for Redis was away."""

    async def parts(self) -> AsyncGenerator[Part, None]:
        """What is new, Quiet now and then, and how the task ended; nothing more when it is deleted.

        Raises:
            StreamCut: the gateway ends, or cannot read the task.
        """
        mono_told = time.monotonic()
        with self._hub.answer(self._task_id) as (watch, waker):
            while not watch.gone:
                view = watch.view
                if view is not None:
                    async for delta in self._new(view):
                        mono_told = time.monotonic()
                        yield delta
                    if view.state in TERMINAL and not self._unread:
                        yield view
                        return
                quiet_s = mono_told + self._heartbeat_s - time.monotonic()
                await woken(waker, min(quiet_s, RETRY_S) if self._unread else quiet_s)
                self._hub.check(watch)
                if time.monotonic() >= mono_told + self._heartbeat_s:
                    mono_told = time.monotonic()
                    yield QUIET

    def contradicts(self, end: Standing) -> bool:
        """Whether an attempt ended with another answer than the one that an earlier attempt had told.

        What an attempt told itself is no contradiction: an app may strip its text or spell arguments anew at the end.
        """
        return self.growth.broken and end.attempt != self._told_attempt

    async def _new(self, view: Standing) -> AsyncIterator[Delta]:
        """What a view has beyond what was told: its increments while they can be had, else by its output.

        At the end both: an output that is not what was streamed, as a stripped one, cannot tell the last increments.
        """
        self._unread = False
        if self._growing(view):
            async for delta in self._increments(view):
                yield delta
            if self._unread or view.state not in TERMINAL:
                return
        if delta := self.growth.catch_up(view.output, ended=view.state in TERMINAL):
            yield delta
        if not self.growth.broken:
            self._told_attempt = view.attempt

    def _growing(self, view: Standing) -> bool:
        """Whether increments of this attempt go on from what was told."""
        if view.delta_last == 0 or self._last < 0:
            return False
        if view.state in TERMINAL:
            return view.attempt == self._attempt and self._last > 0
        if view.attempt != self._attempt:
            if not self.growth.empty:
                return False
            self._told_attempt = self._attempt = view.attempt
            self._last, self._after = 0, "0"
        return True

    async def _increments(self, view: Standing) -> AsyncIterator[Delta]:
        while self._last < view.delta_last:
            try:
                batches = await self._store.tasks.deltas(self._task_id, self._after, BATCHES)
            except StoreUnavailable:
                self._unread = True  # and nobody says when: the hub tells of a task only when it has changed
                return
            for batch in batches:
                self._after = batch.id
                for number, raw in enumerate(batch.deltas, batch.first):
                    if number <= self._last or batch.attempt != self._attempt:
                        continue
                    if number > self._last + 1:  # some are not kept any more: the whole output has them
                        self._last = -1
                        return
                    self._last = number
                    if delta := self.growth.add(_decode(raw)):
                        yield delta
            if not batches:
                return
