"""Small things about processes: their environment, their lines, how they ended, how their group is ended."""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from stoker.settings import PLAIN_PATH
from stoker_worker.redaction import Redactor

MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line is cut: progress bars without an end, or binary data that was printed."""
CUT_MARK: Final = " [line cut]"
READ_BYTES: Final = 64 * 1024
DRAIN_READS: Final = 16
"""Reads of one drain: a pipe holds 64 KiB, so what was printed before is in the first of them."""

SHORT_PATH_BYTES: Final = 48
"""Leaves half of a socket's path (unix(7): 107 bytes) to what apps put below it."""

_SHORT_PREFIX: Final = "stoker-app-"

_DROPPED_NAMES: Final = frozenset({"VIRTUAL_ENV", "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM"})
_DROPPED_PREFIXES: Final = ("STOKER_", "PYTHON", "LISTEN_", "CONDA_")
"""Settings and secrets of the daemon, and what would lead an app's Python to the daemon's packages."""
_END_OF_LINE: Final = re.compile(rb"\r\n|\n|\r")


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a process of an app gets of the daemon's environment: all but what is the daemon's own.

    So an operator sets a variable for apps (a token, a proxy) by setting it for the daemon.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _DROPPED_NAMES and not name.startswith(_DROPPED_PREFIXES)
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
        *ended, rest = _END_OF_LINE.split(self._rest + data)
        lines = [text for line in ended if (text := self._end(line)) is not None]
        if len(rest) > MAX_LINE_BYTES:
            if not self._skipping:
                lines.append(_text(rest))
            self._skipping = True
            rest = b""
        self._rest = rest
        return lines

    def finish(self) -> list[str]:
        """What is left when the stream ends."""
        text = self._end(self._rest)
        self._rest = b""
        return [text] if text else []

    def _end(self, line: bytes) -> str | None:
        if self._skipping:
            self._skipping = False
            return None
        return _text(line)


class LinePipe:
    """The reading end of a pipe of a child, as lines, without the secrets that the redactor knows."""

    def __init__(self, on_line: Callable[[str], None], redactor: Redactor | None = None) -> None:
        self._on_line = on_line
        self._redacted = redactor.stream() if redactor else None
        self._lines = Lines()
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe()
        self._open = True
        os.set_blocking(self._read_fd, False)
        self._loop.add_reader(self._read_fd, self._read)

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
        for line in self._lines.feed(data):
            self._on_line(line)
        return True

    def _end(self) -> None:
        self._open = False
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)
        rest = self._lines.feed(self._redacted.finish()) if self._redacted is not None else []
        for line in (*rest, *self._lines.finish()):
            self._on_line(line)


class ShortPath:
    """A second path to a folder, where its own would harm apps; `close` removes it again.

    Some apps put paths unquoted into shell lines, and sockets in a temporary folder (multiprocessing, vLLM)
    need a path of at most 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: Path | None = None

    def open(self) -> Path:
        """The folder's own path, or a short one that leads there."""
        text = str(self._folder)
        if len(os.fsencode(text)) <= SHORT_PATH_BYTES and PLAIN_PATH.fullmatch(text):
            return self._folder
        _sweep_short_paths()
        self._made = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX))
        link = self._made / "w"
        link.symlink_to(self._folder, target_is_directory=True)
        return link

    def close(self) -> None:
        if self._made is not None:
            (self._made / "w").unlink(missing_ok=True)
            self._made.rmdir()
            self._made = None


def _sweep_short_paths() -> None:
    """Remove those that daemons left which were killed: their folder is gone."""
    for made in Path(tempfile.gettempdir()).glob(f"{_SHORT_PREFIX}*"):
        link = made / "w"
        with contextlib.suppress(OSError):  # of another user, or swept by another process just now
            if link.is_symlink() and not link.exists():
                link.unlink()
                made.rmdir()


def _text(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        return line[:MAX_LINE_BYTES].decode(errors="replace") + CUT_MARK
    return line.decode(errors="replace")
