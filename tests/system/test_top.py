"""`stoker top` on a whole system: what it prints, and that it leaves the terminal as it found it."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest
from app_bundles import data_of
from gateways import gateway_settings, running
from helpers import EXAMPLES, PATIENCE_S, environment, wait_until

LEAVE_SCREEN = "\x1b[?1049l"


@pytest.fixture(scope="module")
def busy_system(system):
    """With an instance that has run a task."""
    system.deploy(EXAMPLES / "echo")
    system.cli("run", "infsh/echo", "--input", "message=hi")
    wait_until(lambda: "infsh/echo" in system.cli("top", "--once").stdout, "a reported instance")
    return system


class Terminal:
    """`stoker top` in a terminal of its own."""

    def __init__(self, env):
        master, self.keyboard = pty.openpty()
        self.master = master
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.keyboard)
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stoker_cli", "top", "--interval", "0.2"],
            env=env | {"TERM": "xterm-256color"},
            stdin=self.keyboard,
            stdout=self.keyboard,
            stderr=self.keyboard,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # closed
                return

    def shows(self, words, times=1):
        wait_until(lambda: self.seen.count(words) >= times, f"{words!r} in the terminal")

    def ended(self):
        """The exit status, once it has ended and the terminal is as before."""
        status = self.process.wait(PATIENCE_S)
        self.shows(LEAVE_SCREEN)
        assert termios.tcgetattr(self.keyboard) == self.before
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keyboard)
        os.close(self.master)


@pytest.fixture
def terminal(busy_system):
    opened = Terminal(busy_system.env)
    yield opened
    opened.close()


def test_one_frame_shows_the_machine_its_instances_and_the_queue(busy_system):
    text = busy_system.cli("top", "--once").stdout
    for words in (
        "stoker top",
        busy_system.base_url,
        "CPU, ",
        "infsh/echo",
        "warm, loaded",
        "waiting",
    ):
        assert words in text


def test_json_has_the_readings_and_the_queue(busy_system):
    told = busy_system.cli_json("top")
    info = told["engines"][0]["system_info"]
    assert len(info["load"]) == 3
    assert info["volumes"][0]["size"] > 0
    assert 0 < len(info["history"]["cpu"]) == len(info["history"]["ram"])
    assert set(told["queue"]) == {"now", "running", "waiting", "pending", "delayed"}


def test_what_waits_and_what_runs_is_told_without_inputs(busy_system):
    busy_system.deploy(EXAMPLES / "slow")
    with busy_system.client() as http:
        body = {"app": "examples/slow", "infra": "private", "input": {"seconds": 60}}
        tasks = [data_of(http.post("/run", json=body))["id"] for _ in range(8)]

        def told():
            queue = data_of(http.get("/queue", params={"limit": 3}))
            states = {each["state"] for each in queue["running"]}
            return queue if "running" in states and queue["waiting"] else None

        try:
            queue = wait_until(told, "a running and a waiting task")
            [task, *_] = [each for each in queue["running"] if each["state"] == "running"]
            assert (task["app"], task["attempt"]) == ("examples/slow", 1)
            assert task["worker_id"]
            first = queue["waiting"][0]
            assert first["queue_reason"]
            assert first["task_id"] in tasks
            assert len(queue["waiting"]) <= 3
            assert "input" not in json.dumps(queue)
            assert "examples/slow" in busy_system.cli("top", "--once").stdout
        finally:
            for task_id in tasks:
                http.post(f"/tasks/{task_id}/cancel", json={"force": True})


def test_the_metrics_measure_the_host(busy_system):
    with busy_system.client() as http:
        text = http.get("/metrics").text
    for name in ("stoker_host_cpu_percent", "stoker_host_load", "stoker_host_volume_used_bytes"):
        assert f"{name}{{" in text


def test_q_ends_it_and_the_terminal_is_as_before(terminal):
    terminal.shows("infsh/echo", times=2)  # it goes on
    os.write(terminal.master, b"q")
    assert terminal.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_terminal_is_as_before(terminal, number):
    terminal.shows("infsh/echo")
    terminal.process.send_signal(number)
    assert terminal.ended() == 0


def test_a_key_that_may_not_see_machines_is_told_so(busy_system):
    with busy_system.client() as http:
        made = data_of(http.post("/apikeys", json={"name": "blind", "scopes": ["apps:read"]}))
    done = busy_system.cli("top", "--once", check=False, STOKER_API_KEY=made["key"])
    assert done.returncode == 4
    assert "engines:read" in done.stderr


def test_no_gateway_is_told_so(busy_system):
    done = busy_system.cli("top", check=False, STOKER_URL="http://127.0.0.1:9")
    assert done.returncode == 3
    assert "stoker up" in done.stderr


async def test_a_gateway_that_goes_away_and_comes_back_elsewhere_is_found(tmp_path, s3_server, store):
    settings = gateway_settings("local", tmp_path, s3_server, store)
    async with running(settings) as first:
        opened = Terminal(environment(STOKER_DATA_DIR=str(settings.data_dir)))
        try:
            await asyncio.to_thread(opened.shows, first.url)
            first.stop.set()
            await first.serving
            await asyncio.to_thread(opened.shows, "away for")
            async with running(settings) as second:
                await asyncio.to_thread(opened.shows, second.url)
                os.write(opened.master, b"q")
                assert await asyncio.to_thread(opened.ended) == 0
        finally:
            opened.close()
