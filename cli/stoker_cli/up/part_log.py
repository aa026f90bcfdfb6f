"""What a part prints: all of it into a bounded file, its warnings to the terminal."""

import asyncio
import logging
import logging.handlers
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.events import Event
from stoker.log import get_logger

FILE_MAX_BYTES: Final = 8 * 1024 * 1024
FILES_KEPT: Final = 2
LINE_MAX_BYTES: Final = 64 * 1024
"""A longer line is cut: the file is for people."""
READ_BYTES: Final = 64 * 1024
PAUSE_S: Final = 0.05
"""Between reads while little comes: `up` need not wake for every line of a busy part."""
LOUD: Final = frozenset({"warning", "error", "critical"})
WORDS_KEPT: Final = 5
QUIET: Final = b'"level":"info"'

OnWarning = Callable[[str, Mapping[str, Any]], None]


class PartLog:
    """The output of one part, over all of its lives."""

    def __init__(self, name: str, path: Path, on_warning: OnWarning) -> None:
        self.name = name
        self.path = path
        self._on_warning = on_warning
        self._plain: deque[str] = deque(maxlen=WORDS_KEPT)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = _LogFile(name, path)

    async def pump(self, stream: asyncio.StreamReader) -> None:
        """Take what comes until the stream ends. Lines may be of any length and hold any bytes."""
        rest = b""
        while chunk := await stream.read(READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            self.add(*lines)
            if len(rest) > LINE_MAX_BYTES:
                self.add(rest)
                rest = b""
            if len(chunk) < READ_BYTES:
                await asyncio.sleep(PAUSE_S)
        if rest:
            self.add(rest)

    def add(self, *lines: bytes) -> None:
        """Take lines that came together: one write to the file for all of them."""
        texts = [text for line in lines if (text := line[:LINE_MAX_BYTES].decode(errors="replace").rstrip())]
        if not texts:
            return
        self._file.emit(logging.makeLogRecord({"msg": "\n".join(texts)}))
        for line, text in zip(filter(bytes.rstrip, lines), texts, strict=True):
            if QUIET in line:  # a busy part prints thousands of these a second
                continue
            fields = parse_event(line)
            if fields is None:
                self._plain.append(text)
            elif fields.get("level") in LOUD:
                self._on_warning(self.name, fields)

    def last_words(self) -> str:
        """The last lines that were no log events, a traceback's end as a rule; forgets them."""
        words = " | ".join(self._plain)
        self._plain.clear()
        return words[-600:]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _LogFile(logging.handlers.RotatingFileHandler):
    """Loses lines while it cannot be written, on a full disk for instance, and says so once until it can again."""

    def __init__(self, part: str, path: Path) -> None:
        super().__init__(
            path, maxBytes=FILE_MAX_BYTES, backupCount=FILES_KEPT, encoding="utf-8", errors="replace"
        )
        self._part = part
        self._failed = False
        self._said = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        if not self._failed:
            self._said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - the library's signature
        self._failed = True
        if not self._said:
            self._said = True
            reason = f"{self.baseFilename} cannot be written, and its lines are lost: {sys.exception()}"
            get_logger("up").warning(Event.PART_FAILED, name=self._part, reason=reason)


def parse_event(line: bytes) -> Mapping[str, Any] | None:
    """A line as a log event, or None for any other text."""
    if not line.startswith(b"{"):
        return None
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and "event" in fields else None
