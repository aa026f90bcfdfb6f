"""Small things about processes: their environment, their lines, how they ended, how their group is ended."""

import asyncio
import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from stoker.redaction import Redactor, secret_looking
from stoker.server_address import PLAIN_PATH

MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line is cut: progress bars without an end, or binary data that was printed."""
CUT_MARK: Final = " [line cut]"
PIPE_BYTES: Final = 256 * 1024
"""Room for what an app prints between two reads. Linux gives 64 KiB where a user has very many pipes."""
READ_BYTES: Final = PIPE_BYTES
READ_PAUSE_S: Final = 0.01
"""Between two reads: an app that prints without end costs the daemon 100 reads a second and not one a line. A full
pipe makes the app wait, at 25 MB/s; so memory is bounded by one read."""
DRAIN_READS: Final = 16
"""Reads of one drain: what was printed before it is in the first of them."""

SHORT_PATH_BYTES: Final = 48
"""Leaves half of a socket's path (unix(7): 107 bytes) to what apps put below it."""

_SHORT_PREFIX: Final = "stoker-app-"

_DROPPED_NAMES: Final = frozenset({"VIRTUAL_ENV", "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM"})
_DROPPED_PREFIXES: Final = ("STOKER_", "PYTHON", "LISTEN_", "CONDA_")
"""Settings and secrets of the daemon, and what would lead an app's Python to the daemon's packages."""


def clean_environment(environ: Mapping[str, str], keep: tuple[str, ...] = ()) -> dict[str, str]:
    """What a process of an app gets of the daemon's environment: neither what is the daemon's own, nor a secret.

    A variable whose name says that it is secret (a cloud's access key, the operator's token) is not for whoever's app
    runs here; one that apps need goes into the setting `app_env`. Names that begin with one of `keep` stay.
    """
    secret = secret_looking(environ)
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _DROPPED_NAMES
        and not name.startswith(_DROPPED_PREFIXES)
        and (name not in secret or name.startswith(keep))
    }
    kept.setdefault("PATH", os.defpath)
    return kept | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


def describe_exit(returncode: int) -> str:
    """How a process ended: "ended with SIGKILL (signal 9)", "ended with exit code 3"."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "a signal"
    return f"ended with {name} (signal {-returncode})"


def signal_group(pgid: int, number: signal.Signals) -> None:
    """Send a signal to a whole process group; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


class Lines:
    """Cuts a stream of bytes into lines of text. Sans-IO."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that end within `data`; a carriage return ends a line too (progress bars)."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        ended, rest = data[:end], data[end:]
        lines = self._ended(self._rest + ended) if end else []
        rest = rest if end else self._rest + rest
        if len(rest) > MAX_LINE_BYTES:
            if not self._skipping:
                lines.append(_text(rest))
            self._skipping = True
            rest = b""
        self._rest = rest
        return lines

    def finish(self) -> list[str]:
        """What is left when the stream ends."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest and not self._skipping else []

    def _ended(self, data: bytes) -> list[str]:
        """Whole lines: split as bytes, decoded at once, because an app may print millions of them."""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        parts = data[:-1].split(b"\n")
        if self._skipping:
            self._skipping = False
            del parts[0]
        if len(data) > MAX_LINE_BYTES and max(map(len, parts), default=0) > MAX_LINE_BYTES:
            return [_text(part) for part in parts]
        return b"\n".join(parts).decode(errors="replace").split("\n") if parts else []


class LinePipe:
    """The reading end of a pipe of a child, without the secrets that the redactor knows.

    `on_lines` gets what came, as lines that line feeds divide.
    """

    def __init__(self, on_lines: Callable[[str], None], redactor: Redactor | None = None) -> None:
        self._on_lines = on_lines
        self._redacted = redactor.stream() if redactor else None
        self._lines = Lines()
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe()
        self._open = True
        self._pause: asyncio.TimerHandle | None = None
        os.set_blocking(self._read_fd, False)
        with contextlib.suppress(OSError):  # the user has too many large pipes: then it is a small one
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._listen()

    def started(self) -> None:
        """The child has its copy of the writing end."""
        os.close(self.write_fd)

    def drain(self) -> None:
        """Take what lies in the pipe now."""
        for _ in range(DRAIN_READS):
            if not self._open or not self._read():
                return

    def close(self) -> None:
        """Take what lies in the pipe, and no more."""
        self.drain()
        if self._open:
            self._end()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._read_fd, self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._read_fd)
        self._pause = self._loop.call_later(READ_PAUSE_S, self._listen)
        self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._read_fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        if not data:
            self._end()
            return False
        if self._redacted is not None:
            data = self._redacted.feed(data)
        if lines := self._lines.feed(data):
            self._on_lines("\n".join(lines))
        return True

    def _end(self) -> None:
        self._open = False
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)
        rest = self._lines.feed(self._redacted.finish()) if self._redacted is not None else []
        if lines := [*rest, *self._lines.finish()]:
            self._on_lines("\n".join(lines))


class ShortPath:
    """A second path to a folder, where its own would harm apps; `close` removes it again.

    Some apps put paths unquoted into shell lines, and sockets in a temporary folder (multiprocessing, vLLM)
    need a path of at most 107 bytes.

    It may be in use for weeks, and systemd-tmpfiles(8) removes what is ten days old from /tmp, but for folders that
    somebody has locked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: Path | None = None
        self._lock = -1

    def open(self) -> Path:
        """The folder's own path, or a short one that leads there."""
        text = str(self._folder)
        if len(os.fsencode(text)) <= SHORT_PATH_BYTES and PLAIN_PATH.fullmatch(text):
            return self._folder
        sweep_short_paths(self._folder)
        self._made = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX))
        with contextlib.suppress(OSError):
            # Without a descriptor, or locks, it leads there all the same. Python closes it in children.
            self._lock = os.open(self._made, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        link = self._made / "w"
        link.symlink_to(self._folder, target_is_directory=True)
        return link

    def close(self) -> None:
        """Remove the short path, if it is still there. May be called twice."""
        made, self._made = self._made, None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if made is not None:
            with contextlib.suppress(OSError):
                # Another cleaner took it, or put in a file: nothing may fail for that.
                (made / "w").unlink(missing_ok=True)
                made.rmdir()


def sweep_short_paths(folder: Path | None = None) -> None:
    """Remove those that killed daemons left: they lead nowhere, or to `folder`, whose owner asks."""
    for made in Path(tempfile.gettempdir()).glob(f"{_SHORT_PREFIX}*"):
        link = made / "w"
        with contextlib.suppress(OSError):  # of another user, or swept by another process just now
            if link.is_symlink() and (not link.exists() or link.readlink() == folder):
                link.unlink()
                made.rmdir()


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        return line[:MAX_LINE_BYTES].decode(errors="replace") + CUT_MARK
    return line.decode(errors="replace")
