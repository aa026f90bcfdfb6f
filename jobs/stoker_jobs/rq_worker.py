"""An RQ worker as a process of its own: `python -m stoker_jobs.rq_worker QUEUE`.

It blocks, forks and takes signals, none of which agrees with an event loop. It and the process of each job
end with their parent.
"""

import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any, Final, cast

from redis import Redis
from rq import Queue, SimpleWorker, Worker
from rq.utils import utcparse

from stoker import log
from stoker.service import PARENT_VARIABLE, die_with_parent
from stoker.settings import JobsSettings, load
from stoker_jobs.queue import CALL_TIMEOUT_S, QUEUE_NAME, STEP_QUEUE_NAME, open_queue

DEQUEUE_S: Final = 2
"""How long one wait for a job may take. RQ's own is 405 s, and as long it would trust a dead connection."""


def worker_name(pid: int) -> str:
    """What RQ calls the worker of a process; its record tells when it was last heard."""
    return f"stoker-{socket.gethostname()}-{pid}"


def silent_worker_s(connection: Redis, pid: int) -> float | None:
    """Seconds since the RQ worker of a process was heard, or None when it is not known yet. Both are of one machine."""
    key = f"{Worker.redis_worker_namespace_prefix}{worker_name(pid)}"
    heard = cast("bytes | None", connection.hget(key, "last_heartbeat"))
    if heard is None:
        return None
    return max(0.0, (datetime.now(UTC) - utcparse(heard.decode())).total_seconds())


class _Bounded:
    """What both workers have: they are back soon after an outage."""

    max_connection_wait_time = 0.5

    @property
    def dequeue_timeout(self) -> int:
        """Seconds."""
        return DEQUEUE_S

    @property
    def connection_timeout(self) -> int:
        """Seconds that any call may take."""
        return round(CALL_TIMEOUT_S)


class JobWorker(_Bounded, Worker):
    """RQ's forking worker, whose job processes do not outlive it."""

    def main_work_horse(self, job: Any, queue: Queue) -> None:
        """Run one job in the forked process."""
        die_with_parent(self.pid or os.getppid())
        super().main_work_horse(job, queue)


class StepWorker(_Bounded, SimpleWorker):
    """RQ's worker that does not fork: a step is shorter than a fork."""


def main(name: str) -> None:
    """Work until SIGTERM; a job that runs is finished first."""
    if parent := int(os.environ.get(PARENT_VARIABLE) or 0):
        die_with_parent(parent)
    settings = load(JobsSettings)
    log.configure("jobs", json=settings.log_json, level=settings.log_level)
    queue = open_queue(settings.jobs_url, name)
    kind = StepWorker if name == STEP_QUEUE_NAME else JobWorker
    worker = kind([queue], name=worker_name(os.getpid()), connection=queue.connection)
    worker.work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else QUEUE_NAME)
