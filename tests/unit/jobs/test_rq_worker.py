"""RQ's worker that takes steps: what it tells RQ, and that it tells it seldom."""

import fakeredis
import pytest
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.suspension import suspend

from stoker_jobs.relay import KEEP_S, Planned, hand_on
from stoker_jobs.rq_worker import StepWorker


class Unattended(StepWorker):
    """Leaves the signals of the tests' process alone."""

    def _install_signal_handlers(self):
        pass


@pytest.fixture
def queue():
    return Queue("steps", connection=fakeredis.FakeRedis(lua_modules=set()))


@pytest.fixture
def told(monkeypatch):
    """Each time that RQ's own code wrote a sign of life."""
    signs = []
    own = Worker.heartbeat
    monkeypatch.setattr(Worker, "heartbeat", lambda self, *args: (signs.append(args), own(self, *args)))
    return signs


def work(queue):
    worker = Unattended([queue], name="w", connection=queue.connection)
    worker.work(burst=True, logging_level="ERROR")
    return worker


def planned(identity, function=len, **changes):
    said = {"arguments": ("abc",), "pauses_s": (0,), "keep_s": 60}
    return Planned(id=identity, function=function, **(said | changes))


def test_steps_are_taken_in_their_order_and_their_results_are_kept(queue):
    hand_on(queue, [planned(f"s{n}", arguments=("x" * n,)) for n in range(20)])
    work(queue)
    jobs = [Job.fetch(f"s{n}", connection=queue.connection) for n in range(20)]
    assert [job.return_value() for job in jobs] == list(range(20))
    assert all(job.get_status() is JobStatus.FINISHED and job.ended_at for job in jobs)
    ends = [job.ended_at for job in jobs]
    assert ends == sorted(ends)


def test_a_worker_of_many_steps_says_that_it_lives_no_more_than_once_a_step(queue, told):
    hand_on(queue, [planned(f"s{n}") for n in range(50)])
    work(queue)
    alone = [sign for sign in told if len(sign) < 2 or sign[1] is None]
    assert len(told) <= 50 + 5
    assert len(alone) <= 5


def test_a_step_that_raises_is_kept_as_failed_for_people(queue):
    hand_on(queue, [planned("bad", function=ord)])
    work(queue)
    job = Job.fetch("bad", connection=queue.connection)
    assert job.get_status() is JobStatus.FAILED
    assert "expected a character" in job.latest_result().exc_string
    assert 0 < queue.connection.ttl(Job.key_for("bad")) <= KEEP_S


def test_a_repeat_is_none_while_the_first_is_remembered_and_a_job_once_it_is_forgotten(queue):
    for _ in range(2):
        hand_on(queue, [planned("bad", function=ord), planned("good")])
    assert queue.count == 2
    work(queue)
    hand_on(queue, [planned("bad", function=ord), planned("good")])
    assert queue.count == 0
    queue.connection.delete(Job.key_for("bad"))  # as its end does
    hand_on(queue, [planned("bad", function=ord), planned("good")])
    assert queue.job_ids == ["bad"]


def test_a_worker_that_is_suspended_takes_no_step(queue):
    suspend(queue.connection)
    hand_on(queue, [planned("s")])
    work(queue)
    assert queue.count == 1
