"""Sessions on a whole system, with an app that counts its calls in memory; the command line included."""

import tempfile
from pathlib import Path

import pytest
from helpers import TEST_APPS, alive, kill, running_system, wait_until

COMPLETED, FAILED, RUNNING = 9, 10, 7


@pytest.fixture(scope="module")
def counting():
    """Two CPU workers and the counter app, in two versions of one name."""
    with (
        tempfile.TemporaryDirectory(prefix="stoker-sessions-", ignore_cleanup_errors=True) as folder,
        running_system(Path(folder) / "data", "--workers", "2") as system,
    ):
        system.deploy(TEST_APPS / "counter")
        yield system


TUNED = """
from dataclasses import dataclass

@dataclass
class Setup:
    step: int  # it has no default: a later call that leaves the setup out needs its session's

@dataclass
class Call:
    pass

@dataclass
class Count:
    count: int

class App:
    async def setup(self, config: Setup):
        self.step, self.count = config.step, 0

    async def run(self, call: Call) -> Count:
        self.count += self.step
        return Count(count=self.count)
"""


class Caller:
    """One person at the API."""

    def __init__(self, system, key=""):
        self.system = system
        self.http = system.client(key)

    def run(self, input_=None, **fields):
        """The answer to a run request."""
        body = {"app": "tests/counter", "infra": "private", "input": input_ or {}} | fields
        return self.http.post("/apps/run", json=body)

    def submit(self, input_=None, **fields):
        return self.run(input_, **fields).raise_for_status().json()["data"]

    def task(self, task_id):
        return self.http.get(f"/tasks/{task_id}").raise_for_status().json()["data"]

    def in_state(self, task_id, *states):
        def reached():
            found = self.task(task_id)
            return found if found["status"] in states else None

        return wait_until(reached, f"task {task_id} in {states}; {self.system.complaints()}")

    def call(self, input_=None, **fields):
        """Run and wait; the task."""
        return self.in_state(self.submit(input_, **fields)["id"], COMPLETED, FAILED)

    def open(self, **fields):
        """A session whose first call has ended: its id, and the task."""
        task = self.call(session="new", **fields)
        assert task["status"] == COMPLETED, task["error"]
        return task["session_id"], task

    def session(self, session_id):
        return self.http.get(f"/sessions/{session_id}").raise_for_status().json()["data"]

    def over(self, session_id):
        def ended():
            found = self.session(session_id)
            return found if found["status"] != "active" else None

        return wait_until(ended, f"the end of {session_id}")

    def leases(self):
        """Worker -> the session whose instance lives there, or None."""
        engines = self.http.get("/engines").raise_for_status().json()["data"]["items"]
        return {w["id"]: w["active_session_id"] for engine in engines for w in engine["workers"]}

    def end(self, session_id):
        return self.http.delete(f"/sessions/{session_id}")


@pytest.fixture
def caller(counting):
    made = Caller(counting)
    yield made
    for session in made.http.get("/sessions").json()["data"]:
        made.end(session["id"])
    made.http.close()


def problem(answer):
    return answer.status_code, answer.json()["type"].rsplit("/", 1)[1]


def test_the_memory_of_a_session_lasts_from_call_to_call(caller):
    session_id, first = caller.open()
    counts = [first["output"]["count"]] + [
        caller.call(session=session_id)["output"]["count"] for _ in range(3)
    ]
    assert counts == list(range(counts[0], counts[0] + 4))
    assert caller.call(session=session_id)["output"]["pid"] == first["output"]["pid"]
    reset = caller.call(session=session_id, function="reset")
    assert reset["output"] == {"count": 0, "pid": first["output"]["pid"]}
    assert caller.call(session=session_id)["output"]["count"] == 1


def test_a_process_that_the_app_holds_open_lives_as_long_as_the_session(counting, caller):
    counting.deploy(TEST_APPS / "traps" / "browser")
    app = {"app": "traps/browser"}
    first = caller.call({"page": "a"}, session="new", **app)
    assert first["status"] == COMPLETED, first["error"]
    session_id = first["session_id"]
    rest = [caller.call({"page": page}, session=session_id, **app)["output"] for page in "bc"]
    assert [call["pages"] for call in rest] == [["a", "b"], ["a", "b", "c"]]
    pids = {call["pid"] for call in (first["output"], *rest)}
    assert len(pids) == 1
    caller.end(session_id)
    wait_until(lambda: not any(map(alive, pids)), "the end of what the app held open")


def test_calls_sent_at_once_run_in_order(caller):
    first = caller.submit(session="new")
    tasks = [first] + [caller.submit(session=first["session_id"]) for _ in range(5)]
    counts = [caller.in_state(task["id"], COMPLETED, FAILED)["output"]["count"] for task in tasks]
    assert sorted(counts) == counts
    assert len(set(counts)) == 6


