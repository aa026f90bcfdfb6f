"""The RQ worker as a process of its own: `python -m stoker_jobs.rq_worker`.

It blocks, forks and takes signals, none of which agrees with an event loop. It and the process of each job
end with their parent.
"""

import os
from typing import Any

from rq import Queue, Worker

from stoker import log
from stoker.service import PARENT_VARIABLE, die_with_parent
from stoker.settings import JobsSettings, load
from stoker_jobs.queue import open_queue


class JobWorker(Worker):
    """RQ's forking worker, whose job processes do not outlive it."""

    def main_work_horse(self, job: Any, queue: Queue) -> None:
        """Run one job in the forked process."""
        die_with_parent(self.pid or os.getppid())
        super().main_work_horse(job, queue)


def main() -> None:
    """Work until SIGTERM; a job that runs is finished first."""
    if parent := int(os.environ.get(PARENT_VARIABLE) or 0):
        die_with_parent(parent)
    settings = load(JobsSettings)
    log.configure("jobs", json=settings.log_json, level=settings.log_level)
    queue = open_queue(settings.jobs_url)
    JobWorker([queue], connection=queue.connection).work(logging_level="WARNING")


if __name__ == "__main__":
    main()
