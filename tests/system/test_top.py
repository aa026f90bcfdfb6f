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
from helpers import EXAMPLES, PATIENCE_S, environment, running_system, wait_until
from nvml_library import built

GIB = 1024**3
DEVICES = (
    f"A100 GPU-a {40 * GIB} {3 * GIB} 17 41 250500 0 power_limit=400000 clock=1410 throttle=4 ecc_corrected=0 "
    "ecc_uncorrected=2 1:5\n"
    f"H100 GPU-b {80 * GIB} {GIB} 0 38 90000 0 mig=MIG-1/1g.10gb/{10 * GIB}/{GIB}\n"
    "xid 1 0 79\n"
)
LEAVE_SCREEN = "\x1b[?1049l"


@pytest.fixture(scope="module")
def busy_system(tmp_path_factory):
    """With two stand-in GPUs, one of them divided, and an instance that has run a task."""
    folder = tmp_path_factory.mktemp("top")
    built(folder)
    (folder / "devices").write_text(DEVICES)
    with running_system(
        folder / "data",
        LD_LIBRARY_PATH=str(folder),
        NVML_STANDIN=str(folder / "devices"),
        STOKER_TELEMETRY_S="0.5",
    ) as system:
        system.deploy(EXAMPLES / "echo")
        system.cli("run", "infsh/echo", "--input", "message=hi")
        wait_until(lambda: "infsh/echo" in system.cli("top", "--once").stdout, "a reported instance")
        yield system


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
            # Without a size of its own: it would count for more than the terminal's.
            env={name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}}
            | {"TERM": "xterm-256color"},
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
        try:
            wait_until(lambda: self.seen.count(words) >= times, f"{words!r} in the terminal")
        except AssertionError as error:
            raise AssertionError(
                f"{error}; seen: {self.seen[-2000:]!r}, status {self.process.poll()}"
            ) from None

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
        "GPU 0 A100",
        "250/400 W",
        "slowed down: power cap",
        "2 memory errors",
        "XID 79",
        "MIG 1 1g.10gb",
        "driver 550.54.15 · CUDA 12.4",
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


def test_the_api_has_what_the_driver_told(busy_system):
    with busy_system.client() as http:
        [engine] = data_of(http.get("/engines"))["items"]
    first, second = engine["system_info"]["gpus"]
    assert (first["xids"][0]["code"], first["throttled"], first["ecc"]["uncorrected"]) == (
        79,
        ["power cap"],
        2,
    )
    assert (first["processes"][0]["pid"], first["processes"][0]["memory"]) == (1, 5)
    assert first["history"]["memory"][-1] == 8
    assert (second["utilization"], [part["uuid"] for part in second["mig"]]) == (None, ["MIG-1"])


def test_the_metrics_measure_devices_and_host(busy_system):
    with busy_system.client() as http:
        text = http.get("/metrics").text
    for line in (
        "stoker_host_load{",
        "stoker_host_volume_used_bytes{",
        'uuid="GPU-a"} 250.5',
        'reason="power cap"} 1',
        'mig="MIG-1"} ',
    ):
        assert line in text


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
            await asyncio.to_thread(opened.shows, "nothing new for")
            async with running(settings) as second:
                await asyncio.to_thread(opened.shows, second.url)
                os.write(opened.master, b"q")
                assert await asyncio.to_thread(opened.ended) == 0
        finally:
            opened.close()
