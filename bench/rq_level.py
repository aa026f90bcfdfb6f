"""RQ on the same server: what its SimpleWorker and its forking worker do with jobs that do nothing."""

import subprocess
import sys
import time
from pathlib import Path

from http_load import Latencies
from redis import Redis
from rq import Queue

HERE = Path(__file__).parent
_WORKER = """
import sys; sys.path.insert(0, sys.argv[3])
from redis import Redis
from rq import Queue, SimpleWorker, Worker
redis = Redis.from_url(sys.argv[1])
kind = {"simple": SimpleWorker, "fork": Worker}[sys.argv[2]]
kind([Queue("bench", connection=redis)], connection=redis).work(logging_level="WARNING")
"""


def noop() -> float:
    """A job that says when it began."""
    return time.time()


def measure(url: str, kind: str, rate: float, count: int, burst: int) -> dict[str, float]:
    """Latency at a rate, and jobs a second of a backlog, with one worker of a kind."""
    queue = Queue("bench", connection=Redis.from_url(url))
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, url, kind, str(HERE)])
    try:
        _wait([queue.enqueue("rq_level.noop")])
        found, begun, jobs = Latencies(), time.time(), []
        for number in range(count):
            due = begun + number / rate
            time.sleep(max(0.0, due - time.time()))
            jobs.append((due, queue.enqueue("rq_level.noop", result_ttl=600)))
        _wait([job for _, job in jobs])
        for due, job in jobs:
            found.start.append((job.return_value(refresh=True) - due) * 1000)
            found.result.append((job.ended_at.timestamp() - due) * 1000)
        backlog = [queue.enqueue("rq_level.noop", result_ttl=600) for _ in range(burst)]
        _wait(backlog)
        ends = sorted(job.ended_at.timestamp() for job in backlog)
        half = len(ends) // 2  # the second half: nothing is being enqueued any more
        return found.summary() | {"per_s": round((len(ends) - half - 1) / (ends[-1] - ends[half]), 1)}
    finally:
        worker.terminate()
        worker.wait(20)
        queue.empty()


def _wait(jobs: list, timeout_s: float = 60) -> None:
    deadline = time.time() + timeout_s
    for job in jobs:
        while job.get_status(refresh=True) != "finished":
            if time.time() > deadline:
                raise TimeoutError(f"job {job.id} is {job.get_status()}")
            time.sleep(0.002)
        job.refresh()