def test_nobody_else_reaches_the_process_of_a_session(caller):
    session_id, first = caller.open()
    others = {caller.call()["output"]["pid"] for _ in range(3)}
    other_session, second = caller.open()
    assert first["output"]["pid"] not in others | {second["output"]["pid"]}
    assert first["worker_id"] != second["worker_id"]
    waiting = caller.submit()
    wait_until(
        lambda: "leased to sessions" in (caller.task(waiting["id"])["queue_reason"] or ""),
        "the reason of the wait",
    )
    caller.end(other_session)
    assert caller.in_state(waiting["id"], COMPLETED)["output"]["pid"] != second["output"]["pid"]
    assert caller.session(session_id)["status"] == "active"


def test_the_process_ends_with_its_session(caller):
    session_id, first = caller.open()
    assert caller.end(session_id).status_code == 204
    wait_until(lambda: not alive(first["output"]["pid"]), "the end of the process")
    assert caller.end(session_id).status_code == 204
    session = caller.session(session_id)
    assert (session["status"], session["end_reason"]) == ("ended", "ended")
    assert session["ended_at"]
    assert problem(caller.run(session=session_id)) == (410, "SESSION_ENDED")


def test_a_session_tells_what_it_is(caller):
    session_id, first = caller.open(session_timeout=120)
    last = caller.call(session=session_id)
    session = caller.session(session_id)
    assert session["worker_id"] == first["worker_id"]
    assert session["app_version_id"] == first["app_version_id"]
    assert (session["call_count"], session["task_id"], session["idle_timeout"]) == (2, last["id"], 120)
    assert (session["status"], session["ended_at"]) == ("active", None)
    assert session_id in [listed["id"] for listed in caller.http.get("/sessions").json()["data"]]
    assert first["session_timeout"] == 120
    assert caller.leases()[first["worker_id"]] == session_id


def test_a_later_call_keeps_the_setup_of_its_session(caller, tmp_path, counting):
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "inf.yml").write_text("namespace: tests\nname: tuned\nkernel: python-3.11\n")
    (folder / "inference.py").write_text(TUNED)
    app = counting.deploy(folder)
    first = caller.call(app=app, session="new", setup={"step": 3})
    later = caller.call(app=app, session=first["session_id"])
    same = caller.call(app=app, session=first["session_id"], setup={"step": 3})
    assert [t["output"]["count"] for t in (first, later, same)] == [3, 6, 9]
    assert later["setup"] == {"step": 3}
    other = caller.run(app=app, session=first["session_id"], setup={"step": 4})
    assert problem(other) == (400, "invalid_request")


def test_an_idle_session_expires_and_its_worker_is_given_back(caller):
    session_id, first = caller.open(session_timeout=1)
    assert caller.over(session_id)["status"] == "expired"
    assert problem(caller.run(session=session_id)) == (410, "SESSION_EXPIRED")
    keep = caller.http.post(f"/sessions/{session_id}/keepalive")
    assert problem(keep) == (410, "SESSION_EXPIRED")
    wait_until(lambda: not alive(first["output"]["pid"]), "the end of the process")
    assert caller.call(workers=[first["worker_id"]])["status"] == COMPLETED


def test_a_call_longer_than_the_idle_time_completes_and_keeps_the_session(caller):
    session_id, first = caller.open(session_timeout=4)
    long = caller.call({"seconds": 6}, session=session_id)
    assert long["output"]["count"] == first["output"]["count"] + 1
    assert caller.call(session=session_id)["output"]["count"] == first["output"]["count"] + 2


def test_keepalive_moves_the_expiry(caller):
    session_id, _ = caller.open()
    before = caller.session(session_id)["expires_at"]

    def later():
        answer = caller.http.post(f"/sessions/{session_id}/keepalive")
        return answer.json()["data"]["expires_at"] > before

    wait_until(later, "a later expiry")


def test_a_failed_call_leaves_the_session(caller):
    session_id, first = caller.open()
    failed = caller.call({"fail": True}, session=session_id)
    assert (failed["status"], failed["session_id"]) == (FAILED, session_id)
    after = caller.call(session=session_id)
    assert after["output"] == {"count": first["output"]["count"] + 2, "pid": first["output"]["pid"]}


def test_a_process_that_dies_in_a_call_ends_the_session(caller):
    session_id, _ = caller.open()
    assert caller.call({"die": True}, session=session_id)["status"] == FAILED
    session = caller.over(session_id)
    assert (session["status"], session["end_reason"]) == ("ended", "worker_lost")
    assert problem(caller.run(session=session_id)) == (500, "worker_lost")


