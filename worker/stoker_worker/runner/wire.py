"""The runner's end of the socket: a thread that takes frames, and a `send` that any thread may call.

The thread is there because most apps block the event loop: the socket must be read, and a vanished daemon
noticed, all the same. End of file means that the daemon is gone: then the process ends at once.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable  # noqa: TC003 - evaluated in Wire
from pathlib import Path

from frames import Decoder, pack

READ_BYTES = 64 * 1024
"""At most in one read; below what the C library takes a mapping of its own for, which costs more than a run."""


class Wire:
    """The socket to the daemon."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        os.set_inheritable(fd, False)  # what the app starts must not hold the connection open
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.on_message: Callable[[dict], None] = ignore

    def start(self) -> None:
        """Take messages from now on, in a thread of their own."""
        threading.Thread(target=self._read, name="stoker-wire", daemon=True).start()

    def send(self, payload: bytes) -> None:
        """Send one JSON payload whole. A process that the app forked and that came back here ends instead."""
        if os.getpid() != self._pid:
            os._exit(0)
        frame = pack(payload)
        with self._lock:
            self._socket.sendall(frame)

    def tell(self, kind: str, **fields: object) -> None:
        """Send a message of the runner's own making. Half of a surrogate pair, which is no text, becomes a mark."""
        text = json.dumps({"type": kind, **fields}, ensure_ascii=False)
        self.send(text.encode("utf-8", "replace"))

    def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := self._socket.recv(READ_BYTES):
                decoder.feed(data)
                while (payload := decoder.next()) is not None:
                    self.on_message(json.loads(payload))
        finally:
            end_group()


def ignore(_message: dict) -> None:
    """Until somebody listens."""


def close_others(keep: int) -> None:
    """Close what this process inherited beside its three streams and the socket `keep`."""
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number > sys.stderr.fileno() and number != keep:
            with contextlib.suppress(OSError):  # the one that listed the folder is gone already
                os.close(number)


def end_group() -> None:
    """End this process and what it started: nobody is left who could use the result."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
