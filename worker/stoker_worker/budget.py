"""Keeps what this machine caches within a number of bytes: what was not used for longest goes first."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from stoker.core.events import Event
from stoker.log import get_logger
from stoker_worker.shelf import Entry, Shelf

DISK_SHARE: Final = 0.5
"""Of the file system, what environments and app code may take where nothing is set."""
DISK_RESERVE: Final = 0.1
"""Of the file system, what stays free where nothing is set: models, outputs and other programs need it."""

_log = get_logger("cache")


class Budget:
    """One number of bytes over several shelves.

    Args:
        shelves: what shares the budget.
        max_bytes: the budget; None = half of the file system, less while under a tenth of it is free.
    """

    def __init__(self, shelves: Iterable[Shelf], max_bytes: int | None) -> None:
        self._shelves = tuple(shelves)
        self._max_bytes = max_bytes

    def make_room(self) -> list[str]:
        """Remove the folders that were not used for longest until the rest fits; their keys.

        Folders in use and builds under way stay; they may exceed the budget for as long as they last.
        """
        entries = [entry for shelf in self._shelves for entry in shelf.entries()]
        total = sum(entry.size_bytes for entry in entries)
        limit = self._max_bytes if self._max_bytes is not None else self._default(total)
        gone = []
        for entry in decide_order(entries):
            if total <= limit:
                break
            if entry.shelf.evict(entry.key):
                total -= entry.size_bytes
                gone.append(entry.key)
                _log.info(
                    Event.CACHE_EVICTED,
                    kind=entry.shelf.path.name,
                    key=entry.key,
                    size_bytes=entry.size_bytes,
                    reason=f"the cache may hold {limit} bytes",
                )
        return gone

    def _default(self, held_bytes: int) -> int:
        place = next(path for path in _upwards(self._shelves[0].path) if path.exists())
        disk = shutil.disk_usage(place)
        return decide_limit(disk.total, disk.free, held_bytes)


def decide_order(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in the order in which they go."""
    return sorted(entries, key=lambda entry: (entry.used_ns, entry.key))


def decide_limit(total_bytes: int, free_bytes: int, held_bytes: int) -> int:
    """The budget where none is set: a share of the disk, and never what must stay free."""
    return max(
        min(int(total_bytes * DISK_SHARE), held_bytes + free_bytes - int(total_bytes * DISK_RESERVE)), 0
    )


def _upwards(path: Path) -> tuple[Path, ...]:
    return (path, *path.parents)
