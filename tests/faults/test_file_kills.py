"""What is killed while a file is on its way. In the end it is whole, and no part of one can be seen.

| killed with SIGKILL | while | the task ends |
|---|---|---|
| worker daemon | it fetches an input | completed, attempt 2 |
| worker daemon | it sends an output | completed, attempt 2 |
| gateway | it serves an input | completed, attempt 1 |
"""

import hashlib
import http.server
import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from helpers import PATIENCE_S, TEST_APPS, kill, running_system, size_of, wait_until

pytestmark = pytest.mark.long

COMPLETED = 9
MIB = 1024 * 1024
LARGE = 256 * MIB
BODY = os.urandom(MIB)


@pytest.fixture(scope="module")
def system():
    """A system that may fetch from this machine. What it writes may hold up the disk for longer than a short lease."""
    with tempfile.TemporaryDirectory(prefix="stoker-faults-", ignore_cleanup_errors=True) as folder:
        data, env = Path(folder) / "data", {"STOKER_LEASE_S": "10", "STOKER_FETCH_ALLOW": "127.0.0.1"}
        with running_system(data, "--workers", "1", **env) as running:
            running.deploy(TEST_APPS / "reader")
            running.deploy(TEST_APPS / "outputs")
            yield running


@pytest.fixture
def source():
    """A server that gives half of a file, and the rest when `go` is set."""
    half_sent, go = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // 2])
            self.wfile.flush()
            half_sent.set()
            go.wait(PATIENCE_S)
            self.wfile.write(BODY[len(BODY) // 2 :])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.half_sent, server.go = half_sent, go
    server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    go.set()
    server.shutdown()
    server.server_close()


def submit(system, app, **given):
    with system.client() as client:
        body = {"app": app, "infra": "private", "input": given}
        return client.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]


def completed(system, task_id):
    def ended():
        with system.client() as client:
            task = client.get(f"/tasks/{task_id}").json()["data"]
        return task if task["status"] >= COMPLETED else None

    task = wait_until(ended, f"the end of {task_id}; {system.complaints()}", PATIENCE_S * 2)
    assert task["status"] == COMPLETED, task["error"]
    return task


def parts(system):
    """Parts of fetched inputs; elsewhere there are such of bundles too."""
    return set((system.data_dir / "cache" / "inputs").glob("*.part"))


def spool(system):
    return [path for path in (system.data_dir / "files" / "uploads").iterdir() if path.is_file()]


def replace(system, part):
    """Kill a part, and wait for the next one."""
    old = system.pids[part]
    kill(old)
    wait_until(lambda: system.pids.get(part, old) != old, f"a new {part}")


def test_an_input_is_fetched_anew_when_the_daemon_is_killed_meanwhile(system, source):
    task_id = submit(system, "test/reader", image=source.url)
    assert source.half_sent.wait(PATIENCE_S)
    replace(system, "worker")
    source.go.set()
    task = completed(system, task_id)
    assert task["attempt"] == 2
    assert task["output"]["image"]["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_an_output_is_made_anew_when_the_daemon_is_killed_while_it_sends_it(system):
    task_id = submit(system, "tests/outputs", do="large", size=LARGE)
    wait_until(lambda: any(map(size_of, spool(system))), "the first bytes of the result")
    gateway = system.pids["gateway"]
    kill(gateway, signal.SIGSTOP)  # so that the result is not whole before the kill
    try:
        replace(system, "worker")
    finally:
        kill(gateway, signal.SIGCONT)
    task = completed(system, task_id)
    assert task["attempt"] == 2
    with system.client() as client:
        content = client.get(task["output"]["film"]["uri"], timeout=PATIENCE_S).content
    assert hashlib.sha256(content).hexdigest() == task["output"]["sha256"]


def test_an_input_is_whole_when_the_gateway_is_killed_while_it_serves_it(system, tmp_path):
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for number in range(LARGE // MIB):
            file.write(number.to_bytes(8, "big") * (MIB // 8))
    with system.client() as client:
        entry = {"filename": "large.bin", "size": LARGE, "content_type": "text/plain"}
        [made] = client.post("/files", json={"files": [entry]}).raise_for_status().json()["data"]
        headers = {"content-type": "text/plain", "content-length": str(LARGE)}
        with path.open("rb") as file:
            client.put(made["upload_url"], content=file, headers=headers).raise_for_status()
    left = parts(system)  # by the daemons that were killed; swept when they are old
    task_id = submit(system, "test/reader", image=made["uri"])
    wait_until(lambda: any(size_of(part) for part in parts(system) if part not in left), "the first bytes")
    worker, gateway = system.pids["worker"], system.pids["gateway"]
    kill(worker, signal.SIGSTOP)  # so that it does not have all before the kill
    try:
        kill(gateway)
    finally:
        kill(worker, signal.SIGCONT)
    wait_until(lambda: system.pids["gateway"] != gateway, "a new gateway")
    task = completed(system, task_id)
    assert task["attempt"] == 1
    assert task["output"]["image"]["size"] == LARGE
    with path.open("rb") as file:
        assert task["output"]["image"]["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert parts(system) == left
