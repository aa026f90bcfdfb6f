"""What time it is for decisions: the server's, because tasks are dated by it; machines may be wrong or be set anew."""

import time
from collections.abc import Callable


class ServerClock:
    """The server's clock, as of its last answer, carried on by this machine's monotonic one.

    Before the first answer it is the machine's own.
    """

    def __init__(
        self, mono: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._mono = mono
        self._offset_ms = (wall() - mono()) * 1000

    def __call__(self) -> int:
        """Unix milliseconds."""
        return int(self._mono() * 1000 + self._offset_ms)

    def set(self, now_ms: int) -> None:
        """The server says that it is `now_ms`."""
        self._offset_ms = now_ms - self._mono() * 1000
