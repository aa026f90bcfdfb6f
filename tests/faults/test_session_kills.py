"""What is killed while a session is active, and what becomes of it. The expected end is written before the run.

| killed with SIGKILL | while the session is | its call ends | and the session |
|---|---|---|---|
| worker daemon | in a call | failed, worker_lost | is over; a new one opens; no old process is left |
| worker daemon | idle | - | is over at once; the worker serves others |
| scheduler | in a call | completed | goes on in the same process |
| scheduler | idle | - | goes on in the same process, and nobody else gets its worker |
| gateway | in a call | completed | goes on in the same process |
| server | idle | - | goes on in the same process |
"""

import httpx
import pytest
from helpers import TEST_APPS, family, wait_gone, wait_until

pytestmark = pytest.mark.long

COMPLETED, FAILED, RUNNING = 9, 10, 7
ENDINGS = {COMPLETED, FAILED, 11}


class Caller:
    """Calls sessions of the counter app, also while a part of the system is away."""

    def __init__(self, system):
        self.system = system
        self.http = system.client()

    def ask(self, method, path, **options):
        """The answer, as soon as somebody answers without a 503."""

        def answered():
            try:
                answer = self.http.request(method, path, **options)
            except httpx.TransportError:
                return None
            return None if answer.status_code == 503 else answer

        return wait_until(answered, f"{method} {path}")

    def run(self, seconds=0.0, **fields):
        body = {"app": "tests/counter", "infra": "private", "input": {"seconds": seconds}} | fields
        return self.ask("POST", "/apps/run", json=body)

    def submit(self, seconds=0.0, **fields):
        return self.run(seconds, **fields).raise_for_status().json()["data"]

    def in_state(self, task_id, states):
        def reached():
            task = self.ask("GET", f"/tasks/{task_id}").json()["data"]
            return task if task["status"] in states else None

        return wait_until(reached, f"task {task_id} in {states}; {self.system.complaints()}", 120)

    def call(self, seconds=0.0, **fields):
        return self.in_state(self.submit(seconds, **fields)["id"], ENDINGS)

    def open(self):
        task = self.call(session="new", session_timeout=600)
        assert task["status"] == COMPLETED, task["error"]
        return task["session_id"], task["output"], task["worker_id"]

    def session(self, session_id):
        return self.ask("GET", f"/sessions/{session_id}").raise_for_status().json()["data"]

    def over(self, session_id):
        def ended():
            found = self.session(session_id)
            return found if found["status"] != "active" else None

        return wait_until(ended, f"the end of {session_id}; {self.system.complaints()}")


@pytest.fixture
def caller(breakable):
    breakable.deploy(TEST_APPS / "counter")
    made = Caller(breakable)
    yield made
    for session in made.ask("GET", "/sessions").json()["data"]:
        made.ask("DELETE", f"/sessions/{session['id']}")
    made.http.close()


def running_call(caller, session_id, seconds):
    task = caller.submit(seconds, session=session_id)
    caller.in_state(task["id"], {RUNNING})
    return task["id"]


def goes_on(caller, session_id, before):
    """The next call finds the process and its memory; tells its count."""
    task = caller.call(session=session_id)
    assert task["status"] == COMPLETED, task["error"]
    assert task["output"]["pid"] == before["pid"]
    assert task["output"]["count"] > before["count"]
    return task["output"]


def test_a_session_whose_daemon_is_killed_in_a_call_is_over(caller, breakable):
    session_id, _, _ = caller.open()
    task_id = running_call(caller, session_id, 30)
    waiting = caller.submit(session=session_id)
    old = family(breakable.pids["worker"]) - {breakable.pids["worker"]}
    breakable.kill("worker")
    for ended in (task_id, waiting["id"]):
        task = caller.in_state(ended, ENDINGS)
        assert (task["status"], task["error_code"]) == (FAILED, "worker_lost")
        assert task["attempt"] <= 1
    assert caller.over(session_id)["end_reason"] == "worker_lost"
    assert caller.run(session=session_id).status_code == 500
    wait_gone(old)
    _, output, _ = caller.open()
    assert output["pid"] not in old


def test_a_session_whose_daemon_is_killed_while_idle_is_over_and_its_worker_serves_others(caller, breakable):
    session_id, _, worker = caller.open()
    breakable.kill("worker")
    assert caller.over(session_id)["end_reason"] == "worker_lost"
    answer = caller.run(session=session_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "worker_lost")
    assert caller.call(workers=[worker])["status"] == COMPLETED


def test_a_session_outlives_the_scheduler(caller, breakable):
    session_id, before, worker = caller.open()
    task_id = running_call(caller, session_id, 2)
    breakable.kill("scheduler")
    assert caller.in_state(task_id, ENDINGS)["status"] == COMPLETED
    before = goes_on(caller, session_id, before)
    breakable.kill("scheduler")
    others = [caller.submit(0.1) for _ in range(3)]
    goes_on(caller, session_id, before)
    places = {caller.in_state(other["id"], ENDINGS)["worker_id"] for other in others}
    assert worker not in places


def test_a_session_outlives_the_gateway(caller, breakable):
    session_id, before, _ = caller.open()
    task_id = running_call(caller, session_id, 2)
    breakable.kill("gateway")
    assert caller.in_state(task_id, ENDINGS)["status"] == COMPLETED
    goes_on(caller, session_id, before)


def test_a_session_outlives_the_server(caller, breakable):
    session_id, before, _ = caller.open()
    breakable.kill("server")
    goes_on(caller, session_id, before)
    assert caller.session(session_id)["status"] == "active"
