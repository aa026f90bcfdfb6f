"""Ends what an app's process left behind when it ended, also what went into a session of its own as a daemon.

Such a process is known by the mount namespace that it shares with the instance alone; where there is none, or the
instance ended before it could name it, by the instance's own FILE_CACHE_DIR in its environment: a private /tmp changes
TMPDIR. Blocking: call it in a thread.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final, Self

FILES_VARIABLE: Final = "FILE_CACHE_DIR"
ROUNDS: Final = 20
"""A stray that forks while it is ended is met in the next round; more rounds than that no fork wins."""


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
    """Kill all processes of an instance that has ended.

    Args:
        namespace: what /proc/<pid>/ns/mnt of the instance led to; "" when it named none.
        files: its FILE_CACHE_DIR.

    Returns:
        How many were killed.
    """
    marks = (namespace, f"{FILES_VARIABLE}={files}".encode())
    killed: set[int] = set()
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if pid not in killed and _end_if_marked(pid, *marks)]
        if not found:
            break
        killed.update(found)
    return len(killed)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _end_if_marked(pid: int, namespace: str, variable: bytes) -> bool:
    """Kill a process that has the mark. It is held by a descriptor, so that no other takes its number meanwhile."""
    with contextlib.suppress(OSError):  # it is gone, or another user's
        if not _is_marked(pid, namespace, variable):
            return False
        handle = os.pidfd_open(pid)
        try:
            if _is_marked(pid, namespace, variable):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def _is_marked(pid: int, namespace: str, variable: bytes) -> bool:
    place = Path(f"/proc/{pid}")
    if namespace:
        return os.readlink(place / "ns/mnt") == namespace
    return variable in (place / "environ").read_bytes().split(b"\0")
