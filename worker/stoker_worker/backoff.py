"""Waiting between two tries of something that fails: longer each time, bounded, with some chance in it."""

import asyncio
import random
from typing import Final

FIRST_S: Final = 0.05
LAST_S: Final = 0.5
"""With what a call may take (`CALL_TIMEOUT_S`), everything is back within 5 s of the server's return."""


class Backoff:
    """The pauses of one loop."""

    def __init__(self, first_s: float = FIRST_S, last_s: float = LAST_S) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._next_s = first_s

    def reset(self) -> None:
        """Start over: the thing works again."""
        self._next_s = self._first_s

    async def wait(self) -> None:
        """Pause; the next pause is twice as long, up to the bound."""
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, self._last_s)
        # Spread: all machines lose Redis at the same moment and must not return at the same one.
        await asyncio.sleep(pause_s * random.uniform(0.7, 1.0))  # noqa: S311 - no secret
