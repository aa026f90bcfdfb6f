"""Signs of life on a stream that has nothing to say: proxies and some clients give up one that is silent."""

import time
from collections.abc import Callable


class Heartbeat:
    """Knows when a reader was last sent something."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._mono_sent = clock()

    def sent(self) -> None:
        """The reader was sent something."""
        self._mono_sent = self._clock()

    def due(self) -> bool:
        """Whether a sign of life is to be sent now; the next one is due as long after it."""
        if self._clock() < self._mono_sent + self._every_s:
            return False
        self.sent()
        return True
