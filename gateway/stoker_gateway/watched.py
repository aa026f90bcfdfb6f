"""What the hub keeps of a task that somebody watches, and who wants to be woken when it changes."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from stoker.core.messages import TaskId, TaskView
from stoker.core.states import TERMINAL
from stoker.protocol.task_hash import Standing

V = TypeVar("V", TaskView, Standing)


class Watched(Generic[V]):
    """A task, as it was read last, and its readers."""

    def __init__(self) -> None:
        self.view: V | None = None
        self.gone = self.broken = False
        """Deleted; not to be read any more, though its readers wait."""
        self.wakers: set[asyncio.Event] = set()

    @property
    def ended(self) -> bool:
        """Whether nothing can change any more."""
        return self.view is not None and self.view.state in TERMINAL

    def break_off(self) -> None:
        """Have every reader's stream break off."""
        self.broken = True
        self.wake()

    def wake(self) -> None:
        """Have every reader look."""
        for waker in self.wakers:
            waker.set()


class AnswerWatch(Watched[Standing]):
    """A task whose answer somebody follows: less than what a task's own stream shows.

    Neither its log, nor why it waits, nor what it was asked: of a chat that is the whole conversation, at each change.
    """

    def update(self, view: Standing | None) -> None:
        """Take what was read; readers hear of it when it differs."""
        if view is not None and view == self.view:
            return
        if view is None:
            self.gone = True
        else:
            self.view = view
        self.wake()


W = TypeVar("W", bound=Watched[Any])


@contextlib.contextmanager
def watched(
    watches: dict[TaskId, W], task_id: TaskId, make: Callable[[], W]
) -> Iterator[tuple[W, asyncio.Event]]:
    """The watch of a task, made for the first of its readers and gone with the last, and the event that wakes this one."""
    watch = watches.setdefault(task_id, make())
    waker = asyncio.Event()
    watch.wakers.add(waker)
    try:
        yield watch, waker
    finally:
        watch.wakers.discard(waker)
        if not watch.wakers and watches.get(task_id) is watch:
            del watches[task_id]
