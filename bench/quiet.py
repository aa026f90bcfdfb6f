"""How quiet the machine is: what it takes to wake another process, which a task pays about fourteen times."""

import os
import socket
import statistics
import time

ROUNDS = 100
PAUSE_S = 0.02


def wake_up_us() -> int:
    """Median round trip to a process that sleeps, in microseconds. A quiet virtual machine says 20 to 70."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while theirs.recv(1):
            theirs.send(b"x")
        os._exit(0)
    theirs.close()
    took = []
    for _ in range(ROUNDS):
        time.sleep(PAUSE_S)
        begun = time.perf_counter()
        ours.send(b"x")
        ours.recv(1)
        took.append(time.perf_counter() - begun)
    ours.close()
    os.waitpid(child, 0)
    return round(statistics.median(took) * 1_000_000)


if __name__ == "__main__":
    print(wake_up_us())
