"""Live tasks: one subscription a process, fanned out to every reader of a task.

Announcements only say that a task has changed. The hub reads all changed tasks that somebody watches in one
batch, at once when one has ended and else when a moment has passed, for changes come in rows; each reader sends the latest state when it can, so a slow one skips states and buffers nothing. Every few
seconds all watched tasks are read anyway: a lost announcement costs seconds, never an ending.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import TaskId, TaskView
from stoker.core.states import TERMINAL
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.protocol.task_logs import Tail
from stoker.pulse import Pulse
from stoker.settings import GatewaySettings
from stoker_gateway.deltas import BATCHES, DeltaReader
from stoker_gateway.dialect import Dialect
from stoker_gateway.dto import EncodedLogs, stream_lines
from stoker_gateway.watched import AnswerWatch, Watched, watched

POLL_S = 5.0
RETRY_S = 0.5
LISTEN_S = 1.0
ANNOUNCEMENTS, TASKS = "announcements", "tasks"
"""The loops that read, by the names that people see."""
MIN_GAP_S = 0.05
"""At most 20 updates a second a stream; a change of state does not wait."""
GATHER_S = 0.005
"""What a change waits for the next one: a warm task is scheduled and running within it, and often over."""
BATCH = 500
HEARD_KEPT = 10_000
"""Announced tasks that a stream can be opened for without a second read."""

NDJSON = "application/x-ndjson"
SSE = "text/event-stream; charset=utf-8"
"""Without the charset old clients decode Latin-1."""
HEARTBEAT_LINE = b'{"type":"heartbeat"}\n'
HEARTBEAT_COMMENT = b": heartbeat\n\n"

log = get_logger("streams")


class StreamCut(ConnectionError):
    """The stream breaks off without an end, so that its reader opens it anew: this gateway ends, or cannot read the task."""


class Watch(Watched[TaskView]):
    """A task whose stream somebody reads: also the tail of its log, and its encoded lines."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = Tail(keep_new=True)
        """Read on from where it was: an update costs what is new and not the whole tail."""
        self._logs = EncodedLogs()
        self.version = 0
        self.late: set[asyncio.Event] = set()
        """Of readers that may have missed a change before they came: the next read tells them, whatever it finds."""
        self._lines: dict[tuple[Dialect, str], list[bytes] | None] = {}

    def update(self, view: TaskView | None) -> None:
        """Take a fresh view, and the lines that were read after it; readers hear of it when it differs."""
        if view is not None:
            self._logs.add(view.request.id, self.tail.take_new())
        same = view is not None and self.view is not None and _signature(view) == _signature(self.view)
        for waker in self.late if same else self.wakers:
            waker.set()
        self.late.clear()
        if same:
            return
        if view is None:
            self.gone = True
        else:
            self.view = view
        self.version += 1
        self._lines.clear()

    def lines(self, dialect: Dialect, user_id: str) -> list[bytes] | None:
        """The next events for readers of a dialect, encoded once for all of them."""
        key = (dialect, user_id)
        if key not in self._lines:
            assert self.view is not None  # noqa: S101 - readers ask after an update only
            self._lines[key] = stream_lines(self.view, dialect, user_id, self._logs.fitting())
        return self._lines[key]


class Reader:
    """One reader of a stream: what it was shown, and when."""

    def __init__(self, first: TaskView, dialect: Dialect, user_id: str, waker: asyncio.Event) -> None:
        self.dialect = dialect
        self.waker = waker
        self.deltas = DeltaReader(first.request.id, dialect)
        self.shown = first
        self.sent_at = self.alive_at = time.monotonic()
        self.ended = False
        self._user_id = user_id

    def lacks(self, view: TaskView) -> bool:
        """Whether a view holds something that this reader has not got."""
        if _signature(view) == _signature(self.shown):
            return False
        return not self.deltas.replaces_output(view) or _aside(view) != _aside(self.shown)

    def sent(self, watch: Watch, view: TaskView) -> Iterator[bytes]:
        """The whole task as events, which count as sent now."""
        if watch.view is view:
            lines = watch.lines(self.dialect, self._user_id)
        else:
            lines = stream_lines(view, self.dialect, self._user_id)
        self.shown, self.ended = view, view.state in TERMINAL
        self.sent_at = self.alive_at = time.monotonic()
        return framed(lines, view, self.dialect)


