"""A second process of the app's group, which ends the group when the daemon is gone.

The kernel's signal at the daemon's death (PR_SET_PDEATHSIG) reaches the app's process alone, and at once: its
own threads cannot end what the app started any more, and while the app holds the interpreter lock they do not
even run. This process does nothing else, so it can. It is no child of the app, which may wait for any child. Where the
app has a mount namespace of its own, whoever is in it ends too: also what left the group to go on as a daemon.
"""

import contextlib
import os
import select
import signal

_MAX_FD = 65_536
_ROUNDS = 100
_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(fd: int, *, alone: bool) -> None:
    """Watch the other end of the socket `fd`, from a process of its own. Call before any thread is started.

    `alone`: nobody else is in this mount namespace.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            _watch(fd, alone=alone)
    finally:
        os._exit(0)


def _watch(fd: int, *, alone: bool) -> None:
    for number in _DEAF_TO:  # meant for the app; this process goes with SIGKILL, or last
        signal.signal(number, signal.SIG_IGN)
    os.closerange(0, fd)  # else the app's output would seem to go on after its end
    os.closerange(fd + 1, _MAX_FD)
    closed = select.poll()
    closed.register(fd, 0)  # hang-up is reported unasked
    closed.poll()
    if alone:
        _end_namespace()
    os.killpg(0, signal.SIGKILL)


def _end_namespace() -> None:
    """End all others in this mount namespace. One that forks meanwhile is met in the next round."""
    mine = os.readlink("/proc/self/ns/mnt")
    for _ in range(_ROUNDS):
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_in(name, mine)]
        others = [pid for pid in found if pid != os.getpid()]
        if not others:
            return
        for pid in others:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _is_in(pid: str, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") == namespace
    except OSError:  # gone, or not ours
        return False
