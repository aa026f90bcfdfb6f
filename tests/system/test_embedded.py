"""The embedded server: durable, one a directory, and gone with its parent."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from helpers import alive, environment, eventually, wait_gone, wait_until
from structlog.testing import capture_logs

from stoker import embedded
from stoker.embedded import DataDirInUse, DirLock, EmbeddedServer, ServerFailed
from stoker.protocol import Store

CHILD = """
import asyncio, pathlib, sys
from stoker.embedded import EmbeddedServer
async def main():
    server = EmbeddedServer(pathlib.Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

STAND_IN = """
import contextlib, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
began = time.monotonic()
while True:
    connection, _ = listener.accept()
    with connection, contextlib.suppress(ConnectionError):  # who asks may have gone
        connection.recv(100)
        loads = time.monotonic() < began + float(sys.argv[2])
        connection.sendall(b"-LOADING the dataset in memory\\r\\n" if loads else sys.argv[3].encode() + b"\\r\\n")
"""


class StandIn(EmbeddedServer):
    """A server that loads for some seconds, and gives one answer from then on."""

    def __init__(self, data_dir, loads_s, answer):
        super().__init__(data_dir)
        self._more = (str(loads_s), answer)

    def _argv(self):
        return [sys.executable, "-I", "-S", "-c", STAND_IN, str(self.socket), *self._more]


@pytest.fixture
async def server(tmp_path):
    made = EmbeddedServer(tmp_path / "data dir")
    await made.start()
    yield made
    await made.stop()


async def test_every_write_is_on_disk_before_it_is_answered(server):
    store = await Store.open(server.url)
    settings = [
        await store.config(name) for name in ("appendonly", "appendfsync", "save", "maxmemory-policy", "port")
    ]
    await store.close()
    assert settings == ["yes", "always", "", "noeviction", "0"]


async def test_what_was_written_survives_kill_9(server):
    store = await Store.open(server.url)
    await store._connection.command("SET", "stoker:{x}:y", "kept")
    await store.close()
    os.kill(server.pid, signal.SIGKILL)
    assert await asyncio.wait_for(server.wait(), 30) == -signal.SIGKILL
    await server.stop()
    await server.start()
    store = await Store.open(server.url)
    assert await store._connection.command("GET", "stoker:{x}:y") == b"kept"
    await store.close()


async def test_a_directory_in_use_is_refused(server):
    with pytest.raises(DataDirInUse, match=f"process {os.getpid()}"):
        await EmbeddedServer(server.data_dir).start()
    assert server.pid


async def test_stop_may_be_called_twice_or_first(tmp_path):
    server = EmbeddedServer(tmp_path)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    assert server.pid is None


async def test_only_its_user_may_connect(server):
    assert server.socket.stat().st_mode & 0o077 == 0


async def test_a_very_long_directory_works(tmp_path):
    server = EmbeddedServer(tmp_path / ("x" * 120))
    await server.start()
    assert server.pid
    await server.stop()


async def test_a_damaged_file_is_said_with_the_servers_own_words(tmp_path):
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ServerFailed, match="did not start"):
        await EmbeddedServer(tmp_path).start()


def test_it_ends_when_its_parent_is_killed_and_gives_the_directory_free(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(parent.stdout.readline())
        assert alive(pid)
    finally:
        parent.kill()
        parent.wait(30)
    wait_gone({pid})

    async def take_over():
        lock = DirLock(tmp_path / "redis.lock")
        await lock.take()
        lock.release()

    asyncio.run(take_over())


def test_a_log_that_grew_is_put_aside(tmp_path):
    server = EmbeddedServer(tmp_path)
    server.log_file.parent.mkdir(parents=True)
    server.log_file.write_bytes(b"x" * (9 * 1024 * 1024))
    server._prepare()
    assert not server.log_file.exists()
    assert wait_until(server.log_file.with_suffix(".log.1").exists, "the old log")


async def test_a_server_that_loads_for_long_is_waited_for_and_told_once(tmp_path, monkeypatch):
    """Else a database that grew beyond what is read in that time could never be started again."""
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 3)
    monkeypatch.setattr(embedded, "LOADING_TOLD_AFTER_S", 0.1)
    server = StandIn(tmp_path, loads_s=4, answer="+PONG")
    with capture_logs() as logs:
        await server.start()
    assert server.pid
    await server.stop()
    assert [log["event"] for log in logs] == ["store.loading"]


async def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 1)
    server = StandIn(tmp_path, loads_s=0, answer="")
    with pytest.raises(ServerFailed, match="does not answer"):
        await server.start()
    assert server.pid is None


async def test_the_end_of_a_server_is_told_also_when_it_was_seen_before(server):
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: server.pid is None, "its end")
    assert await server.wait() == -signal.SIGKILL
