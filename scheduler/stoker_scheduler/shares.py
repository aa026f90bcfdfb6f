"""Fairness between API keys: virtual time. Each key's clock advances by the worker seconds it was given.

Start-time fair queueing (Goyal, Vin and Cheng 1997), but for one thing: the common clock, at which keys begin, also
advances by each waiting key's share of what is given, as in generalised processor sharing (Parekh and Gallager 1993).
By start times alone it stands still while ever new keys come, each with a task, and one that was given much
before would never have its turn again.
"""

from typing import Final

PRUNE_AT: Final = 10_000
"""Keys remembered before those that wait for nothing are forgotten."""


class Shares:
    """What each key was given. One that comes back starts where the others are, without savings."""

    def __init__(self) -> None:
        self._used_s: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._floor_s = 0.0

    def used_s(self, key_id: str) -> float:
        """The key's virtual time."""
        return self._used_s.get(key_id, self._floor_s)

    def join(self, key_id: str) -> None:
        """A task of this key was queued."""
        waiting = self._waiting.get(key_id, 0)
        if not waiting:
            self._used_s[key_id] = max(self._used_s.get(key_id, 0.0), self._floor_s)
            if len(self._used_s) > PRUNE_AT:
                self._prune()
        self._waiting[key_id] = waiting + 1

    def leave(self, key_id: str) -> None:
        """A task of this key does not wait any more."""
        left = self._waiting[key_id] - 1
        if left:
            self._waiting[key_id] = left
        else:
            del self._waiting[key_id]

    def charge(self, key_id: str, seconds: float) -> None:
        """Worker time was given to this key."""
        used = self.used_s(key_id)
        self._floor_s = max(self._floor_s, used)
        self._used_s[key_id] = used + seconds
        self._advance(seconds)

    def correct(self, key_id: str, seconds: float) -> None:
        """What was given turned out `seconds` longer (or shorter) than charged."""
        if key_id in self._used_s:
            self._used_s[key_id] = max(0.0, self._used_s[key_id] + seconds)
            self._advance(max(0.0, seconds))

    def _advance(self, seconds: float) -> None:
        self._floor_s += seconds / max(1, len(self._waiting))

    def _prune(self) -> None:
        self._used_s = {
            key: used for key, used in self._used_s.items() if key in self._waiting or used > self._floor_s
        }
