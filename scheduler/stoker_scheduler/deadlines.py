"""Times at which something must have happened. A heap without deletions: what is over is skipped."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from stoker.core.messages import TaskId, TaskRequest, TaskSpec, TaskView
from stoker.core.states import TaskState
from stoker_scheduler.actions import Reason
from stoker_scheduler.queues import Queues, queued_since_ms
from stoker_scheduler.reasons import sentence, span

COMPACT_AT: Final = 10_000
"""Entries of tasks that have left the queue: a day of them would fill the memory."""
GRACE_S: Final = 120.0
"""What cancelling, uploading and reporting may take on top of a task's own limits."""
SETUP_S: Final = 3_600.0
"""The engine's default for preparing and setting up."""
UPLOAD_S: Final = 3_600.0
"""The engine's default for storing the files of a result."""
ACCEPT_S: Final = 60.0
"""An engine confirms an assignment at once, unless it must stop an instance first; that is bounded by 30 s."""

_LOADING: Final = frozenset({TaskState.PREPARING, TaskState.SERVING, TaskState.SETTING_UP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long tasks may wait that do not say it themselves, and how long an engine may have one.

    `queue_timeout_s` is the whole time in the queue. `no_match_timeout_s` is the time during which no worker is
    known, online or not, that could run the task. `hold_timeout_s` is the longest time on an engine; a task with
    a run timeout of its own may be held longer, if all its parts together may take longer. `engine_forget_s` is
    how long an engine that is away is known.
    """

    queue_timeout_s: float = 86_400
    no_match_timeout_s: float = 600
    hold_timeout_s: float = 86_400
    grace_s: float = GRACE_S
    engine_forget_s: float = 604_800

    def queue_s(self, spec: TaskSpec) -> float:
        return spec.queue_timeout_s or self.queue_timeout_s

    def queue_deadline_ms(self, spec: TaskSpec) -> int:
        """Until when a task must have been started."""
        return queued_since_ms(spec) + int(self.queue_s(spec) * 1000)

    def no_match_s(self, spec: TaskSpec) -> float:
        return spec.no_match_timeout_s or self.no_match_timeout_s

    def hold_s(self, request: TaskRequest, fetch_timeout_s: float) -> float:
        """How long an engine with this bound of a fetch may have a task."""
        if not request.run_timeout_s:
            return self.hold_timeout_s
        fetch_s = fetch_timeout_s if request.input_files else 0
        load_s, store_s = request.setup_timeout_s or SETUP_S, request.upload_timeout_s or UPLOAD_S
        parts_s = fetch_s + load_s + request.run_timeout_s + store_s + self.grace_s
        return max(self.hold_timeout_s, parts_s)  # an engine's own settings may be longer than the defaults


class Deadline(NamedTuple):
    """When a part of an attempt must be over, and what its end is called then."""

    at_ms: int
    code: str
    text: str


def deadline_of(view: TaskView, limits: Limits, fetch_timeout_s: float) -> Deadline | None:
    """Until when the worker itself must have ended what it does; None where the task says nothing about it.

    Workers keep these times themselves. This is for one that lives, and does not. `fetch_timeout_s` is its own.
    """
    request = view.request
    fetch_s = (
        fetch_timeout_s if request.input_files else 0
    )  # for the end of which both loading and running wait
    told = [(state, at_ms) for attempt, state, at_ms in view.history if attempt == view.attempt]
    if view.state in _LOADING:
        since = next((at_ms for state, at_ms in told if state in _LOADING), 0)
        return _deadline(
            since, request.setup_timeout_s, fetch_s, limits, view, "setup_timeout", "was not set up"
        )
    since = next((at_ms for state, at_ms in reversed(told) if state == view.state), 0)
    if view.state is TaskState.RUNNING:
        return _deadline(since, request.run_timeout_s, fetch_s, limits, view, "run_timeout", "did not end")
    if view.state is TaskState.UPLOADING:
        text = "did not store the files of its result"
        return _deadline(since, request.upload_timeout_s, 0, limits, view, "upload_timeout", text)
    return None


def _deadline(
    since_ms: int, limit_s: float, more_s: float, limits: Limits, view: TaskView, code: str, what: str
) -> Deadline | None:
    if not limit_s or not since_ms:
        return None
    grace_s = more_s + limits.grace_s
    text = (
        f"The task {what} within {limit_s:g} s, and {view.worker_id} did not end it {span(grace_s)} later. "
        "The scheduler ended it; look at that worker (stoker workers list)."
    )
    return Deadline(since_ms + int((limit_s + grace_s) * 1000), code, text)


def stuck_text(now_ms: int, view: TaskView, limits: Limits, fetch_timeout_s: float) -> str:
    """Why a task without a deadline in its present state is taken from a worker that lives; '' = it is not."""
    had_s = (now_ms - view.history[-1][2]) / 1000 if view.history else 0.0
    if view.state is TaskState.SCHEDULED and had_s > ACCEPT_S:
        return f"{view.worker_id} did not start it within {had_s:.0f} s"
    assigned = [at_ms for attempt, _, at_ms in view.history if attempt == view.attempt]
    held_s = (now_ms - assigned[0]) / 1000 if assigned else 0.0
    limit_s = limits.hold_s(view.request, fetch_timeout_s)
    return f"{view.worker_id} held it for more than {limit_s:.0f} s" if held_s > limit_s else ""


class Deadlines:
    """Queue deadlines of waiting tasks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._heap: list[tuple[int, TaskId]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, spec: TaskSpec) -> None:
        """Watch a task while it waits; one that was queued again may be there twice, the first time too early."""
        heappush(self._heap, (self.limits.queue_deadline_ms(spec), spec.id))

    def compact(self, queues: Queues) -> None:
        """Forget tasks that do not wait any more, once most entries are of that kind."""
        if len(self._heap) > 2 * len(queues) + COMPACT_AT:
            self._heap = [entry for entry in self._heap if entry[1] in queues]
            heapify(self._heap)

    def due(self, now_ms: int) -> list[TaskId]:
        """Tasks whose time in the queue is over, waiting or not; each is told once."""
        found = []
        while self._heap and self._heap[0][0] <= now_ms:
            found.append(heappop(self._heap)[1])
        return found


def overdue_unmatched(now_ms: int, queues: Queues, limits: Limits) -> list[TaskId]:
    """Tasks for which no worker was known for longer than their no-match timeout."""
    found: list[TaskId] = []
    for group in queues.unmatched():
        for alike in group.by_no_match.values():
            for spec in alike.values():
                since_ms = max(group.unmatched_ms, queued_since_ms(spec))
                if now_ms - since_ms <= limits.no_match_s(spec) * 1000:
                    break  # those behind have the same timeout and are younger
                found.append(spec.id)
    return found


def queue_timeout_text(waited_s: float, reason: Reason | None) -> str:
    """The error of a task that waited too long."""
    last = f" Last reason: {sentence(reason)}." if reason is not None else ""
    return f"The task waited {span(waited_s)} in the queue and was not started.{last}"


def no_match_text(waited_s: float, reason: Reason | None) -> str:
    """The error of a task that no worker could run."""
    why = sentence(reason) if reason is not None else "no worker matches"
    return f"No worker could run this task within {span(waited_s)}: {why}."
