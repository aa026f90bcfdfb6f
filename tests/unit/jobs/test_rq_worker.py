"""RQ's worker that takes steps: what it tells RQ, and that it tells it seldom."""

import re
from math import inf

import fakeredis
import pytest
from rq import Queue, SimpleWorker
from rq.job import Job, JobStatus
from rq.suspension import suspend
from rq.utils import now
from rq.worker.base import BaseWorker

from stoker_jobs import rq_worker
from stoker_jobs.relay import KEEP_S, Planned, hand_on
from stoker_jobs.rq_worker import JobWorker, StepWorker


class Unattended(StepWorker):
    """Leaves the signals of the tests' process alone."""

    def _install_signal_handlers(self):
        pass


class OfRq(SimpleWorker):
    """RQ's own, likewise."""

    _install_signal_handlers = Unattended._install_signal_handlers


def new_queue():
    connection = fakeredis.FakeRedis(lua_modules=set())
    setattr(
        connection, "__rq_redis_server_version", (7, 2, 0)
    )  # where RQ notes it; fakeredis has no INFO to ask
    return Queue("steps", connection=connection)


@pytest.fixture
def queue():
    return new_queue()


@pytest.fixture
def told(monkeypatch):
    """Each time that RQ's own code wrote a sign of life."""
    signs = []
    own = BaseWorker.heartbeat
    monkeypatch.setattr(BaseWorker, "heartbeat", lambda self, *args: (signs.append(args), own(self, *args)))
    return signs


@pytest.fixture
def nothing(monkeypatch):
    """Jobs do nothing and return None, as steps do; a function that is called instead may be given."""

    def do(instead=lambda: None):
        monkeypatch.setattr(Job, "perform", lambda _job: instead())

    do()
    return do


@pytest.fixture
def requests(queue, monkeypatch):
    """What is sent to Redis, each request the names of its commands."""
    connection, found = queue.connection, []
    send, pipeline = connection.execute_command, connection.pipeline

    def sent(*parts, **options):
        found.append((parts[0],))
        return send(*parts, **options)

    def piped(*args, **options):
        made = pipeline(*args, **options)
        execute, send_now = made.execute, made.immediate_execute_command

        def executed(*args, **options):
            found.append(tuple(command[0][0] for command in made.command_stack))
            return execute(*args, **options)

        def at_once(*parts, **options):
            found.append((parts[0],))
            return send_now(*parts, **options)

        made.execute, made.immediate_execute_command = executed, at_once
        return made

    monkeypatch.setattr(connection, "execute_command", sent)
    monkeypatch.setattr(connection, "pipeline", piped)
    return found


def records(connection):
    """All that RQ keeps: key -> its fields or members, the ids of executions as E and moments as T; and its time to live.

    Those of the worker live until it is silent for long, whatever it does.
    """

    def plain(value):
        text = re.sub(r"[0-9a-f]{32}", "E", value.decode())
        return re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z$|^\d+\.\d+(e-\d+)?$", "T", text)

    def held(key):
        match connection.type(key):
            case b"hash":
                return {
                    plain(name): plain(value)
                    for name, value in connection.hgetall(key).items()
                    if name != b"data"
                }
            case b"zset":
                return [plain(member) for member in connection.zrange(key, 0, -1)]
            case b"list":
                return [plain(member) for member in connection.lrange(key, 0, -1)]
            case b"set":
                return {plain(member) for member in connection.smembers(key)}
            case kind:
                return kind

    lives = {key: round(connection.ttl(key), -1) for key in connection.keys("*") if b"worker:" not in key}
    return {plain(key): (held(key), lives.get(key)) for key in connection.keys("*")}


def work(queue, kind=Unattended):
    worker = kind([queue.name], name="w", connection=queue.connection)
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


def test_a_worker_of_many_steps_says_that_it_lives_once_in_a_while(queue, told, monkeypatch):
    monkeypatch.setattr(rq_worker, "TELL_S", inf)
    hand_on(queue, [planned(f"s{n}") for n in range(50)])
    work(queue)
    assert 1 <= len(told) <= 3


