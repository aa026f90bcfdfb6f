"""Whose a process on a GPU is: of which groups, and below which processes, also in sessions of their own."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

GENERATIONS_MAX: Final = 32
"""How far up a process is followed; launchers of launchers are five deep."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has memory of a device. Reads /proc: make one in the sampling thread.

    `kin`: itself, its group, and those of all above it. `alive`: it is there, and of this process namespace.
    """

    uuid: str
    used_bytes: int
    kin: frozenset[int]
    alive: bool

    @classmethod
    def of(cls, uuid: str, pid: int, used_bytes: int) -> Self:
        return cls(uuid, used_bytes, kin_of(pid), _group(pid) >= 0)


def kin_of(pid: int) -> frozenset[int]:
    """A process, its group, and those of all above it."""
    kin: set[int] = set()
    for _ in range(GENERATIONS_MAX):
        if pid <= 1:
            break
        kin |= {pid, _group(pid)}
        pid = _parent(pid)
    return frozenset(kin)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:  # gone, or of another process namespace
        return -1


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name of the program is in parentheses, and may hold any of them itself.
    return int(stat.rpartition(b")")[2].split()[1])
