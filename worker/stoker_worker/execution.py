"""One attempt of one task, as a list of named steps.

    accept > prepare > admit > start > set up > run > upload > finish

A warm instance goes from accept to run. The files of the input are fetched beside the steps before the run, which
waits for them; when one cannot be had, the task ends at once. Whoever wants to stop an attempt calls `stop` with the reason; what
follows from it is decided in one place, `_ending_of_stop`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

import msgspec

from stoker.core.errors import NoCapacity, ProtocolRefusal, StaleAttempt, WorkerLost
from stoker.core.events import Event
from stoker.core.messages import Assignment, EngineId, LogType, Outcome, TaskId, WorkerInfo
from stoker.core.states import ResidentState, TaskState
from stoker.log import get_logger
from stoker_worker.attempt_log import LogSpool
from stoker_worker.bring_up import BringUp
from stoker_worker.instance import RunResult
from stoker_worker.instance_errors import AppError, InstanceFailed, InstanceLost, limit_set_by
from stoker_worker.outcomes import (
    LoadTimeout,
    OutputFileMissing,
    OutputFileUnreadable,
    UploadTimeout,
    checked_meta,
    encode_output,
    failure_outcome,
    instance_is_broken,
    partial_refusal,
)
from stoker_worker.parking import Lot
from stoker_worker.ports import AppMachine, Prepared, RunningInstance
from stoker_worker.residence import Residence
from stoker_worker.residency import Residency
from stoker_worker.spool import Spool
from stoker_worker.writes import AttemptStore, Writes

DEATH_WAIT_S: Final = 0.5
"""The files of a process that was killed are gone a moment before its end is known."""

_S = TaskState
_log = get_logger("execution")


class StopKind(StrEnum):
    """Why an attempt is stopped from outside, the later ones stronger."""

    CANCEL = "cancel"
    """Its caller wants it: it ends as cancelled, the instance gets the chance to stay warm."""
    RETURN = "return"
    """This machine cannot go on with it (drain, lease over): it goes back to the queue."""
    DISOWN = "disown"
    """Another attempt owns the task: nothing more is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An order to stop. `grace_s`: how long the app may take to end by itself."""

    kind: StopKind
    reason: str
    grace_s: float = 0.0


class Stopped(Exception):
    """A step ended because `Execution.stop` was called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all executions of a daemon share."""

    store: AttemptStore
    engine_id: EngineId
    spool: Spool
    logs: LogSpool
    machine: AppMachine
    setup_timeout_s: float
    run_timeout_s: float
    upload_timeout_s: float
    lot: Lot = field(default_factory=Lot)


class Execution:
    """An attempt: waits in a slot's queue, then `run` takes it through its steps once."""

    def __init__(
        self, order: Assignment, entry: str, tools: Tools, on_settled: Callable[["Execution"], None]
    ) -> None:
        self.order = order
        self.task_id: TaskId = order.task.id
        self.started = False
        self.reached_function = False
        self.writes = Writes(
            tools.store,
            tools.engine_id,
            order,
            entry,
            tools.spool,
            tools.logs.open(order),
            on_settled=lambda: on_settled(self),
            on_refused=lambda reason: self.stop(Stop(kind=StopKind.DISOWN, reason=reason)),
        )
        self._tools = tools
        self._stop: Stop | None = None
        self._scope: asyncio.Timeout | None = None
        self._running: RunningInstance | None = None
        self._prepared: Prepared | None = None
        self._residence: Residence | None = None
        self._helpers: list[asyncio.Task[bool]] = []
        self._failure: BaseException | None = None
        self._last_partial = b"null"
        self._partial_refused = False
        self._entered = _S.SCHEDULED
        self._load_s = 0.0
        self._run_s = 0.0

    @property
    def needs_device(self) -> bool:
        """Whether it cannot go on without its GPUs: its function has not returned yet."""
        return self._running is not None or not self.reached_function

    @property
    def disowned(self) -> bool:
        """Whether the server said that the task is another attempt's."""
        return self._stop is not None and self._stop.kind is StopKind.DISOWN

    def stop(self, stop: Stop) -> None:
        """Stop the attempt, whatever it does. A later, stronger order replaces an earlier one."""
        if self._stop is not None and _strength(stop) <= _strength(self._stop):
            return
        self._stop = stop
        if stop.kind is StopKind.DISOWN:
            self.writes.abandon()
        if not self.started:
            self._helpers.append(asyncio.ensure_future(self._return_unstarted(stop)))
        elif self._scope is not None:
            self._interrupt(self._scope)
        elif self._running is not None:
            self._helpers.append(asyncio.ensure_future(self._running.cancel(stop.grace_s)))

    async def run(self, worker: WorkerInfo, residency: Residency) -> None:
        """Take the attempt through its steps. Never raises but for the cancellation of the daemon itself."""
        if self._stop is not None:
            return
        self.started = True
        warm = self._residence = residency.warm_for(self.order.task)
        if warm is not None:
            residency.use(warm, self.task_id, self.writes.line)  # before the first await: nobody may evict it
        try:
            await self._run(worker, residency, warm)
        finally:
            if warm is not None:
                residency.release(warm)
            if self._prepared is not None:
                self._prepared.release()
            if self._residence is not None and self._residence.instance is not None:
                self._residence.instance.tidy()  # after the ending: nobody waits for it

    async def _run(self, worker: WorkerInfo, residency: Residency, warm: Residence | None) -> None:
        ending: Outcome | str | None
        try:
            parked = self.order.task.setup_key in residency.bay
            prepared = self._prepared = (
                None if warm or parked else self._tools.machine.prepared(self.order.task)
            )
            await self._accept(_first(warm=bool(warm), parked=parked, prepared=bool(prepared)))
            ending = await self._steps(worker, residency, warm, prepared)
        except (StaleAttempt, ProtocolRefusal) as refusal:
            _log.warning(Event.ATTEMPT_STALE, **self._names, reason=refusal.message)
            return
        except Stopped:
            ending = self._ending_of_stop()
        except NoCapacity as full:  # nothing of the app was tried: no attempt is spent
            ending = self._ending_of_stop() if self._stop else full.message
        except Exception as error:  # noqa: BLE001 - the edge of a task: every failure becomes an outcome
            ending = self._ending_of_stop() if self._stop else self._ending_of_failure(error)
        await self._end(ending)

    async def _steps(
        self, worker: WorkerInfo, residency: Residency, warm: Residence | None, prepared: Prepared | None
    ) -> Outcome:
        task = self.order.task
        if warm is None and task.session_id and not task.opens_session:
            raise WorkerLost  # a new process would answer without the session's memory
        async with self._input() as given:
            residence = self._residence = warm or await self._load(worker, residency, prepared)
            try:
                value = await self._value(given)
                if warm is None:
                    self._enter(_S.RUNNING)
                async with self._turn(residence.instance):
                    result = await self._run_function(residency, residence, value)
                    output = await self._upload(result, residence.instance)
            finally:
                residency.release(residence)
        return Outcome(
            state=_S.COMPLETED,
            output=encode_output(output),
            output_meta=checked_meta(result.meta),
            load_s=self._load_s,
            run_s=self._run_s,
            vram_bytes=residence.peak_bytes,
        )

    @contextlib.asynccontextmanager
    async def _input(self) -> AsyncIterator[asyncio.Future[Any]]:
        """The input as a future; its files are fetched from here on, and removed at the end."""
        if not self.order.task.input_files:
            given: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            given.set_result(self.order.task.input)
            yield given
            return
        fetching = asyncio.ensure_future(self._tools.machine.fetch(self.order, self.writes.line))
        fetching.add_done_callback(self._on_fetched)
        try:
            yield fetching
        finally:
            fetching.cancel()
            await asyncio.wait({fetching})
            await self._tools.machine.discard(self.order)

    async def _value(self, given: asyncio.Future[Any]) -> Any:
        """The input, when its files are here."""
        if not given.done():
            async with self._stoppable():
                await asyncio.wait({given})
        return given.result()

    def _on_fetched(self, fetching: asyncio.Future[Any]) -> None:
        """End what goes on beside a fetch that failed: the load would be for nothing."""
        self._failure = None if fetching.cancelled() else fetching.exception()
        if self._failure is not None and self._scope is not None:
            self._interrupt(self._scope)

    async def _accept(self, first: TaskState) -> None:
        async with self._stoppable():
            await self.writes.accept(first)
        self._entered = first
        self._log_move(first)

    async def _load(self, worker: WorkerInfo, residency: Residency, prepared: Prepared | None) -> Residence:
        """Prepare, admit, start and set up, or admit and bring back what is parked, within one time limit."""
        limit_s = self.order.task.setup_timeout_s or self._tools.setup_timeout_s
        started = time.monotonic()
        work = BringUp(
            self.order,
            self._tools.machine,
            self.writes.line,
            enter=self._enter,
            on_wait=self._on_wait,
            blame=partial(self._blame, residency),
        )
        try:
            async with self._stoppable(limit_s):
                residence = await work.obtain(worker, residency, prepared, limit_s)
        except TimeoutError:
            raise LoadTimeout.after(limit_s) from None
        finally:
            self._load_s = time.monotonic() - started
            self._prepared = work.prepared
        if work.was_parked:
            await residency.brought_back(residence, self._load_s)
        else:
            await residency.loaded(residence, self._load_s)
        residency.use(residence, self.task_id, self.writes.line)
        return residence

    @contextlib.asynccontextmanager
    async def _turn(self, instance: RunningInstance | None) -> AsyncIterator[None]:
        """The run with its upload: until then its files may lie where other apps would put theirs."""
        async with contextlib.AsyncExitStack() as stack:
            if instance is not None:
                async with self._stoppable():
                    await stack.enter_async_context(self._tools.machine.turn(instance, self._on_wait))
                stack.callback(instance.remove_results)
            yield

    def _on_wait(self) -> None:
        self.writes.line(LogType.TASK, "Waiting for another app that uses the same folder /tmp.")

    async def _run_function(self, residency: Residency, residence: Residence, value: Any) -> RunResult:
        """Run the function; an instance that cannot be used again is discarded."""
        instance = residence.instance
        if instance is None or self._stop is not None:
            raise Stopped
        self._running = instance
        self.reached_function = True
        limit_s = self.order.task.run_timeout_s or self._tools.run_timeout_s
        started = time.monotonic()
        broken = True
        try:
            spec = self._tools.machine.run_spec(self.order, value)
            result = await instance.run(spec, self._on_partial, timeout_s=limit_s, on_delta=self._on_delta)
            broken = False
        except Exception as error:
            await self._blame(residency, residence, error)
            broken = instance_is_broken(error)
            raise
        finally:
            self._running = None
            self._run_s = time.monotonic() - started
            usable = all([await helper for helper in self._helpers])
            if broken or not usable:
                reason = self._stop.reason if self._stop else "its task left it unusable"
                residency.discard(residence, reason, at_once=True)
        if self._stop is not None:
            raise Stopped
        return result

    async def _blame(self, residency: Residency, residence: Residence, error: Exception) -> None:
        """Find out whether the GPUs are to blame for a failure of the app's process.

        Raises:
            DeviceLost, OutOfGpuMemory: they are.
        """
        if self._stop is not None or self.order.task.session_id:
            return
        if isinstance(error, (AppError, InstanceFailed, InstanceLost)):
            await residency.blame(residence, error)

    async def _upload(self, result: RunResult, instance: RunningInstance | None) -> object:
        """Store the files of the result, before the instance may go on: some apps delete them then."""
        if not result.files:
            return result.output
        self._enter(_S.UPLOADING)
        limit_s = self.order.task.upload_timeout_s or self._tools.upload_timeout_s
        try:
            async with self._stoppable(limit_s):
                return await self._tools.machine.upload(self.order, result, self.writes.line)
        except (OutputFileMissing, OutputFileUnreadable):
            if instance is not None and (lost := await _death_of(instance)):
                raise lost from None  # its /tmp went with it: not the app's mistake
            raise
        except TimeoutError:
            raise UploadTimeout(
                f"The files of the result were not stored within {limit_s:g} s ({limit_set_by('upload')})."
            ) from None

    async def _end(self, ending: Outcome | str | None) -> None:
        if ending is None:
            return
        if isinstance(ending, str):
            _log.info(Event.TASK_HANDED_BACK, **self._names, reason=ending)
            await self.writes.hand_back(ending)
            return
        await self.writes.finish(msgspec.structs.replace(ending, instance_ended=self._instance_ended()))
        _log.info(
            Event.TASK_FINISHED,
            **self._names,
            state=ending.state.wire_name,
            load_s=round(ending.load_s, 3),
            run_s=round(ending.run_s, 3),
            reason=ending.error,
        )

    def _instance_ended(self) -> bool:
        """Whether this attempt leaves no instance: none came up, or it ended with the attempt."""
        residence = self._residence
        if residence is None or residence.instance is None:
            return True
        return residence.state is ResidentState.STOPPING or residence.instance.exited.is_set()

    def _ending_of_stop(self) -> Outcome | str | None:
        """What a stopped attempt ends with: an outcome, the reason for returning it, or silence."""
        stop = self._stop
        if stop is None or stop.kind is StopKind.DISOWN:
            return None
        if stop.kind is StopKind.RETURN:
            return stop.reason
        return Outcome(
            state=_S.CANCELLED,
            output=msgspec.Raw(self._last_partial),
            load_s=self._load_s,
            run_s=self._run_s,
        )

    def _ending_of_failure(self, error: Exception) -> Outcome:
        outcome = failure_outcome(
            error,
            load_s=self._load_s,
            run_s=self._run_s,
            retry_app_errors=self.order.task.retry_app_errors,
        )
        if outcome.error_code == "internal_error":
            _log.error(Event.TASK_FAILED, **self._names, exc_info=error)
        return outcome

    async def _return_unstarted(self, stop: Stop) -> bool:
        # A task whose cancel was asked is ended by the same script that would queue it again.
        if stop.kind is not StopKind.DISOWN:
            await self.writes.hand_back(stop.reason)
        return True

    def _enter(self, state: TaskState) -> None:
        """Go on to a state. What is loaded because it did not come back from being parked stays where it was."""
        if state <= self._entered:
            return
        self._entered = state
        self.writes.move(state)
        self._log_move(state)

    def _on_partial(self, output: bytes) -> None:
        """Keep and write a partial output; one that is too large is left out, which the log says once."""
        refusal = partial_refusal(output)
        if refusal:
            if not self._partial_refused:
                self._partial_refused = True
                self.writes.line(LogType.TASK, refusal)
            return
        self._last_partial = output
        self.writes.partial(output)

    def _on_delta(self, _number: int, increment: bytes) -> None:
        self.writes.delta(increment)

    @contextlib.asynccontextmanager
    async def _stoppable(self, timeout_s: float | None = None) -> AsyncIterator[None]:
        """A stretch that `stop` ends at once.

        Raises:
            Stopped: `stop` was called, before or meanwhile.
            TimeoutError: `timeout_s` is over.
            InputFileFailed: a file of the input cannot be had.
        """
        if self._stop is not None:
            raise Stopped
        try:
            async with asyncio.timeout(timeout_s) as self._scope:
                yield
        except TimeoutError:
            if self._stop is not None:
                raise Stopped from None
            if self._failure is not None:
                raise self._failure from None
            raise
        finally:
            self._scope = None

    def _interrupt(self, scope: asyncio.Timeout) -> None:
        """End a stretch now, unless it ends already."""
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    def _log_move(self, state: TaskState) -> None:
        _log.debug(Event.TASK_MOVED, **self._names, state=state.wire_name)

    @property
    def _names(self) -> dict[str, object]:
        return {"task_id": self.task_id, "attempt": self.order.attempt, "worker": self.order.worker_id}


def _first(*, warm: bool, parked: bool, prepared: bool) -> TaskState:
    """The first state that is not skipped."""
    if warm:
        return _S.RUNNING
    return _S.SETTING_UP if parked else _S.SERVING if prepared else _S.PREPARING


async def _death_of(instance: RunningInstance) -> InstanceLost | None:
    """Why an instance has ended, if it has, or does at this moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEATH_WAIT_S):
            await instance.exited.wait()
    return instance.lost


def _strength(stop: Stop) -> tuple[int, float]:
    """Kinds are ordered; among equals a shorter grace is stronger."""
    return list(StopKind).index(stop.kind), -stop.grace_s
