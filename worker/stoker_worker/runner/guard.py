"""A second process of the app's group, which ends the group when the daemon is gone.

The kernel's signal at the daemon's death (PR_SET_PDEATHSIG) reaches the app's process alone, and at once: its
own threads cannot end what the app started any more, and while the app holds the interpreter lock they do not
even run. This process does nothing else, so it can. It is no child of the app, which may wait for any child.
"""

import os
import select
import signal

_MAX_FD = 65_536
_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(fd: int) -> None:
    """Watch the other end of the socket `fd`, from a process of its own. Call before any thread is started."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            _watch(fd)
    finally:
        os._exit(0)


def _watch(fd: int) -> None:
    for number in _DEAF_TO:  # meant for the app; this process goes with SIGKILL, or last
        signal.signal(number, signal.SIG_IGN)
    os.closerange(0, fd)  # else the app's output would seem to go on after its end
    os.closerange(fd + 1, _MAX_FD)
    closed = select.poll()
    closed.register(fd, 0)  # hang-up is reported unasked
    closed.poll()
    os.killpg(0, signal.SIGKILL)