def test_a_process_that_died_between_calls_is_not_replaced(caller):
    session_id, first = caller.open()
    kill(first["output"]["pid"])
    wait_until(lambda: caller.leases()[first["worker_id"]] is None, "the report of the death")
    task = caller.call(session=session_id)
    assert (task["status"], task["error_code"]) == (FAILED, "worker_lost")
    assert caller.over(session_id)["end_reason"] == "worker_lost"


def test_ending_a_session_lets_the_running_call_complete_and_fails_those_that_wait(caller):
    session_id, first = caller.open()
    runs = caller.submit({"seconds": 2}, session=session_id)
    caller.in_state(runs["id"], RUNNING)
    waits = caller.submit(session=session_id)
    caller.end(session_id)
    assert caller.in_state(waits["id"], FAILED)["error_code"] == "SESSION_ENDED"
    assert caller.in_state(runs["id"], COMPLETED)["output"]["pid"] == first["output"]["pid"]


def test_a_session_belongs_to_its_owner(caller, counting):
    session_id, _ = caller.open()
    assert problem(caller.http.get("/sessions/sess_unknown")) == (404, "SESSION_NOT_FOUND")
    assert problem(caller.http.get("/sessions/tasks:x")) == (404, "SESSION_NOT_FOUND")
    assert problem(caller.run(session="nonsense")) == (404, "SESSION_NOT_FOUND")
    assert session_id in [s["id"] for s in counting.cli_json("sessions", "list")]


def test_a_session_runs_one_app(caller, counting):
    counting.deploy(TEST_APPS / "plain")
    session_id, first = caller.open()
    other = caller.run({"text": "x"}, app=counting.deploy(TEST_APPS / "plain"), session=session_id)
    assert problem(other) == (400, "APP_MISMATCH")
    assert caller.call(session=session_id, setup={})["output"]["pid"] == first["output"]["pid"]


def test_a_worker_that_is_leased_cannot_be_named(caller):
    session_id, first = caller.open()
    named = caller.run(workers=[first["worker_id"]])
    assert problem(named) == (409, "WORKER_LEASED")
    assert problem(caller.run(workers=[first["worker_id"]], session="new")) == (409, "WORKER_LEASED")
    assert caller.call(session=session_id, workers=[first["worker_id"]])["status"] == COMPLETED
    [free] = set(caller.leases()) - {first["worker_id"]}
    assert caller.call(workers=[first["worker_id"], free])["worker_id"] == free
    assert problem(caller.run(session=session_id, workers=[free])) == (400, "invalid_request")


@pytest.mark.parametrize(
    "fields",
    [
        {"session": "new", "session_timeout": 0},
        {"session": "new", "session_timeout": 3601},
        {"session_timeout": 5},
    ],
)
def test_an_idle_time_is_said_once_and_within_bounds(caller, fields):
    answer = caller.run(**fields)
    assert problem(answer) == (400, "invalid_request")
    assert "session_timeout" in answer.json()["detail"]


def test_a_session_stays_with_its_version(caller, counting, tmp_path):
    session_id, first = caller.open()
    changed = tmp_path / "counter"
    changed.mkdir()
    for path in (TEST_APPS / "counter").iterdir():
        if path.is_file():
            (changed / path.name).write_text(path.read_text() + "\n# a new version\n")
    counting.deploy(changed)

    def refused():
        answer = caller.run(session=session_id)
        return answer if answer.status_code == 400 else None

    assert problem(wait_until(refused, "the new version")) == (400, "VERSION_MISMATCH")
    pinned = f"tests/counter@{first['app_version_id'][:8]}"
    assert caller.call(app=pinned, session=session_id)["output"]["pid"] == first["output"]["pid"]


@pytest.mark.long
def test_the_command_line_opens_calls_lists_and_ends_a_session(counting):
    first = counting.cli_json("run", "tests/counter", "--session", "new:120")
    session_id = first["session_id"]
    assert first["session_timeout"] == 120
    second = counting.cli_json("run", "tests/counter", "--session", session_id)
    assert second["output"]["count"] == first["output"]["count"] + 1
    assert session_id in counting.cli("sessions", "list").stdout
    assert counting.cli_json("sessions", "get", session_id)["call_count"] == 2
    assert counting.cli_json("sessions", "keep", session_id)["status"] == "active"
    assert counting.cli_json("sessions", "end", session_id) == {"id": session_id, "ended": True}
    assert session_id not in [s["id"] for s in counting.cli_json("sessions", "list")]
    gone = counting.cli("run", "tests/counter", "--session", session_id, check=False)
    assert gone.returncode != 0
    assert "The session was ended" in gone.stderr
    assert "seconds" in counting.cli("run", "tests/counter", "--session", "new:soon", check=False).stderr
