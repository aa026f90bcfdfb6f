"""Waits for ended processes that nobody else waits for: orphans, where a part is the first process of a container.

The kernel gives an orphan to an ancestor that adopts. In a container without an init that is the part itself, and what
ended would stay in the table of processes until that is full. Who starts a process here waits for its end at once;
so what has ended and is still there at the next look is an orphan.
"""

import asyncio
import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Final

EVERY_S: Final = 10.0
"""Between two looks the event loop has run, and with it whoever waits for a process of ours."""
_PR_GET_CHILD_SUBREAPER: Final = 37  # linux/prctl.h

Ended = frozenset[tuple[int, int]]
"""Process ids with the time of their start, because ids are given again."""


async def reap_orphans(every_s: float = EVERY_S) -> None:
    """Reap until cancelled; returns at once in a process that adopts nobody."""
    if not adopts():
        return
    before: Ended = frozenset()
    while True:
        await asyncio.sleep(every_s)
        before = reap(before)


def adopts() -> bool:
    """Whether orphans become children of this process."""
    if sys.platform != "linux":
        return False
    says = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(says))
    return os.getpid() == 1 or bool(says.value)


def reap(before: Ended) -> Ended:
    """Reap the children that had ended at the look before too; those that ended since, for the next look."""
    now = _ended_children()
    for pid, _ in now & before:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    return now - before


def _ended_children() -> Ended:
    if not _has_ended(os.P_ALL, 0):  # as a rule; /proc need not be read
        return frozenset()
    found = set()
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            # The name of the program is in parentheses, and may hold any of them itself.
            fields = place.read_bytes().rpartition(b")")[2].split()
            pid, state, parent, started = int(place.parent.name), fields[0], int(fields[1]), int(fields[19])
            # One whose first thread alone has ended is called a zombie too.
            if state == b"Z" and parent == os.getpid() and _has_ended(os.P_PID, pid):
                found.add((pid, started))
    return frozenset(found)


def _has_ended(kind: int, number: int) -> bool:
    """Whether such a child waits to be reaped; leaves it there."""
    try:
        return os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
