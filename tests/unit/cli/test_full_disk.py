"""`stoker up` on a disk that is full for a while, and without anybody who reads what it prints."""

import asyncio
import contextlib
import errno
import os
import sys

import pytest
from structlog.testing import capture_logs
from virtual_time import in_virtual_time

from stoker.embedded import DirLock, EmbeddedServer
from stoker.lossy_stream import lose_what_cannot_be_printed
from stoker.server_address import password_file
from stoker.settings import UpSettings, load
from stoker_cli.output import err, out, print_event, print_table
from stoker_cli.up.command import print_warning
from stoker_cli.up.part_log import READ_BYTES, PartLog
from stoker_cli.up.supervisor import Supervisor


def no_space(*_arguments, **_named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class DyingServer:
    """Ends once, cannot be started while the disk is full, and lives from then on."""

    def __init__(self, failures):
        self.failures = failures
        self.pid = 7
        self.runs = False
        self.started = asyncio.Event()

    async def wait(self):
        if self.started.is_set():
            await asyncio.Event().wait()
        return 1

    async def stop(self):
        self.runs = False

    async def start(self):
        if self.failures:
            self.failures -= 1
            no_space()
        self.runs = True
        self.started.set()


def supervisor(tmp_path):
    settings = load(UpSettings, {"data_dir": str(tmp_path)})
    return Supervisor(settings, lambda _name, _fields: None)


@in_virtual_time
async def test_the_database_is_started_again_when_there_is_room(tmp_path):
    server = DyingServer(failures=3)
    with capture_logs() as logs:
        watching = asyncio.create_task(supervisor(tmp_path)._watch_server(server))
        async with asyncio.timeout(3600):
            started = asyncio.create_task(server.started.wait())
            await asyncio.wait({watching, started}, return_when="FIRST_COMPLETED")
    assert not watching.done(), watching.exception()
    assert server.runs
    assert [log["event"] for log in logs].count("part.failed") == 3


def test_a_pid_that_cannot_be_noted_is_logged_and_no_error(tmp_path):
    watcher = supervisor(tmp_path / "gone")
    with capture_logs() as logs:
        watcher._note_pid("worker", 7)
    assert watcher.pids["worker"] == 7
    assert [(log["event"], log["name"]) for log in logs] == [("part.failed", "worker")]


async def test_a_lock_without_a_note_of_its_holder_is_held_and_given_free(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", no_space)
    for _ in range(2):  # a descriptor that is left open would keep the second out
        lock = DirLock(tmp_path / "lock")
        await lock.take(timeout_s=0)
        assert lock.fd >= 0
        lock.release()


async def test_the_note_of_a_holder_replaces_a_longer_one(tmp_path):
    (tmp_path / "lock").write_text("123456789012\n")
    lock = DirLock(tmp_path / "lock")
    await lock.take()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_log_that_cannot_be_written_is_told_once_until_it_can_again(tmp_path, monkeypatch, capsys):
    output = PartLog("worker", tmp_path / "worker.log", lambda _name, _fields: None)
    with capture_logs() as logs:
        for _ in range(2):
            with monkeypatch.context() as full:
                full.setattr(output._file, "flush", no_space)
                for _ in range(3):
                    output.add(b"lost")
            output.add(b"kept")
    output.close()
    assert [(log["event"], log["name"]) for log in logs] == [("part.failed", "worker")] * 2
    assert "No space left" in logs[0]["reason"]
    assert capsys.readouterr().err == ""
    assert (tmp_path / "worker.log").read_text().endswith("kept\n")


@contextlib.contextmanager
def printing_to(target, monkeypatch):
    """The state of `stoker up` whose standard streams lead nowhere. No fixture: a test begins with streams of pytest."""
    if target == "a pipe without a reader":
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open(target, os.O_WRONLY)
    stream = os.fdopen(descriptor, "w")
    with monkeypatch.context() as streams:
        for name in ("stdout", "stderr"):
            streams.setattr(sys, name, stream)
        lose_what_cannot_be_printed()
        yield
    with contextlib.suppress(OSError):
        stream.close()


NOWHERE = pytest.mark.parametrize("target", ["/dev/full", "a pipe without a reader"])


@NOWHERE
async def test_a_part_is_read_on_after_a_warning_that_cannot_be_printed(tmp_path, monkeypatch, target):
    """Else its pipe fills up, and the part stands still in a write to its log."""
    output = PartLog("worker", tmp_path / "worker.log", print_warning)
    stream = asyncio.StreamReader()
    stream.feed_data(b'{"event": "lease.lost", "level": "warning"}\n' + b"x" * READ_BYTES + b"\nlater\n")
    stream.feed_eof()
    with printing_to(target, monkeypatch):
        await output.pump(stream)
    output.close()
    assert (tmp_path / "worker.log").read_text().endswith("later\n")


@NOWHERE
def test_nothing_that_is_printed_raises_where_nobody_can_read_it(monkeypatch, target):
    with printing_to(target, monkeypatch):
        for _ in range(2):
            out.print("stopping")
            err.print("a warning")
            print_event("ready")
            print_table("", ("worker",), [("gpubox-cpu-0",)], empty="no workers")


def listening(folder):
    server = EmbeddedServer(folder, "127.0.0.1:6380")
    (folder / "redis").mkdir(exist_ok=True)
    return server


def test_a_password_is_whole_or_is_not_there(tmp_path, monkeypatch):
    server = listening(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            server._prepare_users()
    assert [path.name for path in tmp_path.iterdir()] == ["redis"]
    server._prepare_users()
    assert password_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_an_empty_password_is_replaced_and_a_password_is_kept(tmp_path):
    """An older version could leave the file empty, and every start failed from then on."""
    password_file(tmp_path).touch()
    listening(tmp_path)._prepare_users()
    made = password_file(tmp_path).read_text()
    listening(tmp_path)._prepare_users()
    assert password_file(tmp_path).read_text() == made != ""
