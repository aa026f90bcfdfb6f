"""What becomes of a log when a part is killed while the app prints, and when the log is too long."""

import tempfile
from pathlib import Path

import httpx
import pytest
from helpers import PATIENCE_S, TEST_APPS, running_system, wait_until

pytestmark = pytest.mark.long

LIMIT_BYTES = 4 * 1024 * 1024
LINE_BYTES = 100
ENDED = ("completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def system():
    """A system whose worker keeps 4 MiB of an attempt's log."""
    with (
        tempfile.TemporaryDirectory(prefix="stoker-faults-", ignore_cleanup_errors=True) as folder,
        running_system(
            Path(folder) / "data",
            "--workers",
            "1",
            STOKER_LEASE_S="3",
            STOKER_TELEMETRY_S="1",
            STOKER_LOG_MAX_BYTES=str(LIMIT_BYTES),
        ) as running,
    ):
        running.deploy(TEST_APPS / "chatty")
        yield running


def submit(system, **given):
    with system.client() as http:
        body = {"app": "test/chatty", "infra": "private", "input": {"do": "flood"} | given}
        return http.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]


def get(system, path, **options):
    """An answer, or None while the gateway is away."""
    try:
        with system.client() as http:
            answer = http.get(path, timeout=PATIENCE_S, **options)
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 200 else None


def ended(system, task_id):
    def end():
        answer = get(system, f"/tasks/{task_id}")
        return answer and (task := answer.json()["data"])["status_text"] in ENDED and task

    task = wait_until(end, "the task's end", PATIENCE_S * 2)
    assert task["status_text"] == "completed", task["error"]
    return task


def lines_of(system, task_id, **params):
    """The lines that the app's run printed, and marks of gaps, when all have arrived."""
    path = f"/tasks/{task_id}/logs"
    answer = wait_until(lambda: get(system, path, params=params, headers={"Accept": "text/plain"}), "the log")
    return [line for line in answer.text.splitlines() if line.endswith("xxx") or line.startswith("... ")]


def when_printing(system, task_id):
    """Wait until the gateway has chunks of the log."""
    folder = system.data_dir / "files" / "logs"
    wait_until(lambda: list(folder.rglob(f"{task_id}/*")), "the first chunk")


def expected(count, first=0):
    return [f"{n % 100:06} {'x' * 92}" for n in range(first, first + count)]


def test_the_log_is_complete_after_the_gateway_was_killed_in_the_flood(system):
    task_id = submit(system, mb=3, seconds=6)
    when_printing(system, task_id)
    system.kill("gateway")
    task = ended(system, task_id)
    assert lines_of(system, task_id) == expected(task["output"]["lines"])


def test_over_the_limit_the_last_line_counts_what_is_missing(system):
    task_id = submit(system, mb=6)
    task = ended(system, task_id)
    *kept, last = lines_of(system, task_id, type="run")
    missing = task["output"]["lines"] - len(kept)
    assert 0 < len(kept) * LINE_BYTES <= LIMIT_BYTES
    assert kept == expected(len(kept))
    assert last.startswith(f"... {missing} lines ({missing * LINE_BYTES} bytes) were dropped here")
    page = get(system, f"/tasks/{task_id}/logs").json()["data"]
    assert page["logs_dropped"] == missing


def test_a_killed_daemon_leaves_the_log_of_its_attempt_to_the_next_one(system):
    task_id = submit(system, mb=2, seconds=6)
    when_printing(system, task_id)
    system.kill("worker")
    task = ended(system, task_id)
    assert task["attempt"] == 2
    spool = system.data_dir / "spool"
    wait_until(lambda: not list(spool.rglob("*.log")), "the upload of what was left")
    first = lines_of(system, task_id, attempt=1)
    assert first == expected(len(first))
    assert 0 < len(first) < task["output"]["lines"]
    assert lines_of(system, task_id, attempt=2) == expected(task["output"]["lines"])
    assert lines_of(system, task_id)[: len(first)] == first
