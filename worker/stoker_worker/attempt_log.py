"""The complete logs of the attempts of one engine, on disk until the gateway has them.

A log is written as segments: files that are closed when they are large or old enough, uploaded, and removed. So a
segment is a chunk of the stored log, and what a killed daemon left is uploaded by the next one as it is. A short log
never touches the disk: it waits in memory for a moment, and when the attempt has ended and the live tail in Redis
has all of it, nothing else is kept.

Nothing is dropped uncounted: what is over a limit, or what the disk does not take, is a gap in the log (see
`stoker.core.logs`). Calls are short writes to the page cache; while one lasts nobody reads the app's pipe, so a slow
disk slows the app and fills no memory.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.events import Event
from stoker.core.logs import CHUNK_BYTES, HEADER_BYTES, encode_gap, encode_lines, whole_bytes
from stoker.core.messages import Assignment, LogType, TaskId
from stoker.log import get_logger

MEMORY_BYTES: Final = 32 * 1024
MEMORY_LINES: Final = 1000
"""With `MEMORY_BYTES` the largest log that the live tail (256 KB of JSON) surely holds."""
MEMORY_S: Final = 1.0
"""How long lines wait in memory; a daemon that is killed loses no more."""
FIRST_SEAL_S: Final = 2.0
LAST_SEAL_S: Final = 60.0
SEAL_STEP_S: Final = 0.5
"""A segment is closed after 2 s at first, later after up to a minute: a task that prints for days has few chunks."""
_SUFFIX: Final = ".log"

_log = get_logger("logs")


class Owned(Struct, frozen=True, kw_only=True):
    """The first line of a segment: whose lines follow. Holds the attempt's token, so files are the user's alone."""

    task_id: TaskId
    attempt: int
    token: str
    first: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Owned).decode


class Segment:
    """A closed file of whole blocks, ready to be uploaded."""

    def __init__(self, path: Path, owned: Owned, size: int) -> None:
        self.path = path
        self.owned = owned
        self.size = size

    def read(self) -> bytes:
        """The blocks; a write that broke off is left out."""
        data = self.path.read_bytes().partition(b"\n")[2]
        return data[: whole_bytes(data)]


class LogSpool:
    """The segments of one engine. Owner: the daemon."""

    def __init__(self, path: Path, *, attempt_bytes: int, total_bytes: int) -> None:
        self.attempt_bytes = attempt_bytes
        self.bytes = 0
        self.due = asyncio.Event()
        """Set when a segment is ready."""
        self._path = path
        self._total_bytes = total_bytes
        self._ready: list[Segment] = []
        self._active: set[AttemptLog] = set()
        self._failed = False

    def open(self, order: Assignment) -> "AttemptLog":
        """The log of an attempt that begins."""
        return AttemptLog(self, order)

    def recover(self) -> int:
        """Take up the segments of an earlier life; their number. A file that is none is logged and removed."""
        found = sorted(self._path.glob(f"*{_SUFFIX}")) if self._path.is_dir() else []
        for path in found:
            try:
                with path.open("rb") as file:
                    owned = _decode(file.readline())
                    size = os.fstat(file.fileno()).st_size
            except (OSError, msgspec.MsgspecError) as error:
                _log.error(Event.LOG_SPOOL_FAILED, path=str(path), reason=str(error))
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            self.bytes += size
            self.add(Segment(path, owned, size))
        return len(found)

    def tick(self, mono: float) -> None:
        """Write down and close what is old enough."""
        for log in list(self._active):
            log.tick(mono)

    def close(self) -> None:
        """Close everything: the daemon ends."""
        for log in list(self._active):
            log.seal()

    def take_ready(self, limit: int) -> list[Segment]:
        """Up to `limit` closed segments, oldest first; each has to come back by `done` or `again`."""
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        if not self._ready:
            self.due.clear()
        return taken

    def again(self, segment: Segment) -> None:
        """The segment could not be uploaded yet; it goes behind the others, so that it holds none of them up."""
        self._ready.append(segment)
        self.due.set()

    def done(self, segment: Segment) -> None:
        """The segment is stored, or nobody wants it."""
        self.bytes -= segment.size
        with contextlib.suppress(OSError):
            segment.path.unlink(missing_ok=True)

    @property
    def waiting(self) -> bool:
        """Whether a closed segment waits."""
        return bool(self._ready)

    # What the logs of attempts call.

    def add(self, segment: Segment) -> None:
        self._ready.append(segment)
        self.due.set()

    def activate(self, log: "AttemptLog", *, active: bool) -> None:
        (self._active.add if active else self._active.discard)(log)

    def has_room(self, size: int) -> bool:
        return self.bytes + size <= self._total_bytes

    def create(self, owned: Owned) -> tuple[int, Path, int]:
        """A new segment's descriptor, path and size.

        Raises:
            OSError: the disk does not take it.
        """
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path / f"{owned.task_id}.{owned.attempt}.{owned.first}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            return fd, path, os.write(fd, _encode(owned) + b"\n")
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise

    def failed(self, error: OSError) -> None:
        """Tell once until it works again."""
        if not self._failed:
            _log.error(Event.LOG_SPOOL_FAILED, path=str(self._path), reason=str(error))
        self._failed = True

    def works(self) -> None:
        self._failed = False


class AttemptLog:
    """Numbers the lines of one attempt and keeps them. It may go on after the attempt: a child may still print."""

    def __init__(self, spool: LogSpool, order: Assignment) -> None:
        self.written = 0
        """Number of the last line."""
        self.kept = 0
        """Lines of those that are no gaps."""
        self._spool = spool
        self._owner = (order.task.id, order.attempt, order.token)
        self._left_bytes = spool.attempt_bytes
        self._memory = bytearray()
        self._memory_range = (0, 0, 0)  # first and last line, lines that are no gaps
        self._gap = (0, 0, 0)  # first line, lines, bytes: dropped and not yet written down
        self._file: tuple[int, Path, Owned] | None = None
        self._file_bytes = 0
        self._segments = 0
        self._active = False
        self._since_mono = 0.0

    @property
    def dropped(self) -> int:
        """Lines that are gaps."""
        return self.written - self.kept

    def add(self, kind: LogType, text: str, at_ms: int) -> None:
        """Number and keep one line, or several that line feeds divide."""
        fits, rest = self._fitting(text)
        if fits is not None:
            self._add(kind, fits, at_ms)
        if rest is not None:
            self._left_bytes = 0  # a shorter line that would still fit must not hide that others are missing
            self._drop(rest)

    def tick(self, mono: float) -> None:
        """Write down what waits in memory, close a segment that is old enough."""
        age_s = mono - self._since_mono
        if age_s >= min(FIRST_SEAL_S + self._segments * SEAL_STEP_S, LAST_SEAL_S):
            self.seal()
        elif age_s >= MEMORY_S:
            self._spill()

    def seal(self) -> None:
        """Close the segment, with all that waits, for the upload."""
        self._write_gap(int(time.time() * 1000))
        self._spill()
        if self._file is not None:
            fd, path, owned = self._file
            os.close(fd)
            self._file = None
            self._segments += 1
            self._spool.add(Segment(path, owned, self._file_bytes))
        self._sleep()
        if self._gap[1]:  # the disk took nothing: again later
            self._wake()

    def forget(self) -> bool:
        """Drop a log that never left memory, because all of it is elsewhere; False when it is too long for that."""
        if self._file is not None or self._segments or self.dropped or self.written > MEMORY_LINES:
            return False
        self._memory.clear()
        self._sleep()
        return True

    def _fitting(self, text: str) -> tuple[str | None, str | None]:
        """The lines that may still be kept, and the rest."""
        if len(text) * 4 + HEADER_BYTES <= self._left_bytes:  # UTF-8 has at most 4 bytes a character
            return text, None
        data = text.encode(errors="replace")
        room = self._left_bytes - HEADER_BYTES
        if len(data) <= room:
            return text, None
        cut = data.rfind(b"\n", 0, max(room, 0))
        if cut < 0:
            return None, text
        return data[:cut].decode(), data[cut + 1 :].decode()

    def _add(self, kind: LogType, text: str, at_ms: int) -> None:
        first = self.written + 1
        frame = encode_lines(first, kind, text, at_ms)
        self._left_bytes -= len(frame)
        if not self._spool.has_room(len(frame)) or not self._write_gap(at_ms):
            self._drop(text)
            return
        self.written += text.count("\n") + 1
        self._keep(frame, first, self.written, self.written - first + 1)

    def _drop(self, text: str) -> None:
        count = text.count("\n") + 1
        first, before, size = self._gap
        self._gap = (first or self.written + 1, before + count, size + len(text.encode(errors="replace")) + 1)
        self.written += count
        self._wake()

    def _wake(self) -> None:
        """Something waits: `tick` has to look after it from now on."""
        if not self._active:
            self._active, self._since_mono = True, time.monotonic()
            self._spool.activate(self, active=True)

    def _sleep(self) -> None:
        self._active = False
        self._spool.activate(self, active=False)

    def _write_gap(self, at_ms: int) -> bool:
        """Write down what was dropped; False when that cannot be written either."""
        first, count, size = self._gap
        if count:
            self._gap = (0, 0, 0)
            self._keep(encode_gap(first, count, size, at_ms), first, first + count - 1, 0)
        return not self._gap[1]

    def _keep(self, frame: bytes, first: int, last: int, lines: int) -> None:
        self._wake()
        self.kept += lines
        if self._file is not None:
            self._append(frame, first, last, lines)
            return
        memory_first, _, memory_lines = self._memory_range if self._memory else (first, 0, 0)
        self._memory += frame
        self._memory_range = (memory_first, last, memory_lines + lines)
        if len(self._memory) > MEMORY_BYTES:
            self._spill()

    def _spill(self) -> None:
        """Move what waits in memory to a segment."""
        if not self._memory:
            return
        frames = bytes(self._memory)
        self._memory.clear()
        first, last, lines = self._memory_range
        if self._file is not None or self._start(first):
            self._append(frames, first, last, lines)
        else:
            self._lost(first, last, lines, len(frames))

    def _start(self, first: int) -> bool:
        task_id, attempt, token = self._owner
        owned = Owned(task_id=task_id, attempt=attempt, token=token, first=first)
        try:
            fd, path, size = self._spool.create(owned)
        except OSError as error:
            self._spool.failed(error)
            return False
        self._file, self._file_bytes = (fd, path, owned), size
        self._spool.bytes += size
        return True

    def _append(self, frames: bytes, first: int, last: int, lines: int) -> None:
        """Write whole blocks. What the disk does not take becomes a gap."""
        assert self._file is not None  # noqa: S101 - callers see to it
        fd = self._file[0]
        try:
            if os.write(fd, frames) != len(frames):
                raise OSError("the disk took a part only")  # noqa: TRY301 - ends as a full disk does
        except OSError as error:
            self._spool.failed(error)
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self._file_bytes)
            self._lost(first, last, lines, len(frames))
            return
        self._spool.works()
        self._spool.bytes += len(frames)
        self._file_bytes += len(frames)
        if self._file_bytes >= CHUNK_BYTES:
            self.seal()

    def _lost(self, first: int, last: int, lines: int, size: int) -> None:
        """Blocks could not be written: they come before what is in the gap already."""
        _, count, gap_bytes = self._gap
        self.kept -= lines
        self._gap = (first, last - first + 1 + count, gap_bytes + size)
