"""`stoker up`: starts everything, starts dead parts again, and leaves nothing behind."""

import os
import queue
import subprocess
import sys

import httpx
import pytest
from helpers import (
    EXAMPLES,
    System,
    alive,
    environment,
    family,
    kill,
    running_system,
    start_system,
    wait_gone,
    wait_until,
)

from stoker.core.states import TaskState
from stoker_cli.up.supervisor import NOW_GRACE_S

PARTS = {"up", "server", "gateway", "scheduler", "worker", "jobs"}


@pytest.fixture(scope="module")
def mended_system(tmp_path_factory):
    """A system whose parts a test may kill: they come back, and the next test finds it whole."""
    with running_system(tmp_path_factory.mktemp("mended") / "data dir", "--workers", "1") as system:
        yield system
        everyone = family(system.process.pid)
    wait_gone(everyone)


def test_all_parts_run_and_a_task_can(mended_system):
    assert set(mended_system.pids) == PARTS
    assert all(alive(pid) for pid in mended_system.pids.values())
    mended_system.deploy(EXAMPLES / "echo")
    done = mended_system.cli("run", "infsh/echo", "--input", '{"message": "hi"}')
    for words in ("queued", "running", "completed", "hi"):
        assert words in done.stdout


@pytest.mark.parametrize("part", ["server", "gateway", "scheduler", "worker", "jobs"])
def test_a_dead_part_is_started_again_and_tasks_go_on(mended_system, part):
    mended_system.deploy(EXAMPLES / "echo")
    old = mended_system.pids[part]
    kill(old)
    wait_until(lambda: mended_system.pids[part] != old, f"a new {part}")
    with mended_system.client() as client:
        wait_until(lambda: ready(client), "readiness")
    done = mended_system.cli("run", "infsh/echo", "--input", "message=again")
    assert "again" in done.stdout


def ready(client):
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_a_second_copy_on_the_same_directory_is_refused(mended_system):
    arguments = ["up", "--json", "--port", "0", "--data-dir", str(mended_system.data_dir)]
    done = subprocess.run(
        [sys.executable, "-m", "stoker_cli", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "in use by another running copy" in done.stderr
    assert "--data-dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert alive(mended_system.process.pid)


def test_two_systems_run_beside_each_other_and_kill_9_of_one_leaves_no_process_of_it(mended_system, tmp_path):
    other = start_system(tmp_path / "other", "--workers", "1")
    everyone = family(other.process.pid)
    try:
        assert other.base_url != mended_system.base_url
        assert mended_system.cli_json("apps", "list") is not None
    finally:
        other.process.kill()
        wait_gone(everyone)
    assert all(alive(pid) for pid in mended_system.pids.values())


def test_ctrl_c_ends_every_process_and_what_was_accepted_is_there_after_a_restart(tmp_path):
    first = start_system(tmp_path / "data", "--workers", "1")
    first.deploy(EXAMPLES / "echo")
    task = first.cli_json("run", "infsh/echo", "--input", "message=kept")
    everyone = family(first.process.pid)
    assert first.stop() == 0
    wait_gone(everyone)
    assert not (first.data_dir / "gateway.url").exists()
    second = start_system(tmp_path / "data", "--workers", "1")
    try:
        assert second.api_key == first.api_key
        again = second.cli_json("tasks", "get", task["id"])
        assert again["output"] == task["output"]
    finally:
        second.stop()


@pytest.mark.long
def test_ctrl_c_lets_a_task_end_also_when_nobody_reads_what_is_printed(tmp_path):
    """`make run | tee log`: the same Ctrl-C ends tee."""
    env = environment(STOKER_DATA_DIR=str(tmp_path / "data"))
    process = subprocess.Popen(
        [sys.executable, "-m", "stoker_cli", "up", "--port", "0", "--workers", "1"],
        env=env | {"STOKER_PARENT_PID": str(os.getpid())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    system = System(tmp_path / "data", process, queue.Queue(), env)
    try:
        assert any("Ctrl-C ends it" in line for line in process.stdout)
        system.deploy(EXAMPLES / "slow")
        system.base_url = (system.data_dir / "gateway.url").read_text()
        system.api_key = (system.data_dir / "api-key").read_text().strip()
        with system.client(system.api_key) as client:
            body = {"app": "examples/slow", "input": {"seconds": NOW_GRACE_S + 2, "lines": 0}}
            task = client.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]
            path = f"/tasks/{task}"
            wait_until(lambda: client.get(path).json()["data"]["status"] == TaskState.RUNNING, "its start")
        process.stdout.close()
    finally:
        status = system.stop()
    assert status == 0
    assert "task.finished" in (system.data_dir / "logs" / "worker.log").read_text()


def test_a_taken_port_is_said_in_one_sentence(mended_system, tmp_path):
    port = mended_system.base_url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "stoker_cli", "up", "--port", port, "--data-dir", str(tmp_path / "other")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