class Heard:
    """Which tasks were announced lately, so that who read one and watches it since knows whether he missed a change."""

    def __init__(self) -> None:
        self.position = 0
        """Of the last announcement; to be noted before a read."""
        self._tasks: OrderedDict[TaskId, int] = OrderedDict()
        self._forgotten = 0

    def add(self, task_id: TaskId) -> None:
        self.position += 1
        self._tasks[task_id] = self.position
        self._tasks.move_to_end(task_id)
        if len(self._tasks) > HEARD_KEPT:
            _, self._forgotten = self._tasks.popitem(last=False)

    def nothing_before_now(self) -> None:
        """What was announced until now may have been missed."""
        self.position += 1
        self._forgotten = self.position

    def since(self, task_id: TaskId, position: int) -> bool:
        """Whether a task may have changed after `position`."""
        return position < self._forgotten or self._tasks.get(task_id, 0) > position


class Hub:
    """Keeps watched tasks current. `run` is the one task that does."""

    def __init__(self, store: Store, settings: GatewaySettings) -> None:
        self._store = store
        self._heartbeat_s = settings.heartbeat_s
        self._resend_s = settings.resend_s
        self._watches: dict[TaskId, Watch] = {}
        self._answers: dict[TaskId, AnswerWatch] = {}
        self._documents: dict[str, set[asyncio.Event]] = {}
        """`kind:id` -> who waits for a change of it."""
        self._dirty: set[TaskId] = set()
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self.closing = False
        self.unreadable = self.restarts = 0
        """Tasks that were dropped, and how often the loops began anew: what no gateway should have to do."""
        self.heard = Heard()
        self.pulse = Pulse(ANNOUNCEMENTS)

    @property
    def open_streams(self) -> int:
        return sum(len(watch.wakers) for _, watch in self._watched(*self._all))

    def close(self) -> None:
        """Break every stream off. A clean end without the task's ending would leave some clients waiting for ever."""
        self.closing = True
        for _, watch in self._watched(*self._all):
            watch.wake()
        self._wake_documents(*self._documents)

    async def document_changes(
        self, kind: str, document_id: str, quiet_s: float
    ) -> AsyncGenerator[None, None]:
        """Yields at once, whenever a document may have changed, and after each `quiet_s` of silence; for ever.

        Whoever reads it each time misses no last state.

        Raises:
            StreamCut: the gateway ends.
        """
        name, waker = f"{kind}:{document_id}", asyncio.Event()
        wakers = self._documents.setdefault(name, set())
        wakers.add(waker)
        try:
            yield
            while True:
                await woken(waker, quiet_s)
                if self.closing:
                    raise StreamCut
                yield
        finally:
            wakers.discard(waker)
            if not wakers and self._documents.get(name) is wakers:
                del self._documents[name]

    def _wake_documents(self, *names: str) -> None:
        for name in names:
            for waker in self._documents.get(name, ()):
                waker.set()

    async def run(self) -> None:
        """Listen, read, poll, until cancelled. A loop that ends by an error begins anew, and the others with it."""
        while True:
            # No task group: a cancellation that comes with the error of a loop is lost in it.
            loops = [
                asyncio.create_task(loop)
                for loop in (self._listen_loop(), self._read_loop(), self._poll_loop())
            ]
            try:
                [failed, *_], _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for loop in loops:
                    loop.cancel()
                await asyncio.gather(*loops, return_exceptions=True)
            self.restarts += 1
            log.error(Event.HUB_FAILED, restarts=self.restarts, exc_info=failed.exception())
            await asyncio.sleep(RETRY_S)

    async def events(
        self, first: TaskView, read_at: int, dialect: Dialect, user_id: str
    ) -> AsyncIterator[bytes]:
        """The body of a stream: the task now, at each change, while it is quiet, and at its end.

        Args:
            first: the task as just read; it is sent at once.
            read_at: `heard.position` from before that read.
            dialect: of the reader.
            user_id: whose task it is.

        Raises:
            StreamCut: the gateway ends, or cannot read the task.
        """
        if first.state in TERMINAL:
            for chunk in framed(stream_lines(first, dialect, user_id), first, dialect):
                yield chunk
            return
        with self._watching(first.request.id) as (watch, waker):
            reader = Reader(first, dialect, user_id, waker)
            for chunk in framed(stream_lines(first, dialect, user_id), first, dialect):
                yield chunk
            if reader.deltas.wants(first) or watch.ended:  # it ended for another reader, and is read no more
                waker.set()
            if self.heard.since(first.request.id, read_at):
                watch.late.add(waker)
                self._mark(first.request.id)
            while not watch.gone and not reader.ended:
                due = min(reader.sent_at + self._resend_s, reader.alive_at + self._heartbeat_s)
                changed = await woken(waker, due - time.monotonic())
                self.check(watch)
                async for chunk in self._step(watch, reader, changed=changed):
                    yield chunk

    def check(self, watch: Watch | AnswerWatch) -> None:
        """To be asked by each reader of `watch` when it has waited.

        Raises:
            StreamCut: the gateway ends, or cannot read the task.
        """
        if self.closing or watch.broken:
            raise StreamCut

    async def _step(self, watch: Watch, reader: Reader, *, changed: bool) -> AsyncIterator[bytes]:
        """What a reader is sent when its task has changed, or was quiet for long."""
        view, now = watch.view or reader.shown, time.monotonic()
        async for event in self._increments(reader.deltas, view):
            reader.alive_at = now
            yield event
        if reader.deltas.broken:
            reader.ended = True
        elif changed and not reader.lacks(view):
            reader.shown = view
        elif changed and view.state == reader.shown.state and now < reader.sent_at + MIN_GAP_S:
            await asyncio.sleep(reader.sent_at + MIN_GAP_S - now)
            reader.waker.set()
        elif not changed and now < reader.sent_at + self._resend_s:
            reader.alive_at = now
            yield HEARTBEAT_LINE if reader.dialect.ndjson else HEARTBEAT_COMMENT
        else:
            for chunk in reader.sent(watch, view):
                yield chunk

    async def _increments(self, reader: DeltaReader, view: TaskView) -> AsyncIterator[bytes]:
        """What `reader` has not got of a task's increments, up to those that `view` knows of."""
        while reader.wants(view):
            try:
                found = await self._store.tasks.deltas(view.request.id, reader.after, BATCHES)
            except StoreUnavailable:
                return  # the next look at the task tries it again
            for event in reader.take(found):
                yield event
            if not found:
                reader.give_up()

    @contextlib.contextmanager
    def answer(self, task_id: TaskId) -> Iterator[tuple[AnswerWatch, asyncio.Event]]:
        """How far a task has come, and an event that is set when that has changed; it is read at once."""
        with watched(self._answers, task_id, AnswerWatch) as found:
            self._mark(task_id)
            yield found

    @contextlib.contextmanager
    def watching(self, task_id: TaskId) -> Iterator[asyncio.Event]:
        """An event that is set when the task has changed."""
        with self._watching(task_id) as (_, waker):
            yield waker

    @contextlib.contextmanager
    def _watching(self, task_id: TaskId) -> Iterator[tuple[Watch, asyncio.Event]]:
        with watched(self._watches, task_id, Watch) as (watch, waker):
            try:
                yield watch, waker
            finally:
                watch.late.discard(waker)

    @property
    def _all(self) -> set[TaskId]:
        return {*self._watches, *self._answers}

    def _watched(self, *task_ids: TaskId) -> list[tuple[TaskId, Watch | AnswerWatch]]:
        """What is watched of these tasks."""
        found: list[tuple[TaskId, Watch | AnswerWatch | None]] = []
        for task_id in task_ids:
            found += ((task_id, self._watches.get(task_id)), (task_id, self._answers.get(task_id)))
        return [(task_id, watch) for task_id, watch in found if watch is not None]

    def _mark(self, *task_ids: TaskId) -> None:
        self._dirty.update(task_ids)
        self._work.set()

    async def _listen_loop(self) -> None:
        while True:
            try:
                async with self._store.announcements() as announcements:
                    self.heard.nothing_before_now()
                    self._mark(*self._all)
                    self._wake_documents(*self._documents)
                    while True:
                        heard = await announcements.next(LISTEN_S)
                        self.pulse.beat(ANNOUNCEMENTS)
                        for said in heard:
                            if said.document:
                                self._wake_documents(said.document)
                            else:
                                self.heard.add(said.task_id)
                        watches = self._watches, self._answers
                        wanted = [said for said in heard if any(said.task_id in held for held in watches)]
                        if wanted:
                            self._mark(*(said.task_id for said in wanted))
                        if any(said.ended for said in wanted):
                            self._hurry.set()
            except StoreUnavailable as error:
                log.warning(Event.STORE_UNAVAILABLE, loop="announcements", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _read_loop(self) -> None:
        while True:
            await self._work.wait()
            await woken(self._hurry, GATHER_S)
            self._work.clear()
            self.pulse.beat(TASKS)  # counts from here: with nothing to read it is not deaf
            while self._dirty:
                batch = [self._dirty.pop() for _ in range(min(BATCH, len(self._dirty)))]
                try:
                    await self._read([one for one in self._watched(*batch) if not one[1].ended])
                    self.pulse.beat(TASKS)
                except StoreUnavailable as error:
                    log.warning(Event.STORE_UNAVAILABLE, loop="read", error=str(error))
                    self._dirty.update(batch)
                    await asyncio.sleep(RETRY_S)
            self.pulse.forget(TASKS)

    async def _read(self, read: list[tuple[TaskId, Watch | AnswerWatch]]) -> None:
        """Bring tasks up to date, in one batch; one by one where it fails, for an engine may have spoiled one of them.

        Raises:
            StoreUnavailable: some of them are not up to date.
        """
        try:
            await self._update(read)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one task must not silence the streams of all others
            if len(read) > 1:
                for each in read:
                    await self._read([each])
                return
            [(task_id, watch)] = read
            self.unreadable += 1
            log.warning(Event.TASK_UNREADABLE, task_id=task_id, reason=type(error).__name__)
            for watches in (self._watches, self._answers):
                if watches.get(task_id) is watch:  # whoever opens the stream anew finds out by himself
                    del watches[task_id]
            watch.break_off()

    async def _update(self, read: list[tuple[TaskId, Watch | AnswerWatch]]) -> None:
        tasks = [(task_id, watch) for task_id, watch in read if isinstance(watch, Watch)]
        answers = [(task_id, watch) for task_id, watch in read if isinstance(watch, AnswerWatch)]
        await asyncio.gather(
            *([self._update_tasks(tasks)] if tasks else []),
            *([self._update_answers(answers)] if answers else []),
        )

    async def _update_answers(self, answers: list[tuple[TaskId, AnswerWatch]]) -> None:
        found = await self._store.tasks.standings([task_id for task_id, _ in answers])
        for task_id, watch in answers:
            watch.update(found.get(task_id))

    async def _update_tasks(self, tasks: list[tuple[TaskId, Watch]]) -> None:
        """One batch. In it logs are read after the task, so that the view of an ended one comes with all lines."""
        views, _ = await asyncio.gather(
            self._store.tasks.read_many([task_id for task_id, _ in tasks], with_logs=False),
            self._store.logs.read_tails([(task_id, watch.tail) for task_id, watch in tasks]),
        )
        for (_, watch), view in zip(tasks, views, strict=True):
            watch.update(view)

    async def _poll_loop(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._mark(*self._all)
            self._wake_documents(*self._documents)


def framed(lines: list[bytes] | None, view: TaskView, dialect: Dialect) -> Iterator[bytes]:
    """Events as they go over the wire; a finished server-sent stream says so."""
    for line in lines or ():
        yield (
            line + b"\n"
            if dialect.ndjson
            else b"id: %b\nevent: update\ndata: %b\n\n" % (view.cursor.encode(), line)
        )
    if view.state in TERMINAL and not dialect.ndjson:
        yield b"event: done\ndata: {}\n\n"


def media_type(dialect: Dialect) -> str:
    """The content type of a stream."""
    return NDJSON if dialect.ndjson else SSE


def _signature(view: TaskView) -> tuple[object, ...]:
    return (
        view.cursor,
        view.delta_last,
        view.state,
        view.attempt,
        view.updated_ms,
        view.queue_reason,
        view.cancel_requested,
    )


def _aside(view: TaskView) -> tuple[object, ...]:
    """What can change of a task beside its output."""
    return (
        view.state,
        view.attempt,
        view.updated_ms,
        view.queue_reason,
        view.cancel_requested,
        view.log_last,
    )


async def woken(waker: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `waker`, and clear it; False when the time is over first."""
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            await waker.wait()
    except TimeoutError:
        return False
    waker.clear()
    return True