def test_a_step_costs_four_round_trips(queue, requests, nothing, monkeypatch):
    """The id, the job, the beginning, the end: with the embedded server each that writes waits for the disk."""
    monkeypatch.setattr(rq_worker, "TELL_S", inf)
    each = []

    def note():
        each.append(tuple(requests))
        requests.clear()

    nothing(note)
    hand_on(queue, [planned(f"s{n}") for n in range(10)])
    work(queue)
    [(end, taken, read, begin)] = set(each[1:])
    assert (taken, read) == (("LMOVE",), ("HGETALL",))
    assert {"HINCRBY", "EXPIRE", "DEL"} <= set(end)
    assert {"ZADD", "PERSIST", "LREM"} <= set(begin)


@pytest.mark.parametrize("fails", [False, True])
def test_rq_is_told_what_its_own_worker_would_tell(nothing, fails):
    """Whatever reads it (`rq info`, dashboards, a repeat, the clean-up after a death) is to find the same.

    When this fails after an update of RQ: compare its `prepare_execution`, `prepare_job_execution` and
    `handle_job_success` with those of `StepWorker`.
    """
    found = []
    for kind in (OfRq, Unattended):
        queue = new_queue()
        hand_on(queue, [planned("s")])
        meanwhile = []

        def look(queue=queue, meanwhile=meanwhile):
            meanwhile.append(records(queue.connection))
            if fails:
                raise ValueError

        nothing(look)
        work(queue, kind)
        during = meanwhile[0]
        found.append((during, records(queue.connection)))
    (their_during, their_after), (our_during, our_after) = found
    assert our_during == their_during
    if not fails:
        assert their_after.pop("rq:results:s")[0] == b"stream"  # that it was None
    assert our_after == their_after


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


@pytest.mark.parametrize("where", ["cleanup_execution", "increment_total_working_time", "send_webhooks"])
def test_a_worker_that_is_asked_to_stop_while_a_job_ends_ends_it_and_takes_no_other(
    queue, nothing, monkeypatch, where
):
    """`send_webhooks` comes when the end is written."""
    owner = Job if where == "send_webhooks" else BaseWorker
    own, workers = getattr(owner, where), []

    def asked(*args, **named):
        workers[0]._shutdown_requested_date = now()
        workers[0]._shutdown()
        return own(*args, **named)

    monkeypatch.setattr(owner, where, asked)
    hand_on(queue, [planned("first"), planned("second")])
    workers.append(Unattended([queue.name], name="w", connection=queue.connection))
    workers[0].work(burst=True, logging_level="ERROR")
    assert Job.fetch("first", connection=queue.connection).get_status() is JobStatus.FINISHED
    assert queue.job_ids == ["second"]


def test_a_worker_that_is_asked_to_stop_when_it_has_just_taken_a_job_does_it_and_takes_no_other(
    queue, monkeypatch
):
    """RQ breaks off there, and the job lies about until the maintenance finds it."""
    worker = Unattended([queue.name], name="w", connection=queue.connection)
    fetch = Job.fetch

    def asked(*args, **named):
        monkeypatch.setattr(Job, "fetch", fetch)
        worker._shutdown_requested_date = now()
        worker._shutdown()
        return fetch(*args, **named)

    monkeypatch.setattr(Job, "fetch", asked)
    hand_on(queue, [planned("first"), planned("second")])
    worker.work(logging_level="ERROR")
    assert Job.fetch("first", connection=queue.connection).get_status() is JobStatus.FINISHED
    assert queue.job_ids == ["second"]
    assert queue.connection.llen(queue.intermediate_queue_key) == 0


def test_a_worker_that_waits_for_a_job_stops_at_once(queue, monkeypatch):
    worker = Unattended([queue.name], name="w", connection=queue.connection)
    asked = []

    def blmove(*_args):
        asked.append(True)
        worker._shutdown()

    monkeypatch.setattr(queue.connection, "blmove", blmove)
    worker.work(logging_level="ERROR")
    assert asked == [True]


@pytest.mark.parametrize(("pool", "ending"), [("default", ""), ("gpu", ".gpu")])
def test_the_steps_of_each_pool_are_taken_without_a_fork(monkeypatch, pool, ending):
    begun = []
    monkeypatch.setenv("STOKER_POOL", pool)
    monkeypatch.setattr(rq_worker, "connect", lambda _url: new_queue().connection)
    monkeypatch.setattr(rq_worker.log, "configure", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(BaseWorker, "work", lambda self, **_: begun.append((type(self), self.queue_names())))
    for name in (f"stoker{ending}", f"stoker-steps{ending}"):
        rq_worker.main(name)
    assert begun == [(JobWorker, [f"stoker{ending}"]), (StepWorker, [f"stoker-steps{ending}"])]
