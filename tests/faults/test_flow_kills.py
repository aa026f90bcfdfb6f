"""Runs of a flow while the parts of the system are killed at random: every run ends right, no node runs to its end twice.

| killed with SIGKILL | what becomes of the runs under way |
|---|---|
| jobs | the next jobs look at all of them at once |
| gateway | nothing; who reads them asks again |
| scheduler | their tasks wait until the next one leads |
| worker daemon | their tasks are taken back and run again |
"""

import contextlib
import os
import random
import time
from collections import Counter

import httpx
import pytest
from helpers import EXAMPLES, start_system, wait_until

RUNS = int(os.environ.get("RUNS", "200"))
KILLS = max(4, RUNS // 5)
"""At least: a machine that is done with the runs before so many gets more runs, up to ten times as many."""
IN_FLIGHT = 8
GAP_S = (0.2, 2.0)
SEED = 1
FLOW = """
name: test/diamond
input: {text: string}
nodes:
  a: {app: infsh/echo, input: {message: "{{input.text}}"}}
  b: {app: infsh/echo, input: {message: "{{a.message}}"}}
  c: {app: infsh/echo, input: {message: "{{a.message}}"}}
  both: {expression: "b + c", input: {b: "{{b.message}}", c: "{{c.message}}"}}
  d: {app: infsh/echo, input: {message: "{{both.output}}"}}
output: {said: "{{d.message}}"}
"""


class Load:
    """Begins runs and looks at them, also while the gateway is away."""

    def __init__(self, system):
        self.http = system.client()

    def ask(self, method, path, **options):
        def answered():
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.request(method, path, **options)
                return None if answer.status_code == 503 else answer
            return None

        return wait_until(answered, f"{method} {path}", 120).raise_for_status().json()["data"]

    def begin(self, number):
        body = {"app": "test/diamond", "input": {"text": f"{number} "}, "infra": "private"}
        return self.ask("POST", "/apps/run", json=body, headers={"Idempotency-Key": f"run-{number}"})["id"]

    def ended(self, run_id):
        task = self.ask("GET", f"/tasks/{run_id}")
        return task if task["status"] in {9, 10, 11} else None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_end_right_while_parts_are_killed(tmp_path):
    chance = random.Random(SEED)  # noqa: S311 - which part dies, not a secret
    system = start_system(tmp_path / "data", "--workers", "2", STOKER_RETRY_ATTEMPTS="10", STOKER_LEASE_S="3")
    try:
        system.deploy(EXAMPLES / "echo")
        (tmp_path / "flow.yml").write_text(FLOW)
        system.cli("flows", "deploy", str(tmp_path / "flow.yml"))
        load, waiting, done, kills = Load(system), {}, {}, []
        begun, next_kill = 0, time.monotonic()

        def wants_more():
            return begun < RUNS or (len(kills) < KILLS and begun < 10 * RUNS)

        while waiting or wants_more():
            if time.monotonic() >= next_kill:
                part = chance.choice(["jobs", "gateway", "scheduler", "worker"])
                with contextlib.suppress(ProcessLookupError, KeyError):
                    system.kill(part)
                    kills.append(part)
                next_kill = time.monotonic() + chance.uniform(*GAP_S)
            while len(waiting) < IN_FLIGHT and wants_more():
                waiting[load.begin(begun)] = begun
                begun += 1
            for run_id in list(waiting):
                if task := load.ended(run_id):
                    done[waiting.pop(run_id)] = task
        for number, task in done.items():
            said = task["output"] and task["output"]["said"]
            assert (task["status"], said) == (9, f"{number} {number} "), (number, task["error"], kills)
            run = load.ask("GET", f"/flowruns/{task['id']}")
            assert set(run["node_statuses"].values()) == {"completed"}
            nodes = {name: node["task"] for name, node in run["node_tasks"].items()}
            assert set(nodes) == {"a", "b", "c", "d"}
            ends = [[e for e in one["events"] if e["status"] in {9, 10, 11}] for one in nodes.values()]
            assert [len(each) for each in ends] == [1, 1, 1, 1]
        cursor, tasks = "", []
        while cursor is not None:
            page = load.ask("POST", "/tasks/list", json={"limit": 100, "cursor": cursor})
            tasks, cursor = tasks + page["items"], page["next_cursor"]
        assert len(tasks) == 5 * len(done)
        assert len(kills) >= KILLS
        print(f"{len(done)} runs, {len(kills)} kills: {dict(Counter(kills))}")
    finally:
        system.stop()
