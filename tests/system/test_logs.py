"""Logs from an app's print to the client that reads them, on a whole system."""

import json

import pytest
from helpers import PATIENCE_S, TEST_APPS, wait_until

ENDED = ("completed", "failed", "cancelled")
NDJSON = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def http(system):
    system.deploy(TEST_APPS / "chatty")
    with system.client() as client:
        yield client


def submit(http, do, **given):
    body = {"app": "test/chatty", "infra": "private", "input": {"do": do, **given}}
    return http.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]


def task_of(http, task_id):
    return http.get(f"/tasks/{task_id}").raise_for_status().json()["data"]


def run(http, do, **given):
    task_id = submit(http, do, **given)
    ended(http, task_id)
    return task_id


def ended(http, task_id):
    task = wait_until(
        lambda: (found := task_of(http, task_id))["status_text"] in ENDED and found, "the task's end"
    )
    assert task["status_text"] == "completed", task["error"]
    return task


def text_of(http, task_id, **params):
    answer = http.get(
        f"/tasks/{task_id}/logs", params=params, headers={"Accept": "text/plain"}, timeout=PATIENCE_S * 2
    )
    assert answer.headers["content-type"].startswith("text/plain")
    return answer.text.splitlines()


def pages_of(http, task_id, **params):
    """All entries, page by page."""
    cursor, entries = "", []
    while True:
        answer = http.get(f"/tasks/{task_id}/logs", params=params | {"cursor": cursor}, timeout=PATIENCE_S)
        page = answer.raise_for_status().json()["data"]
        entries += page["logs"]
        cursor = page["next_cursor"]
        if not page["has_next"]:
            return entries


def printed(lines):
    return [line for line in lines if line.startswith(("line ", "..."))]


def test_a_flood_is_complete_where_the_live_tail_skips(http):
    task_id = run(http, "flood", mb=8)
    lines = [line for line in text_of(http, task_id) if line.endswith("xxx")]
    task = task_of(http, task_id)
    assert len(lines) == task["output"]["lines"]
    assert lines == [f"{n % 100:06} {'x' * 92}" for n in range(len(lines))]
    assert task["logs_dropped"] > 0
    page = http.get(f"/tasks/{task_id}/logs", params={"limit": 1}).json()["data"]
    assert page["logs_dropped"] == 0


def test_pages_are_the_log_without_holes_and_without_doubling(http):
    task_id = run(http, "lines", count=5000, size=100)
    whole = text_of(http, task_id)
    entries = pages_of(http, task_id, limit=700)
    assert [entry["content"] for entry in entries] == whole
    numbers = [int(entry["id"].rsplit("-", 1)[1]) for entry in entries]
    assert numbers == list(range(1, len(numbers) + 1))
    assert printed(whole)[-1].startswith("line 4999 ")


def test_lines_are_chosen_by_type(http):
    task_id = run(http, "lines", count=3)
    assert [e["content"] for e in pages_of(http, task_id, type="run")] == ["line 0 ", "line 1 ", "line 2 "]
    assert pages_of(http, task_id, type="1") == pages_of(http, task_id, type="run")
    assert pages_of(http, task_id, attempt=7) == []
    answer = http.get(f"/tasks/{task_id}/logs", params={"type": "nonsense"})
    assert answer.status_code == 400
    assert "build, run, serve, setup, task" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("do", "lines"),
    [
        ("long", ["y" * 65536 + " [line cut]", "after"]),
        ("progress", ["", *(f"{percent}%|" for percent in range(0, 101, 10))]),
    ],
)
def test_odd_lines_are_kept_in_their_order(http, do, lines):
    task_id = run(http, do)

    def told():  # until its chunk is stored, a long line is what the live tail has of it
        return [e["content"] for e in pages_of(http, task_id, type="run")] == lines

    wait_until(told, f"the {do} lines")


def test_binary_noise_is_text_with_replacements(http):
    task_id = run(http, "binary")
    entries = pages_of(http, task_id, type="run")
    assert any("ABC" in entry["content"] for entry in entries)
    assert any("�" in entry["content"] for entry in entries)


def test_a_child_prints_into_the_log_of_the_task_that_ran_last(http):
    task_id = run(http, "child")
    wait_until(lambda: "from a child" in text_of(http, task_id), "the child's line")
    assert text_of(http, task_id)[-2:] == ["the run is over", "from a child"]


def test_following_brings_lines_as_they_come_and_ends_with_the_task(http):
    task_id = submit(http, "wait")
    events = []
    with http.stream("GET", f"/tasks/{task_id}/logs", params={"follow": 1}, headers=NDJSON) as answer:
        for line in answer.iter_lines():
            events.append(json.loads(line))
            if events[-1].get("content") == "waiting":
                http.post(f"/tasks/{task_id}/cancel").raise_for_status()
    contents = [event["content"] for event in events if "content" in event]
    assert contents[-2:] == ["waiting", "seen"]
    assert (events[-1]["type"], events[-1]["status_text"]) == ("end", "cancelled")


def test_following_a_flood_misses_nothing(http):
    task_id = submit(http, "flood", mb=6, seconds=3)
    lines = 0
    with http.stream(
        "GET",
        f"/tasks/{task_id}/logs",
        params={"follow": 1, "type": "run"},
        headers=NDJSON,
        timeout=PATIENCE_S,
    ) as answer:
        for line in answer.iter_lines():
            event = json.loads(line)
            assert not event.get("content", "").startswith("... ")
            lines += "content" in event
    assert lines == task_of(http, task_id)["output"]["lines"]


def test_a_stream_of_server_sent_events_says_that_it_is_done(http):
    task_id = run(http, "lines", count=2)
    with http.stream("GET", f"/tasks/{task_id}/logs", params={"follow": 1}) as answer:
        text = answer.read().decode()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: log\ndata: " in text
    assert text.endswith('"status_text":"completed"}\n\n')


def test_the_command_shows_the_log(http, system):
    task_id = run(http, "lines", count=12_000)
    told = system.cli("tasks", "logs", task_id).stdout.splitlines()
    assert told[-1].endswith("run | line 11999")
    assert len(system.cli_json("tasks", "logs", task_id, "--attempt", "1")["logs"]) == len(told)
    followed = system.cli("tasks", "logs", task_id, "-f").stdout.splitlines()
    assert followed == told


def test_a_deleted_task_takes_its_log_with_it(http, system):
    task_id = run(http, "lines", count=5000, size=100)
    text_of(http, task_id)
    folder = system.data_dir / "files" / "logs"
    assert list(folder.rglob(f"{task_id}/*"))
    http.delete(f"/tasks/{task_id}").raise_for_status()
    assert not list(folder.rglob(f"{task_id}/*"))
