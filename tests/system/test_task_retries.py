"""Tasks that run again, and tasks that run later, through a whole system."""

import asyncio
import json
import re
import time

import pytest
from helpers import EXAMPLES, wait_until

from stoker.core.messages import Quarantine
from stoker.protocol import Store
from stoker.settings import CommonSettings
from stoker_gateway.routes.keys import NewKey, make_key
from stoker_scheduler.simulation.trace import read_trace

COMPLETED, FAILED, CANCELLED, QUEUED = 9, 10, 11, 2
ECHO = "infsh/echo"
DECISION = r'stoker_scheduler_decisions_total\{process=".+",decision="(warm|ahead|cold)"\} [1-9]'


@pytest.fixture(scope="module")
def http(system):
    system.deploy(EXAMPLES / "echo")
    with system.client() as client:
        yield client


def run(http, **fields):
    body = {"app": ECHO, "infra": "private", "input": {"message": "again"}} | fields
    answer = http.post("/apps/run", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def read(http, task_id):
    return http.get(f"/tasks/{task_id}").json()["data"]


def ended(http, task_id):
    def check():
        task = read(http, task_id)
        return task if task["status"] >= COMPLETED else None

    return wait_until(check, f"the end of {task_id}")


def test_a_task_says_why_it_ran_where_it_did(http, system):
    task = ended(http, run(http)["id"])
    told = http.get(f"/tasks/{task['id']}/explanation").json()["data"]
    [attempt] = told["attempts"]
    assert attempt["attempt"] == 1
    assert attempt["worker_id"] == attempt["candidates"][0]["worker_id"] == task["worker_id"]
    assert task["worker_id"] in attempt["reason"]
    shown = system.cli("tasks", "explain", task["id"]).stdout
    assert "attempt 1" in shown
    assert http.get("/tasks/none/explanation").status_code == 404
    wait_until(lambda: re.search(DECISION, http.get("/metrics").text), "the count of such decisions")


def later(http, **fields):
    return run(http, run_at=int(time.time()) + 3600, **fields)


def test_a_task_for_later_waits_says_so_and_can_be_cancelled(http):
    task = later(http)
    found = read(http, task["id"])
    assert found["status"] == QUEUED
    assert found["queue_reason"].startswith("it is to run at 20")
    assert found["run_at"] == task["run_at"]
    http.post(f"/tasks/{task['id']}/cancel").raise_for_status()
    assert read(http, task["id"])["status"] == CANCELLED


def test_a_task_for_later_runs_when_its_time_has_come(http):
    task = ended(http, run(http, run_at=time.time() + 1.5)["id"])
    assert task["status"] == COMPLETED
    states = {event["status"]: event["created_at"] for event in task["events"]}
    assert states[7] >= task["run_at"]


def test_the_command_line_runs_a_task_later(http, system):
    task = system.cli_json("run", ECHO, "--input", "message=later", "--run-at", "+4s")
    assert task["status_text"] == "completed"
    assert task["events"][0]["created_at"] < task["run_at"]
    refused = system.cli("run", ECHO, "--input", "message=later", "--run-at", "tomorrow", check=False)
    assert (refused.returncode, "ISO 8601" in refused.stderr) == (2, True)


def test_a_time_that_is_past_means_now(http):
    assert ended(http, run(http, run_at="2001-01-01T00:00:00Z")["id"])["status"] == COMPLETED


def test_a_cancelled_task_is_run_again_from_its_request(http):
    first = later(http, timeouts={"run": 77}, retry={"max_attempts": 2}, priority=3)
    http.post(f"/tasks/{first['id']}/cancel").raise_for_status()
    answer = http.post(f"/tasks/{first['id']}/retry")
    assert answer.status_code == 200, answer.text
    again = ended(http, answer.json()["data"]["id"])
    assert again["status"] == COMPLETED
    assert (again["retry_of"], again["run_at"]) == (first["id"], None)
    kept = ("app_id", "app_version_id", "function", "input", "setup", "workers")
    assert {key: again[key] for key in kept} == {key: first[key] for key in kept}


def test_a_repeat_of_a_retry_gives_the_same_task(http):
    first = later(http)
    http.post(f"/tasks/{first['id']}/cancel").raise_for_status()
    key = {"Idempotency-Key": f"again {first['id']}"}
    ids = {http.post(f"/tasks/{first['id']}/retry", headers=key).json()["data"]["id"] for _ in range(2)}
    assert len(ids) == 1


def test_what_has_not_ended_or_has_completed_is_not_run_again(http):
    waiting, done = later(http), ended(http, run(http)["id"])
    for task, why in ((waiting, "queued: it has not ended"), (done, "has completed")):
        answer = http.post(f"/tasks/{task['id']}/retry")
        assert (answer.status_code, why in answer.json()["detail"]) == (409, True)
    http.post(f"/tasks/{waiting['id']}/cancel").raise_for_status()


def test_another_user_cannot_run_it_again(http, system):
    async def add(key):
        store = await Store.open(CommonSettings(data_dir=system.data_dir).store_url, "default")
        await store.keys.put(key)
        await store.close()

    first = later(http)
    http.post(f"/tasks/{first['id']}/cancel").raise_for_status()
    text, key = make_key("somebody-else", NewKey())
    asyncio.run(add(key))
    with system.client(text) as other:
        assert other.post(f"/tasks/{first['id']}/retry").status_code == 404


FLAKY = """
class App:
    tries = 0

    def run(self, input_data):
        App.tries += 1
        if App.tries < 3:
            raise RuntimeError(f"no luck {App.tries}")
        return {"tries": App.tries}
"""


def test_an_app_may_have_its_own_errors_tried_again(http, system, tmp_path):
    (tmp_path / "inference.py").write_text(FLAKY)
    (tmp_path / "inf.yml").write_text(
        "name: flaky\nnamespace: tests\nretry: {max_attempts: 3, delay: 0, app_errors: true}\n"
    )
    system.deploy(tmp_path)
    body = {"app": "tests/flaky", "infra": "private", "input": {}}
    once = ended(http, run(http, **body, retry={"max_attempts": 1})["id"])
    assert (once["status"], once["error"], once["attempt"]) == (FAILED, "no luck 1", 1)
    task = ended(http, run(http, **body, workers=[once["worker_id"]])["id"])
    assert (task["status"], task["attempt"], task["output"]) == (COMPLETED, 2, {"tries": 3})


def test_the_command_line_runs_a_task_again_and_releases_a_worker(http, system):
    first = later(http)
    http.post(f"/tasks/{first['id']}/cancel").raise_for_status()
    again = system.cli_json("tasks", "retry", first["id"], "--follow")
    assert (again["status_text"], again["retry_of"]) == ("completed", first["id"])
    assert "has completed" in system.cli("tasks", "retry", again["id"], check=False).stderr
    worker = again["worker_id"]
    assert system.cli_json("workers", "release", worker)["quarantine"] is None
    assert "Worker not found" in system.cli("workers", "release", "ghost", check=False).stderr


def test_a_worker_in_quarantine_says_why(http, system):
    worker = http.get("/workers").json()["data"]["items"][0]["id"]
    found = Quarantine(worker_id=worker, since_ms=0, until_ms=2**42, failures=5, reason="no network")

    async def hold():
        store = await Store.open(CommonSettings(data_dir=system.data_dir).store_url, "default")
        await store.quarantines.put(found)
        await store.close()

    asyncio.run(hold())
    try:
        shown = http.get(f"/workers/{worker}").json()["data"]["quarantine"]
        assert (shown["failures"], shown["reason"]) == (5, "no network")
        listed = " ".join(system.cli("workers", "list").stdout.split())
        assert "5 failed there in a row, the last one: no network" in listed
    finally:  # the system is everybody's
        http.post(f"/workers/{worker}/release").raise_for_status()
    assert http.get(f"/workers/{worker}").json()["data"]["quarantine"] is None


def test_tasks_are_exported_as_a_trace(system, http, tmp_path):
    first = ended(http, run(http)["id"])
    assert first["status"] == COMPLETED
    path = tmp_path / "trace.jsonl"
    assert "written to" in system.cli("tasks", "export", str(path), "--limit", "150").stdout
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    [row] = [row for row in rows if row["id"] == first["id"]]
    assert row["setup"].startswith(f"{ECHO}/")
    assert 0 <= row["run_s"] < row["at_s"]
    assert read_trace(path)
