"""Standard streams that may lose a line, and stop nothing. Apart from `stoker.log`, whose library takes long to load."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast


class LossyStream:
    """A stream whose reader may be gone: a line that nobody can read must not stop the part that wrote it."""

    def __init__(self, find: Callable[[], TextIO]) -> None:
        """Write nothing yet.

        Args:
            find: tells the stream, at each use: the process may replace its own.
        """
        self._find = find

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: closed, at the interpreter's end
            return self._find().write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._find().flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)


def lose_what_cannot_be_printed() -> None:
    """From now on, what this process cannot print is lost and raises nothing.

    For a command that others depend on: its terminal may vanish, its disk be full, and where the reader of its pipe
    has ended, rich would end the process. Never undone: the interpreter's last flush is to raise nothing either.
    """
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout = cast("TextIO", LossyStream(lambda: stdout))
    sys.stderr = cast("TextIO", LossyStream(lambda: stderr))
