"""Times at which something must have happened. A heap without deletions: what is over is skipped."""

from heapq import heapify, heappop, heappush
from typing import Final

from stoker.core.messages import TaskId, TaskSpec
from stoker_scheduler.actions import Reason
from stoker_scheduler.queues import Queues
from stoker_scheduler.reasons import sentence, span

COMPACT_AT: Final = 10_000
"""Entries of tasks that have left the queue: a day of them would fill the memory."""


class Deadlines:
    """Queue deadlines of waiting tasks."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, TaskId]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, spec: TaskSpec) -> None:
        """Watch a task from its creation on; a task that was requeued may be there twice."""
        heappush(self._heap, (spec.created_ms + int(spec.queue_timeout_s * 1000), spec.id))

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


def overdue_unmatched(now_ms: int, queues: Queues) -> list[TaskId]:
    """Tasks for which no worker existed for longer than their no-match timeout."""
    found: list[TaskId] = []
    for group in queues.unmatched():
        for spec in group.tasks.values():
            since_ms = max(group.unmatched_ms, spec.created_ms)
            if now_ms - since_ms <= spec.no_match_timeout_s * 1000:
                break  # those behind are younger
            found.append(spec.id)
    return found


def queue_timeout_text(spec: TaskSpec, reason: Reason | None) -> str:
    """The error of a task that waited too long."""
    last = f" Last reason: {sentence(reason)}." if reason is not None else ""
    return f"The task waited {span(spec.queue_timeout_s)} in the queue and was not started.{last}"


def no_match_text(spec: TaskSpec, reason: Reason | None) -> str:
    """The error of a task that no worker could run."""
    why = sentence(reason) if reason is not None else "no worker matches"
    return f"No worker could run this task within {span(spec.no_match_timeout_s)}: {why}."
