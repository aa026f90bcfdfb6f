"""The memory of the machine, as far as this daemon and its apps may have it: the kernel's numbers, and those of its cgroups."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

RESERVE_SHARE: Final = 0.1
"""Of the machine's memory, what parking leaves free: the page cache makes loads faster for all."""
CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_GROUP: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """How much there is, and how much of it nobody uses."""

    total_bytes: int
    free_bytes: int

    @classmethod
    def now(cls) -> Self:
        """As of now; in a container with a limit (cgroup v2), what that limit leaves."""
        memory = psutil.virtual_memory()
        return cls(total_bytes=memory.total, free_bytes=memory.available).within(read_limits())

    @property
    def reserve_bytes(self) -> int:
        """What stays free."""
        return int(self.total_bytes * RESERVE_SHARE)

    def within(self, limits: list[tuple[int, int]]) -> Self:
        """The same within limits: (bytes that may be used, bytes that are)."""
        return type(self)(
            total_bytes=min([self.total_bytes, *(most for most, _ in limits)]),
            free_bytes=max(0, min([self.free_bytes, *(most - used for most, used in limits)])),
        )


def read_limits(own: Path = OWN_GROUP, root: Path = CGROUPS) -> list[tuple[int, int]]:
    """The memory limits of this process' cgroup and those above it, each with what is used; what cannot be read is left out."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if path is None:
        return []
    groups = [root / path, *(root / path).parents]
    found = [_limit_of(group) for group in groups if group.is_relative_to(root)]
    return [limit for limit in found if limit is not None]


def _limit_of(group: Path) -> tuple[int, int] | None:
    """Files that were read and are not in use count as used there, and are given back when memory is needed."""
    try:
        most = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else (int(most), max(0, used - int(stat.get("inactive_file", 0))))
