"""An RQ worker as a process of its own: `python -m stoker_jobs.rq_worker QUEUE`.

It blocks, forks and takes signals, none of which agrees with an event loop. It and the process of each job
end with their parent.
"""

import os
import socket
import sys
import time
from datetime import UTC, datetime
from math import inf
from typing import Any, Final, cast

from redis import Redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.utils import utcformat, utcparse
from rq.worker import WorkerStatus
from rq.worker.base import BaseWorker

from stoker import log
from stoker.service import PARENT_VARIABLE, die_with_parent
from stoker.settings import JobsSettings, load
from stoker_jobs.queue import CALL_TIMEOUT_S, Names, connect

DEQUEUE_S: Final = 2
"""How long one wait for a job may take. RQ's own is 405 s, and as long it would trust a dead connection."""
MAINTENANCE_S: Final = 60
"""Between two looks for what a worker that was killed had taken; RQ's own is ten minutes."""
TELL_S: Final = 1.0
"""Between two signs of life of a worker that takes steps, and between two looks at whether it is suspended."""


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


class _Waiting(Queue):
    """RQ's queue, which tells whether its worker waits for a job just now."""

    waits = False

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> Any:
        """Take a job's id, or wait for one."""
        cls.waits = timeout is not None
        try:
            return super().lmove(connection, queue_key, timeout)
        finally:
            cls.waits = False


class _Bounded(BaseWorker):
    """What both workers have: they are back soon after an outage, and a job that one took is done before it stops.

    RQ breaks off whatever a worker does that is not busy, also between taking a job's id and noting its beginning, and
    such a job would lie about until the maintenance finds it.
    """

    queue_class = _Waiting
    max_connection_wait_time = 0.5

    def _shutdown(self) -> None:
        """End at once when there is no job, else after it."""
        if _Waiting.waits:
            raise StopRequested
        self._stop_requested = True
        if self.get_state() == WorkerStatus.BUSY:
            own: Any = super()  # not typed
            own._shutdown()  # noqa: SLF001

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """What RQ asks before it waits for a job each time."""
        if self._stop_requested and self.get_state() != WorkerStatus.BUSY:
            raise StopRequested
        return bool(super().should_run_maintenance_tasks)

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
    """RQ's worker that does not fork: a step is shorter than a fork.

    Around each job RQ says four times that the worker lives, twice that it is idle, once that the job did live, asks whether
    it is suspended, looks for dependents, and writes beginning and end in two transactions each: nineteen round trips, each
    longer than a step's own. Here they are four: the job's id, the job, its beginning, its end. That the worker lives is
    told, and whether it is suspended asked, once in `TELL_S`. Failures, and results that are not None, are left to RQ's
    own code. `tests/unit/jobs/test_rq_worker.py` compares what is written with what RQ itself writes: it
    differs by the result alone.

    Nothing may depend on a job that this worker takes: RQ would begin it now, and this worker does not look.
    """

    _told_s = _asked_s = -inf
    _told_state = ""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Tell that the worker lives; on the way of other commands always, by itself once in `TELL_S`."""
        if pipeline is not None or time.monotonic() - self._told_s >= TELL_S:
            super().heartbeat(timeout, pipeline)
            self._told_s = time.monotonic()

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Tell what the worker does, when that is new."""
        if pipeline is not None or state != self._told_state:
            super().set_state(state, pipeline)
        self._state = self._told_state = state

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while `rq suspend` says so."""
        if time.monotonic() - self._asked_s >= TELL_S:
            super().check_for_suspension(burst)
            self._asked_s = time.monotonic()

    def prepare_execution(self, job: Job) -> Execution:
        """Note that a job begins: all that RQ notes, in one transaction. That the worker lives was told just before."""
        with self.connection.pipeline() as pipeline:
            execution = Execution.create(
                job, self.get_heartbeat_ttl(job), pipeline=pipeline, worker_name=self.name
            )
            self.executions[execution.id] = execution
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            job.prepare_for_execution(self.name, pipeline=pipeline)
            pipeline.persist(job.key)
            pipeline.lrem(self.queues[0].intermediate_queue_key, 1, job.id)
            pipeline.execute()
        return execution

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Nothing: the worker and what executes the job are one, and `prepare_execution` has noted all."""

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: StartedJobRegistry, execution: Execution
    ) -> None:
        """Note that a job is done, in one transaction: its end and how long it is known, and that the worker is idle."""
        known_s = job.get_result_ttl(self.default_result_ttl)
        has_result = job._result is not None  # noqa: SLF001 - `return_value` reads what is stored, and nothing is yet
        is_plain = not (has_result or job.repeats_left or job.has_rate_limit) and known_s > 0
        if not is_plain or job.started_at is None or job.ended_at is None:
            super().handle_job_success(job, queue, started_job_registry, execution)
            return
        with self.connection.pipeline() as pipeline:
            job.set_status(JobStatus.FINISHED, pipeline=pipeline)
            pipeline.hset(job.key, "ended_at", utcformat(job.ended_at))
            pipeline.expire(job.key, known_s)
            job.finished_job_registry.add(job, known_s, pipeline)
            self.cleanup_execution(job, pipeline=pipeline, execution=execution)
            self.increment_successful_job_count(pipeline=pipeline)
            self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            pipeline.hset(self.key, "state", WorkerStatus.IDLE.value)
            pipeline.execute()
        # Told, and not yet so: SIGTERM breaks into an idle worker, and here that would count as the job's failure.
        self._told_state = WorkerStatus.IDLE

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:  # noqa: ARG002 - RQ's
        """Note the job's end, which is written with its outcome at once."""
        job.ended_at = datetime.now(UTC)


def main(name: str) -> None:
    """Work on a queue of this pool until SIGTERM; a job that runs is finished first."""
    if parent := int(os.environ.get(PARENT_VARIABLE) or 0):
        die_with_parent(parent)
    settings = load(JobsSettings)
    log.configure("jobs", json=settings.log_json, level=settings.log_level)
    kind = StepWorker if name == Names(settings.pool).steps else JobWorker
    worker = kind(
        [name],
        name=worker_name(os.getpid()),
        connection=connect(settings.jobs_url),
        maintenance_interval=MAINTENANCE_S,
    )
    worker.work(logging_level="WARNING")


if __name__ == "__main__":
    main(sys.argv[1])
