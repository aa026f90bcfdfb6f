"""Times at which something must have happened. A heap without deletions: what is over is skipped."""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from stoker.core.messages import TaskId, TaskRequest, TaskSpec
from stoker_scheduler.actions import Reason
from stoker_scheduler.queues import Queues
from stoker_scheduler.reasons import sentence, span

COMPACT_AT: Final = 10_000
"""Entries of tasks that have left the queue: a day of them would fill the memory."""
GRACE_S: Final = 120.0
"""What cancelling, uploading and reporting may take on top of a task's own limits."""
SETUP_S: Final = 3_600.0
"""The engine's default for preparing and setting up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long tasks may wait that do not say it themselves, and how long an engine may have one.

    `queue_timeout_s` is the whole time in the queue. `no_match_timeout_s` is the time during which no worker is
    known, online or not, that could run the task. `hold_timeout_s` is the longest time on an engine; a task with
    a run timeout of its own may be held for that, plus its setup timeout, plus `GRACE_S`.
    """

    queue_timeout_s: float = 86_400
    no_match_timeout_s: float = 600
    hold_timeout_s: float = 86_400

    def queue_s(self, spec: TaskSpec) -> float:
        return spec.queue_timeout_s or self.queue_timeout_s

    def no_match_s(self, spec: TaskSpec) -> float:
        return spec.no_match_timeout_s or self.no_match_timeout_s

    def hold_s(self, request: TaskRequest) -> float:
        if not request.run_timeout_s:
            return self.hold_timeout_s
        return request.run_timeout_s + (request.setup_timeout_s or SETUP_S) + GRACE_S


class Deadlines:
    """Queue deadlines of waiting tasks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._heap: list[tuple[int, TaskId]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, spec: TaskSpec) -> None:
        """Watch a task from its creation on; a task that was requeued may be there twice."""
        heappush(self._heap, (spec.created_ms + int(self.limits.queue_s(spec) * 1000), spec.id))

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
        for spec in group.tasks.values():
            since_ms = max(group.unmatched_ms, spec.created_ms)
            if now_ms - since_ms <= limits.no_match_s(spec) * 1000:
                break  # those behind are younger
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
