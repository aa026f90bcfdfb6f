"""Outcomes that Redis did not take yet, on disk: they outlive the daemon and are replayed with their attempt.

One file an outcome, written whole and renamed. The spool is bounded; what it drops is counted and logged.
Files hold attempt tokens, so the directory is the user's alone.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.events import Event
from stoker.core.messages import Assignment, Outcome
from stoker.core.states import TaskState
from stoker.log import get_logger

MAX_FILES: Final = 1000
MAX_BYTES: Final = 256 * 1024 * 1024
"""A result is at most 4 MB; more than this waits only when Redis is away for hours on a busy machine."""
_SUFFIX: Final = ".outcome"

_log = get_logger("spool")


class Spooled(Struct, frozen=True, kw_only=True):
    """An outcome that waits for Redis."""

    order: Assignment
    outcome: Outcome
    moves: tuple[tuple[TaskState, str], ...] = ()
    """State and detail of each move that was not written before it: the table allows no ending that skips `running`."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Spooled).decode


class Spool:
    """The outcomes of one engine that wait on disk. Owner: the daemon; calls are short file operations."""

    def __init__(self, path: Path, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_files = max_files
        self._max_bytes = max_bytes
        self.dropped = 0

    def put(self, order: Assignment, outcome: Outcome, moves: tuple[tuple[TaskState, str], ...] = ()) -> bool:
        """Keep an outcome; False when the disk does not take it (it still waits in memory)."""
        target = self._file(order)
        partial = target.with_suffix(".tmp")
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_encode(Spooled(order=order, outcome=outcome, moves=moves)))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            _log.error(
                Event.SPOOL_FAILED,
                task_id=order.task.id,
                attempt=order.attempt,
                path=str(target),
                reason=str(error),
            )
            return False
        self._bound()
        return True

    def remove(self, order: Assignment) -> None:
        """Forget an outcome: delivered, or refused. Nothing happens when it is not there."""
        with contextlib.suppress(OSError):
            self._file(order).unlink(missing_ok=True)

    def load(self) -> list[Spooled]:
        """Everything that waits, oldest first. A file that cannot be read is logged and removed."""
        found = []
        for file in self._files():
            try:
                found.append(_decode(file.read_bytes()))
            except (OSError, msgspec.MsgspecError) as error:
                _log.error(Event.SPOOL_FAILED, path=str(file), reason=str(error))
                file.unlink(missing_ok=True)
        return found

    def _file(self, order: Assignment) -> Path:
        return self._path / f"{order.task.id}.{order.attempt}{_SUFFIX}"

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            return []
        return sorted(self._path.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime_ns)

    def _bound(self) -> None:
        files = self._files()
        total = sum(file.stat().st_size for file in files)
        while len(files) > 1 and (len(files) > self._max_files or total > self._max_bytes):
            oldest = files.pop(0)
            total -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)
            self.dropped += 1
            _log.error(Event.SPOOL_DROPPED, path=oldest.name, dropped=self.dropped)
