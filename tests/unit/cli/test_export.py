"""Tasks of the past as lines of a trace."""

import json

from stoker_cli.export import trace_row
from stoker_scheduler.simulation.trace import read_trace


def task(**changes):
    events = [
        (2, 1, 0),
        (3, 1, 1),
        (5, 1, 1),
        (6, 1, 2),
        (7, 1, 5),
        (2, 1, 9),
        (3, 2, 10),
        (7, 2, 10),
        (9, 2, 14),
    ]
    return {
        "id": "t",
        "status": 10,
        "attempt": 2,
        "user_id": "u",
        "app_ref": "a/b",
        "app_version_id": "v",
        "setup": {"x": 1, "y": 2},
        "created_at": "2026-01-01T00:00:00.000Z",
        "events": [
            {"status": state, "attempt": attempt, "event_time": f"2026-01-01T00:00:{at:02d}.000Z"}
            for state, attempt, at in events
        ],
    } | changes


def test_the_attempt_that_ended_the_task_counts():
    row = trace_row(task())
    assert (row["run_s"], row["tenant"], "load_s" in row) == (4, "u", False)


def test_what_came_before_the_run_is_the_load():
    assert trace_row(task(attempt=1))["load_s"] == 4


def test_tasks_that_could_share_an_instance_have_one_setup():
    assert trace_row(task())["setup"] == trace_row(task(setup={"y": 2, "x": 1}))["setup"]
    assert trace_row(task())["setup"] != trace_row(task(setup={"x": 1}))["setup"]
    assert trace_row(task())["setup"] != trace_row(task(app_version_id="w"))["setup"]


def test_a_task_that_did_not_complete_says_nothing_of_times():
    assert trace_row(task(status=11)) is None


def test_the_simulator_reads_it(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(trace_row(task())) + "\n")
    [request] = read_trace(path)
    assert (request.at_s, request.run_s, request.tenant) == (0, 4, "u")
