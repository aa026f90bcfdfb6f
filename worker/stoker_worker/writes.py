"""What one attempt tells the store, in order, whatever Redis does meanwhile.

Nobody who runs an app waits for these writes, except for the first (`accept`) and the last. While Redis is
away they wait here: moves in a list of at most six, lines in a bounded buffer; the outcome also on disk, with the
moves before it, for a later life of the daemon. A refusal ends the attempt's right to write: the rest is dropped
and `on_refused` is called once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from stoker.core.errors import ProtocolRefusal, StaleAttempt, StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import Assignment, EngineId, LogLine, LogType, Outcome, TaskId
from stoker.core.states import TaskState
from stoker.log import get_logger
from stoker_worker.attempt_log import AttemptLog
from stoker_worker.backoff import Backoff
from stoker_worker.deltas import DeltaBuffer, DeltaWrite
from stoker_worker.logs import Batch, LogBuffer
from stoker_worker.spool import Spool

_log = get_logger("writes")


class AttemptStore(Protocol):
    """The part of `stoker.protocol.engines.Engines` that one attempt needs."""

    async def accept(self, order: Assignment, engine_id: EngineId, entry: str, state: TaskState) -> None: ...

    async def hand_back(self, order: Assignment, engine_id: EngineId, entry: str, reason: str) -> None: ...

    async def transition(
        self, task_id: TaskId, attempt: int, token: str, state: TaskState, detail: str = ""
    ) -> None: ...

    async def append(
        self,
        task_id: TaskId,
        attempt: int,
        token: str,
        *,
        lines: Sequence[LogLine] = (),
        partial: bytes = b"",
        dropped: int = 0,
    ) -> None: ...

    async def deltas(
        self,
        task_id: TaskId,
        attempt: int,
        token: str,
        *,
        first: int,
        last: int,
        deltas: Sequence[bytes],
        partial: bytes = b"",
    ) -> None: ...

    async def finish(self, order: Assignment, engine_id: EngineId, outcome: Outcome) -> None: ...


class Writes:
    """The writer of one attempt. It is done when `settled`: the ending was taken, or refused."""

    def __init__(
        self,
        store: AttemptStore,
        engine_id: EngineId,
        order: Assignment,
        entry: str,
        spool: Spool,
        full_log: AttemptLog,
        on_settled: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        self.order = order
        self.log = LogBuffer(order.attempt)
        self.full_log = full_log
        self.increments = DeltaBuffer()
        self.settled = False
        self._store = store
        self._engine_id = engine_id
        self._entry = entry
        self._spool = spool
        self._on_settled = on_settled
        self._on_refused = on_refused
        self._moves: deque[tuple[TaskState, str]] = deque()
        self._batch: Batch | None = None
        self._increments: DeltaWrite | None = None
        self._lines_due = False
        self._increments_due = False
        self._turn_of_lines = True
        self._ending: Outcome | str | None = None  # an outcome, or the reason for handing the task back
        self._spooled = False
        self._resumed = False
        self._entered: list[tuple[TaskState, str]] = []
        self._ended_here = False
        self._pump: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()  # the ending was taken, refused, or waits for Redis

    async def accept(self, state: TaskState) -> None:
        """Confirm the assignment and enter the first state; waits for Redis.

        Raises:
            StaleAttempt: the attempt owns the task no more; nothing may be started.
            ProtocolRefusal: as above: the task was deleted or has ended.
        """
        backoff = Backoff()
        while True:
            try:
                await self._store.accept(self.order, self._engine_id, self._entry, state)
            except StoreUnavailable:
                await backoff.wait()
            except (StaleAttempt, ProtocolRefusal):
                self._close()
                raise
            else:
                self._entered.append((state, ""))
                return

    def move(self, state: TaskState, detail: str = "") -> None:
        """Enter a later state."""
        self._moves.append((state, detail))
        self._start()

    def line(self, kind: LogType, text: str) -> None:
        """Add a log line, or several that line feeds divide; they are written within `BATCH_S`.

        Every line of an attempt passes here, and nowhere else, before it goes to disk or to Redis. What a child of
        the app prints after the attempt comes here too: it is in the complete log alone.
        """
        at_ms = int(time.time() * 1000)
        self.full_log.add(kind, text, at_ms)
        if not self.settled:
            self.log.add(kind, text, at_ms)
            self._start_soon()

    def partial(self, output: bytes) -> None:
        """Replace the partial output (JSON); it is written within `BATCH_S`."""
        if self.increments:  # so that it does not arrive before what it is made of
            self.increments.set_partial(output)
        else:
            self.log.set_partial(output)
        self._start_soon()

    def delta(self, increment: bytes) -> None:
        """Add an increment of the output (JSON); it is written within `BATCH_S`, and none is left out."""
        self.increments.add(increment)
        self._start_soon()

    async def finish(self, outcome: Outcome) -> None:
        """End the attempt. Returns when the store took or refused it, or when it is safe to go on without it.

        The lines and increments that wait are written first; a partial output that waits is not.
        """
        self._forget_partial()
        await self._end(outcome)

    async def hand_back(self, reason: str) -> None:
        """Return the task: it was not started, or this machine must stop it. Only a single attempt is spent by that."""
        self._forget_partial()
        await self._end(reason)

    def resume(self, outcome: Outcome, moves: Sequence[tuple[TaskState, str]] = ()) -> None:
        """Go on with an outcome that was found in the spool, and the moves before it."""
        self._spooled = self._resumed = True
        self._moves.extend(moves)
        self._ending = outcome
        self._start()

    def abandon(self) -> None:
        """Write nothing more: another attempt owns the task."""
        self._close()

    def _forget_partial(self) -> None:
        """Drop a partial output, also from a write that was begun and may be made again: it must not hold up the ending."""
        self.log.forget_partial()
        self.increments.forget_partial()
        if self._batch is not None:
            self._batch = replace(self._batch, partial=b"") if self._batch.lines else None
        if self._increments is not None:
            self._increments = replace(self._increments, partial=b"")

    async def _end(self, ending: Outcome | str) -> None:
        if self._ending is None and not self.settled:
            self._ending = ending
            self._start()
        await self._progress.wait()

    def _start_soon(self) -> None:
        if self._timer is None and not self.settled:
            self._timer = asyncio.get_running_loop().call_later(self.log.pause_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._lines_due = self._increments_due = True
        self._start()

    def _start(self) -> None:
        if self._pump is None and not self.settled:
            self._pump = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Write what waits: moves, lines, increments, the ending. One write at a time keeps their order."""
        backoff = Backoff()
        try:
            while not self.settled and await self._write_next(backoff):
                pass
        except (StaleAttempt, ProtocolRefusal) as refusal:
            self._refused(refusal)
        finally:
            self._pump = None

    async def _write_next(self, backoff: Backoff) -> bool:
        """One write; False when nothing waits. A failed one stays first in line."""
        try:
            if self._moves:
                await self._write_move()
            elif (write := self._next_append()) is not None:
                await write()
            elif self._ending is not None:
                await self._write_ending()
            else:
                return False
        except StoreUnavailable:
            self._wait_on_disk()
            await backoff.wait()
        except (StaleAttempt, ProtocolRefusal):
            raise
        except Exception as error:  # noqa: BLE001 - of the server's own making (its disk is full): it may pass
            _log.error(
                Event.STORE_LOST, task_id=self.order.task.id, reason=f"{type(error).__name__}: {error}"
            )
            self._wait_on_disk()
            await backoff.wait()
        else:
            backoff.reset()
        return True

    async def _write_move(self) -> None:
        state, detail = self._moves[0]
        order = self.order
        try:
            await self._store.transition(order.task.id, order.attempt, order.token, state, detail)
        except ProtocolRefusal as refusal:
            if self._entered_anew(refusal):
                return
            # What the spool has of an earlier life may have been written by it, and more after it.
        self._entered.append(self._moves.popleft())

    def _entered_anew(self, refusal: ProtocolRefusal) -> bool:
        """Put the moves in line again, once: a replica that took over may lack some. What it has it refuses.

        Raises:
            ProtocolRefusal: it is for another reason.
        """
        if refusal.refusal != "ILLEGAL_MOVE" or not (self._resumed or self._entered):
            raise refusal
        if self._resumed:
            return False
        self._resumed = True
        self._moves.extendleft(reversed(self._entered))
        self._entered.clear()
        return True

    def _next_append(self) -> Callable[[], Awaitable[None]] | None:
        """Lines or increments: first what was begun, then whoever's turn it is."""
        if self._batch is not None:
            return self._write_batch
        if self._increments is not None:
            return self._write_increments
        ending = self._ending is not None
        lines = self.log and (self._lines_due or ending)
        if self.increments and (self._increments_due or ending) and not (lines and self._turn_of_lines):
            return self._write_increments
        return self._write_batch if lines else None

    async def _write_batch(self) -> None:
        # The same lines again after a lost reply: the script knows them by the last one's number.
        batch = self._batch = self._batch or self.log.take(int(time.time() * 1000))
        order = self.order
        await self._store.append(
            order.task.id,
            order.attempt,
            order.token,
            lines=batch.lines,
            partial=batch.partial,
            dropped=batch.dropped,
        )
        self._batch = None
        self._turn_of_lines = False
        self._lines_due = False
        if self.log:
            self._start_soon()

    async def _write_increments(self) -> None:
        # The same ones again after a lost reply: the script knows them by the last one's number.
        write = self._increments = self._increments or self.increments.take()
        order = self.order
        await self._store.deltas(
            order.task.id,
            order.attempt,
            order.token,
            first=write.first,
            last=write.last,
            deltas=write.deltas,
            partial=write.partial,
        )
        self._increments = None
        self._turn_of_lines = True
        self._increments_due = self.increments.full
        if self.increments and not self._increments_due:
            self._start_soon()

    async def _write_ending(self) -> None:
        if isinstance(self._ending, Outcome):
            try:
                await self._store.finish(self.order, self._engine_id, self._ending)
            except ProtocolRefusal as refusal:
                if not self._entered_anew(refusal):
                    raise
                return
            self._ended_here = not self._ending.retryable  # another attempt's lines may push these out
        elif self._ending is not None:
            await self._store.hand_back(self.order, self._engine_id, self._entry, self._ending)
        self._close()

    def _wait_on_disk(self) -> None:
        """Redis is away: an outcome goes to disk once, and whoever waits for the ending may go on."""
        if self._ending is None:
            return
        if isinstance(self._ending, Outcome) and not self._spooled:
            self._spooled = self._spool.put(self.order, self._ending, tuple(self._moves))
            self.full_log.seal()  # what a later life of the daemon delivers comes with its log
        self._progress.set()

    def _refused(self, refusal: StaleAttempt | ProtocolRefusal) -> None:
        _log.warning(
            Event.ATTEMPT_STALE,
            task_id=self.order.task.id,
            attempt=self.order.attempt,
            reason=refusal.message,
            ending_dropped=self._ending is not None,
        )
        self._close()
        self._on_refused(refusal.message)

    def _close(self) -> None:
        if self.settled:
            return
        self.settled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not (self._tail_is_whole() and self.full_log.forget()):
            self.full_log.seal()
        if self._spooled:
            self._spool.remove(self.order)
        self._progress.set()
        self._on_settled()

    def _tail_is_whole(self) -> bool:
        """Whether the live tail holds the log for good: all of it was taken, and no later attempt will push it out.

        Only a first attempt has the tail for itself.
        """
        return self._ended_here and self.log.whole and not self.log and self.order.attempt == 1
