"""What is killed, when, and what becomes of the task. The expected end is written here before the run.

| killed with SIGKILL | while the task is | the task ends | and then |
|---|---|---|---|
| scheduler | running | completed, attempt 1 | a new task completes |
| scheduler | queued | completed, attempt 1 | - |
| worker daemon | running | completed, attempt 2 | no process of the old daemon is left |
| app process | running | completed, attempt 2 | no process of the old instance is left |
| app process | running, three times | failed as `poison`; the error names the signal three times | a new task completes on the worker |
| gateway | running | completed, attempt 1 | the same address answers |
| server | queued and running | completed | nothing accepted is lost |
| `stoker up` | running | - | no process is left |
"""

import contextlib
import tempfile
from pathlib import Path

import httpx
import pytest
from helpers import EXAMPLES, PATIENCE_S, family, kill, running_system, wait_gone, wait_until

COMPLETED, FAILED = 9, 10
RUN_S = 3


def submit(system, app, **given):
    with system.client() as client:
        body = {"app": app, "infra": "private", "input": given}
        return client.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]


def read(system, task_id):
    """The task, or None while the gateway or the store is away."""
    try:
        with system.client() as client:
            answer = client.get(f"/tasks/{task_id}")
    except httpx.TransportError:
        return None
    return answer.json()["data"] if answer.status_code == 200 else None


def in_state(system, task_id, states, within_s=PATIENCE_S * 2):
    def reached():
        found = read(system, task_id)
        return found if found and found["status"] in states else None

    return wait_until(reached, f"task {task_id} in states {states}", within_s)


def running(system, seconds=RUN_S):
    task_id = submit(system, "examples/slow", seconds=seconds, lines=3)
    in_state(system, task_id, {7})
    return task_id


def ended(system, task_id):
    return in_state(system, task_id, {COMPLETED, FAILED, 11})


def app_processes(system):
    """Processes below the daemon: the instances and what they started."""
    return family(system.pids["worker"]) - {system.pids["worker"]}


def test_a_running_task_outlives_the_scheduler(breakable):
    task_id = running(breakable)
    breakable.kill("scheduler")
    task = ended(breakable, task_id)
    assert (task["status"], task["attempt"]) == (COMPLETED, 1)
    assert ended(breakable, submit(breakable, "infsh/echo", message="after"))["status"] == COMPLETED


def test_a_task_that_is_submitted_without_a_scheduler_waits_for_the_next(breakable):
    breakable.kill("scheduler")
    task = ended(breakable, submit(breakable, "infsh/echo", message="waits"))
    assert (task["status"], task["attempt"]) == (COMPLETED, 1)


def test_a_task_of_a_killed_daemon_runs_again(breakable):
    task_id = running(breakable)
    old = app_processes(breakable)
    breakable.kill("worker")
    task = ended(breakable, task_id)
    assert (task["status"], task["attempt"]) == (COMPLETED, 2)
    wait_gone(old)


def kill_apps(system):
    killed = app_processes(system)
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
    wait_gone(killed)


def in_attempt(system, task_id, attempt):
    def reached():
        found = read(system, task_id)
        return found and (found["status"], found["attempt"]) == (7, attempt)

    wait_until(reached, f"attempt {attempt} of task {task_id}")


def test_a_task_of_a_killed_app_runs_again(breakable):
    task_id = running(breakable)
    kill_apps(breakable)
    task = ended(breakable, task_id)
    assert (task["status"], task["attempt"]) == (COMPLETED, 2)


def test_a_task_whose_app_is_killed_three_times_is_not_run_again_and_the_worker_goes_on(breakable):
    task_id = submit(breakable, "examples/slow", seconds=30, lines=3)
    for attempt in (1, 2, 3):
        in_attempt(breakable, task_id, attempt)
        kill_apps(breakable)
    task = ended(breakable, task_id)
    assert (task["status"], task["error_code"]) == (FAILED, "poison")
    assert all(f"[attempt {attempt} on " in task["error"] for attempt in (1, 2, 3))
    assert task["error"].count("SIGKILL") == 3
    assert ended(breakable, submit(breakable, "examples/slow", seconds=0, lines=1))["status"] == COMPLETED


def test_a_running_task_outlives_the_gateway(breakable):
    task_id = running(breakable)
    breakable.kill("gateway")
    task = ended(breakable, task_id)
    assert (task["status"], task["attempt"]) == (COMPLETED, 1)


def test_what_was_accepted_outlives_the_server(breakable):
    tasks = [running(breakable), *(submit(breakable, "infsh/echo", message=str(n)) for n in range(20))]
    breakable.kill("server")
    assert {ended(breakable, task_id)["status"] for task_id in tasks} == {COMPLETED}


@pytest.fixture
def doomed():
    with (
        tempfile.TemporaryDirectory(prefix="stoker-doomed-", ignore_cleanup_errors=True) as folder,
        running_system(Path(folder) / "data", "--workers", "1") as system,
    ):
        system.deploy(EXAMPLES / "slow")
        yield system


def test_nothing_is_left_when_the_supervisor_is_killed(doomed):
    running(doomed, seconds=30)
    everything = family(doomed.process.pid) | set(doomed.pids.values())
    assert len(everything) > 5
    doomed.process.kill()
    doomed.process.wait(PATIENCE_S)
    wait_gone(everything)
