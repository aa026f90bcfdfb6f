"""How quiet the machine is: what it takes to wake another process, and to have an append on the disk.

A warm task pays the first about fourteen times and the second four times, so that no latency can be compared with
that of another day without them.
"""

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable

ROUNDS = 100
PAUSE_S = 0.02
APPEND = b"x" * 1500
"""Bytes: what a task's submission adds to the append-only file."""


def median_us(once: Callable[[], object]) -> int:
    """Median of single calls with pauses between them, in microseconds."""
    took = []
    for _ in range(ROUNDS):
        time.sleep(PAUSE_S)
        begun = time.perf_counter()
        once()
        took.append(time.perf_counter() - begun)
    return round(statistics.median(took) * 1_000_000)


def wake_up_us() -> int:
    """A round trip to a process that sleeps. A quiet virtual machine says 20 to 70."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while theirs.recv(1):
            theirs.send(b"x")
        os._exit(0)
    theirs.close()
    found = median_us(lambda: (ours.send(b"x"), ours.recv(1)))
    ours.close()
    os.waitpid(child, 0)
    return found


def append_us() -> int:
    """An append and its way to the disk, where temporary files are."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return median_us(lambda: (file.write(APPEND), os.fdatasync(file.fileno())))


def described() -> str:
    return f"wake-up {wake_up_us()} µs, append on disk {append_us()} µs"


if __name__ == "__main__":
    print(described())
