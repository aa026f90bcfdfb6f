"""Ends what an app's process left behind when it ended, also what went into a session of its own as a daemon.

Such a process is known by the mount namespace that it shares with the instance alone; where there is none, or the
instance ended before it could name it, by the instance's own FILE_CACHE_DIR in its environment: a private /tmp changes
TMPDIR. Blocking: call it in a thread.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final, Self

FILES_VARIABLE: Final = "FILE_CACHE_DIR"
ROUNDS: Final = 20
"""A stray that forks while it is ended is met in the next round; more rounds than that no fork wins."""
BEGINNING_S: Final = 0.05
"""Until the next round, when a process has just begun a program: microseconds, but it may wait for its disk."""


class Namespace:
    """The mount namespace of an instance, held open: the kernel gives the number of one that is gone to the next.

    `name`: what /proc/<pid>/ns/mnt leads to; "" when the instance has none of its own.
    """

    def __init__(self, name: str = "", descriptor: int = -1) -> None:
        self.name = name
        self._descriptor = descriptor

    @classmethod
    def hold(cls, pid: int, name: str) -> Self:
        """The namespace that a living process named as its own; none when it is gone already."""
        if not name:
            return cls()
        try:
            descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return cls()
        if os.readlink(f"/proc/self/fd/{descriptor}") != name:  # another process has the pid by now
            os.close(descriptor)
            return cls()
        return cls(name, descriptor)

    def release(self) -> None:
        """Let the kernel have it. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def end_strays(namespace: str, files: str) -> int:
    """Kill all processes of an instance that has ended. It waits only for those that cannot be known yet.

    Args:
        namespace: what /proc/<pid>/ns/mnt of the instance led to; "" when it named none.
        files: its FILE_CACHE_DIR.

    Returns:
        How many were killed.
    """
    marks = (namespace, f"{FILES_VARIABLE}={files}".encode())
    killed: set[int] = set()
    for _ in range(ROUNDS):
        looked = {pid: _end_if_marked(pid, *marks) for pid in _processes() if pid not in killed}
        found = {pid for pid, marked in looked.items() if marked}
        killed |= found
        if not found and None not in looked.values():
            break
        if not found:
            time.sleep(BEGINNING_S)
    return len(killed)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _end_if_marked(pid: int, namespace: str, variable: bytes) -> bool | None:
    """Kill a process that has the mark. It is held by a descriptor, so that no other takes its number meanwhile."""
    with contextlib.suppress(OSError):  # it is gone, or another user's
        marked = _is_marked(pid, namespace, variable)
        if not marked:
            return marked
        handle = os.pidfd_open(pid)
        try:
            marked = _is_marked(pid, namespace, variable)
            if marked:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            return marked
        finally:
            os.close(handle)
    return False


def _is_marked(pid: int, namespace: str, variable: bytes) -> bool | None:
    """Whether a process has the mark; None while nobody can tell."""
    place = Path(f"/proc/{pid}")
    if namespace:
        return os.readlink(place / "ns/mnt") == namespace
    environ = (place / "environ").read_bytes()
    return variable in environ.split(b"\0") if environ or not _is_beginning(place) else None


def _is_beginning(place: Path) -> bool:
    """Whether a process whose environment read as empty has one, or the kernel has not placed all of it yet.

    The kernel says where the code ends when the environment is in its place. A thread of the kernel and a process that
    has ended have no memory.
    """
    fields = (place / "stat").read_bytes().rpartition(b")")[2].split()
    vsize, code_end, env_start, env_end = (
        int(fields[number - 3]) for number in (23, 27, 50, 51)
    )  # as proc(5)
    return vsize > 0 and (code_end == 0 or env_end > env_start)
