"""What runs of one kind took lately, and how long one that has begun will still take. Pure bookkeeping."""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

RECENT: Final = 64
"""Measurements that count: enough to know the long ones too, and what the app did last year is forgotten."""


class Durations:
    """The latest durations, in seconds."""

    __slots__ = ("_latest", "_sorted", "_tails")

    def __init__(self, seconds: Iterable[float]) -> None:
        self._latest: deque[float] = deque(seconds, maxlen=RECENT)
        self._count()

    def learn(self, seconds: float) -> None:
        """Count one more, in the place of the oldest."""
        self._latest.append(seconds)
        self._count()

    def mean_s(self) -> float:
        """How long one takes."""
        return self.left_s(0.0)

    def left_s(self, elapsed_s: float) -> float:
        """How long one goes on that has taken `elapsed_s`: the mean of those that took longer, less what has passed.

        Longer than all: half as long again.
        """
        place = bisect_right(self._sorted, elapsed_s) if elapsed_s > 0 else 0
        longer = len(self._sorted) - place
        return self._tails[place] / longer - elapsed_s if longer else elapsed_s / 2

    def _count(self) -> None:
        self._sorted = sorted(self._latest)
        self._tails = list(accumulate(reversed(self._sorted)))[::-1]


class Recent:
    """Durations under string keys, of bounded number."""

    def __init__(self, max_keys: int) -> None:
        self._durations: OrderedDict[str, Durations] = OrderedDict()
        self._max_keys = max_keys

    def learn(self, key: str, seconds: float) -> None:
        """Count a measurement."""
        known = self._durations.get(key)
        if known is None:
            self._durations[key] = Durations((seconds,))
        else:
            known.learn(seconds)
        self._durations.move_to_end(key)
        if len(self._durations) > self._max_keys:
            self._durations.popitem(last=False)

    def get(self, *keys: str, default: Durations) -> Durations:
        """Those of the first key that has some."""
        return next((self._durations[key] for key in keys if key in self._durations), default)

    def __contains__(self, key: str) -> bool:
        return key in self._durations
