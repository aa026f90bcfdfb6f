"""Instances that are loaded for tasks to come: the orders that an engine has, and one load as a list of named steps.

    prepare > admit > start > set up

What is parked comes back instead (`bring_up.py`). A load waits in its slot's queue like an attempt, so that one thing at
a time happens there. Nothing is written to Redis: what became of an order is in the engine's reports, which whoever
leads compares with what is wanted.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from stoker.core.errors import NoCapacity
from stoker.core.events import Event
from stoker.core.loads import ENDED_KEPT, LoadReport, LoadState
from stoker.core.messages import Assignment, LoadOrder, LogType, TaskId, WorkerInfo
from stoker.core.states import TaskState
from stoker.log import get_logger
from stoker_worker.bring_up import BringUp
from stoker_worker.execution import Tools
from stoker_worker.instance_errors import AppError, InstanceFailed, InstanceLost
from stoker_worker.outcomes import LoadTimeout, failure_outcome
from stoker_worker.residence import Residence
from stoker_worker.residency import Residency

MAX_ERROR_CHARS: Final = 500
"""Of a failure in a report, which goes to Redis with every change of the engine."""
LINES_KEPT: Final = 20
"""Of what the build and the app print: no task's log has it, so the daemon's has the end of it when the load fails."""

_log = get_logger("loading")


class Job(Protocol):
    """What waits in a slot's queue: an attempt, or a load."""

    async def run(self, worker: WorkerInfo, residency: Residency) -> None: ...


class Load:
    """One order: waits in a slot's queue, then `run` brings the instance up once."""

    def __init__(self, order: LoadOrder, tools: Tools, on_change: Callable[[], None]) -> None:
        self.order = order
        self.state = LoadState.WAITING
        self._tools = tools
        self._on_change = on_change
        self._assignment = Assignment(
            task=order.task, attempt=0, token=order.token, worker_id=order.worker_id, evict=order.evict
        )
        self._scope: asyncio.Timeout | None = None
        self._stopped = ""
        self._error = ""
        self._hindered = False
        self._load_s = 0.0
        self._unparked = False
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)

    def report(self) -> LoadReport:
        """What is told of it."""
        return LoadReport(
            id=self.order.task.id,
            worker_id=self.order.worker_id,
            setup_key=self.order.task.setup_key,
            app=self.order.task.app,
            state=self.state,
            load_s=self._load_s,
            unparked=self._unparked,
            error=self._error,
            hindered=self._hindered,
        )

    def stop(self, reason: str) -> None:
        """This machine cannot go on with it; nothing half loaded is left."""
        self._stopped = self._stopped or reason
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())
        elif self.state is LoadState.WAITING:
            self._fail(reason, hindered=True)

    async def run(self, worker: WorkerInfo, residency: Residency) -> None:
        """Take the load through its steps. Never raises but for the cancellation of the daemon itself."""
        if self.state is not LoadState.WAITING:
            return
        self._enter(LoadState.LOADING)
        limit_s = self.order.task.setup_timeout_s or self._tools.setup_timeout_s
        try:
            async with asyncio.timeout(limit_s) as self._scope:
                await self._steps(worker, residency, limit_s)
        except TimeoutError:
            self._fail(self._stopped or LoadTimeout.after(limit_s).message, hindered=bool(self._stopped))
        except NoCapacity as full:
            self._fail(full.message, hindered=True)
        except Exception as error:  # noqa: BLE001 - the edge of a load: every failure is told
            self._fail(self._text_of(error))
        else:
            self._enter(LoadState.LOADED)
        finally:
            self._scope = None

    async def _steps(self, worker: WorkerInfo, residency: Residency, limit_s: float) -> None:
        task = self.order.task
        if residency.warm(task.setup_key) is not None:
            return
        work = BringUp(
            self._assignment,
            self._tools.machine,
            self._on_line,
            enter=_pass,
            on_wait=_wait,
            blame=partial(_blame, residency),
        )
        prepared = None if task.setup_key in residency.bay else self._tools.machine.prepared(task)
        try:
            residence = await work.obtain(worker, residency, prepared, limit_s)
            self._load_s, self._unparked = work.took_s, work.was_parked
            await (residency.brought_back if work.was_parked else residency.loaded)(residence, work.took_s)
            residence.on_line = None
        finally:
            if work.prepared is not None:
                work.prepared.release()

    def _text_of(self, error: Exception) -> str:
        outcome = failure_outcome(error, load_s=0.0, run_s=0.0, retry_app_errors=False)
        if outcome.error_code == "internal_error":
            _log.error(Event.LOAD_FAILED, **self._names, exc_info=error)
        return outcome.error

    def _fail(self, error: str, *, hindered: bool = False) -> None:
        self._error, self._hindered = error[:MAX_ERROR_CHARS], hindered
        self._enter(LoadState.FAILED)
        _log.warning(Event.LOAD_FAILED, **self._names, reason=self._error, printed="\n".join(self._lines))

    def _on_line(self, _kind: LogType, text: str) -> None:
        self._lines.append(text)

    def _enter(self, state: LoadState) -> None:
        self.state = state
        self._on_change()

    @property
    def _names(self) -> dict[str, object]:
        task = self.order.task
        return {
            "load_id": task.id,
            "worker": self.order.worker_id,
            "app": task.app,
            "setup_key": task.setup_key,
        }


class Loads:
    """The orders to load of one engine: those in hand, and the last that ended."""

    def __init__(self, tools: Tools, on_change: Callable[[], None]) -> None:
        self._tools = tools
        self._on_change = on_change
        self._held: dict[TaskId, Load] = {}
        self._ended: deque[LoadReport] = deque(maxlen=ENDED_KEPT)
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, order: LoadOrder) -> Load | None:
        """A new order; None when it is known already."""
        if order.task.id in self._held or any(ended.id == order.task.id for ended in self._ended):
            return None
        load = self._held[order.task.id] = Load(order, self._tools, self._changed)
        self._idle.clear()
        return load

    def reports(self) -> tuple[LoadReport, ...]:
        """What is told of them."""
        return (*self._ended, *(load.report() for load in self._held.values()))

    async def empty(self) -> None:
        """Return when none is in hand."""
        await self._idle.wait()

    def stop(self, reason: str, worker_id: str = "") -> None:
        """Stop those in hand, on one worker or on all."""
        for load in list(self._held.values()):
            if not worker_id or load.order.worker_id == worker_id:
                load.stop(reason)

    def _changed(self) -> None:
        for load_id, load in list(self._held.items()):
            if load.report().ended:
                self._ended.append(self._held.pop(load_id).report())
        if not self._held:
            self._idle.set()
        self._on_change()


def _wait() -> None:
    """No task is told that another app uses the same folder."""


def _pass(_state: TaskState) -> None:
    """No task moves."""


async def _blame(residency: Residency, residence: Residence, error: Exception) -> None:
    if isinstance(error, (AppError, InstanceFailed, InstanceLost)):
        await residency.blame(residence, error)
