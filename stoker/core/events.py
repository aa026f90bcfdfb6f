"""Names of log events: `thing.happened`. Values go into fields, never into the name."""

from enum import StrEnum


class Event(StrEnum):
    """Every event that a part may log."""

    TASK_SUBMITTED = "task.submitted"
    TASK_ASSIGNED = "task.assigned"
    TASK_MOVED = "task.moved"
    TASK_FINISHED = "task.finished"
    TASK_REQUEUED = "task.requeued"
    TASK_FAILED = "task.failed"
    ATTEMPT_STALE = "attempt.stale"
    PART_STARTED = "part.started"
    PART_STOPPING = "part.stopping"
    PART_STOPPED = "part.stopped"
    PART_DIED = "part.died"
    PART_FAILED = "part.failed"
    JOBS_DELAYED = "jobs.delayed"
    RETENTION_SWEPT = "retention.swept"
