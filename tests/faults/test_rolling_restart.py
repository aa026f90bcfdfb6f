"""An update under load: each part is restarted, one after the other, and nobody notices more than a pause.

Each with SIGTERM, and the worker once more by order of its operator.

Clients that know nothing of it run tasks and follow them: they send a run again under its Idempotency-Key when no answer
came, and open a stream again where it broke off. Then every run is one task, every task is completed, its function ran
once, and every stream told its end.
"""

import signal
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest
from clients.raw import SSE, client
from faults.test_kills import COMPLETED, ended, read, submit
from helpers import PATIENCE_S, kill, wait_until

pytestmark = pytest.mark.long

PARTS = ("gateway", "scheduler", "jobs", "worker")
CLIENTS = 4
LINES = 3
SECONDS, LONG_S = 1, 8
"""What a task takes; the first client's are longer than a gateway lets its requests end."""
TASKS_BETWEEN = 3
"""Tasks that must end between two restarts: so each restart meets new ones."""
ENDED = {9, 10, 11}
TRY_AGAIN = {429, 502, 503}


@dataclass
class Run:
    """One task as its client saw it."""

    key: str
    task_id: str = ""
    streams: int = 0
    updates: list[tuple[str, int]] = field(default_factory=list)
    end: dict | None = None


class Clients:
    """Threads that run and follow tasks until they are told to stop."""

    def __init__(self, system):
        self.system = system
        self.runs = []
        self.failures = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def ended(self):
        return sum(run.end is not None for run in self.runs)

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S * 2)
        assert not any(thread.is_alive() for thread in self._threads), "a client still waits for an end"

    def _work(self, number):
        count = 0
        while not self._over.is_set():
            run = Run(key=f"client {number} run {count}")
            self.runs.append(run)
            count += 1
            try:
                deadline = time.monotonic() + PATIENCE_S
                self._submit(run, deadline, SECONDS if number else LONG_S)
                self._follow(run, deadline)
            except Exception as error:
                self.failures.append((run, repr(error)))
                raise

    def _submit(self, run, deadline, seconds):
        body = {"app": "examples/slow", "infra": "private", "input": {"seconds": seconds, "lines": LINES}}
        while not run.task_id:
            assert time.monotonic() < deadline, "no answer to a run"
            try:
                with client(self.system, {"Idempotency-Key": run.key}) as http:
                    answer = http.post("/apps/run", json=body)
            except httpx.TransportError:
                continue
            if answer.status_code not in TRY_AGAIN:
                run.task_id = answer.raise_for_status().json()["data"]["id"]

    def _follow(self, run, deadline):
        while run.end is None:
            assert time.monotonic() < deadline, "no end of a task"
            run.streams += 1
            headers = SSE | ({"Last-Event-ID": run.updates[-1][0]} if run.updates else {})
            try:
                with (
                    client(self.system, headers) as http,
                    http.stream("GET", f"/tasks/{run.task_id}/stream") as answer,
                ):
                    if answer.status_code not in TRY_AGAIN:
                        self._read(run, answer.raise_for_status())
            except httpx.TransportError:
                continue

    def _read(self, run, answer):
        event_id = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            elif name == "data" and value != "{}":
                task = httpx.Response(200, text=value).json()
                task = task.get("data", task)
                run.updates.append((event_id, task["status"]))
                if task["status"] in ENDED:
                    run.end = task


def restart(system, part):
    """SIGTERM one part, as an update does, and wait until its successor is at work."""
    old = system.pids[part]
    kill(old, signal.SIGTERM)
    wait_for_new(system, part, old)


def update_worker(system):
    """Drain the machine and have its daemon started anew, as its operator does."""
    old = system.pids["worker"]
    system.cli_json("workers", "drain", name_of(system), "--restart", "--reason", "an update")
    wait_for_new(system, "worker", old)


def name_of(system):
    [engine] = workers_of(system, "engine_id")
    return engine


def workers_of(system, what):
    """A field of all workers, each value once."""
    return {worker[what] for worker in system.cli_json("workers", "list")}


def wait_for_new(system, part, old):
    wait_until(lambda: system.pids[part] != old, f"a new {part}")
    wait_until(lambda: ready(system), f"the system to be ready after the restart of the {part}")


def ready(system):
    try:
        with system.client() as http:
            workers = http.get("/workers").raise_for_status().json()["data"]["items"]
            return http.get("/ready").status_code == 200 and any(w["status"] != "inactive" for w in workers)
    except (httpx.TransportError, httpx.HTTPStatusError):
        return False


def count_tasks(system):
    with system.client() as http:
        return http.post("/tasks/list", json={"limit": 1}).json()["data"]["total_items"]


def lines_of(system, task_id):
    with system.client() as http:
        text = http.get(f"/tasks/{task_id}/logs", headers={"Accept": "text/plain"}, timeout=PATIENCE_S).text
    return [line for line in text.splitlines() if line.startswith("line ")]


def test_a_rolling_restart_under_load_loses_nothing(breakable):
    before_all = count_tasks(breakable)
    clients = Clients(breakable)
    try:
        for part in PARTS:
            before = clients.ended()
            wait_until(lambda before=before: clients.ended() >= before + TASKS_BETWEEN, "tasks to end")
            restart(breakable, part)
        update_worker(breakable)
        before = clients.ended()
        wait_until(lambda: clients.ended() >= before + TASKS_BETWEEN, "tasks to end after the last restart")
    finally:
        clients.stop()
    runs = clients.runs
    assert clients.failures == []
    assert {run.end["status"] for run in runs} == {COMPLETED}
    assert max(run.end["attempt"] for run in runs) <= 3  # two workers ended, each handing back unstarted
    assert len({run.task_id for run in runs}) == len(
        runs
    )  # no run became another's task, and none became two
    assert count_tasks(breakable) - before_all == len(runs)
    wanted = [f"line {number} of {LINES}" for number in range(1, LINES + 1)]
    assert {run.task_id: lines_of(breakable, run.task_id) for run in runs} == {
        run.task_id: wanted for run in runs
    }
    assert any(run.streams > 1 for run in runs)  # the gateway's restart met an open stream


def test_a_drained_machine_takes_tasks_again_when_its_daemon_is_started_anew(breakable):
    told = breakable.cli("workers", "drain", name_of(breakable), "--reason", "a new driver").stdout
    assert "drained" in told or "takes nothing new" in told
    wait_until(lambda: "drained" in breakable.cli("workers", "list").stdout, "the end of the drain")
    task_id = submit(breakable, "examples/slow", seconds=0, lines=1)
    wait_until(lambda: "offline" in read(breakable, task_id)["queue_reason"], "the reason why the task waits")
    restart(breakable, "worker")
    assert ended(breakable, task_id)["attempt"] == 1
