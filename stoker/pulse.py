"""How long each loop of a process has heard nothing useful: what readiness and the metrics are made of.

A process that runs is not one that hears: after an outage of Redis a loop may wait on a connection that is dead.
Each loop beats after a read that Redis answered, also an empty one; `tell_loop` writes the silences of a process
into Redis, beside its loops and not in them, so that a deaf one is seen.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from stoker.core.errors import StoreUnavailable

TELL_S: Final = 2.0
"""Between two reports of a process. They are read by people and load balancers, who ask every few seconds."""


class Pulse:
    """The last useful read of each loop of this process. A loop counts from its first mention on."""

    def __init__(self, *loops: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beats = dict.fromkeys(loops, clock())

    def beat(self, loop: str, ago_s: float = 0.0) -> None:
        """`loop` had an answer just now, or some seconds ago."""
        self._beats[loop] = self._clock() - ago_s

    def forget(self, loop: str) -> None:
        """`loop` does not run now, and is not deaf."""
        self._beats.pop(loop, None)

    def silent_s(self) -> dict[str, float]:
        """Loop -> seconds since its last useful read."""
        now = self._clock()
        return {loop: round(now - at, 3) for loop, at in self._beats.items()}


class PulseStore(Protocol):
    """`stoker.protocol.pulses.Pulses`, as far as a part tells of itself."""

    async def tell(
        self, process: str, part: str, silent_s: dict[str, float], counts: Mapping[str, int]
    ) -> None: ...


async def tell_loop(
    store: PulseStore,
    process: str,
    part: str,
    silences: Callable[[], dict[str, float]],
    counts: Callable[[], Mapping[str, int]] = dict,
) -> None:
    """Report the silences of a process, and what it has done, until cancelled. While Redis is away there is nobody to tell."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            await store.tell(process, part, silences(), counts())
        await asyncio.sleep(TELL_S)
