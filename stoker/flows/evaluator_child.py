"""The helper that evaluates expressions: `python -m stoker.flows.evaluator_child SECONDS`, with a socket as its standard input.

It answers one request after the other until the other end closes. It may be killed at any time: it has nothing to lose.
A signal at the death of the parent would come at the end of the thread that started it (prctl(2)), and `evaluate` is for
any thread; so an end of the input ends it while it is idle, and an alarm when it computes for longer than `SECONDS`.
"""

import importlib
import re
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from stoker.flows.cel import ExpressionFailed, value_of

LIMIT_S: Final = 5.0
"""Of one evaluation by the clock, on a machine that has other work too; the usual ones take microseconds."""
MEMORY_BYTES: Final = 1024**3
MAX_REQUEST_BYTES: Final = 64 * 1024**2
MAX_RESULT_BYTES: Final = 8 * 1024**2
"""Twice the largest body that the API takes by default; it becomes a part of the run's document."""
MAX_ERROR_CHARS: Final = 8000
"""An error holds the expression, and may hold values."""
_WORN_BYTES: Final = MEMORY_BYTES // 4
"""Memory that it had at most; what is not given back would be missing to those who come later."""
_LENGTH: Final = struct.Struct("!I")
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
_STATUS: Final = Path("/proc/self/status")


class Request(Struct, array_like=True):
    """An expression and its values."""

    expression: str
    values: dict[str, Any]


class Reply(Struct, array_like=True):
    """A value in JSON, or an error; `worn` asks for another helper next time."""

    value: Raw = Raw(b"null")
    error: str = ""
    worn: bool = False


def answer(request: bytes) -> Reply:
    """What a request gives. Computes in this process."""
    try:
        asked = msgspec.json.decode(request, type=Request)
        value = msgspec.json.encode(value_of(asked.expression, asked.values))
    except (ExpressionFailed, RecursionError, OverflowError, UnicodeError) as error:
        return Reply(error=(str(error) or type(error).__name__)[:MAX_ERROR_CHARS])
    if len(value) > MAX_RESULT_BYTES:
        return Reply(
            error=f"{asked.expression!r} gives {len(value)} bytes; {MAX_RESULT_BYTES} are allowed. "
            "Let an app compute it."
        )
    return Reply(value=Raw(value))


def packed(payload: bytes) -> bytes:
    """A message: its length in four bytes, then itself."""
    return _LENGTH.pack(len(payload)) + payload


def receive(connection: socket.socket, deadline: float | None = None) -> bytes:
    """The next message.

    Args:
        connection: a stream.
        deadline: of `time.monotonic`, for all of it; None = none.

    Raises:
        EOFError: the other end closed.
        TimeoutError: the deadline passed.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    return bytes(_exactly(connection, length, deadline))


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    view, have = memoryview(data), 0
    while have < size:
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
        got = connection.recv_into(view[have:])
        if not got:
            raise EOFError
        have += got
    return data


def main() -> None:
    """Answer until the other end closes."""
    _confine()
    longest_s = float(sys.argv[1])
    with socket.socket(fileno=sys.stdin.fileno()) as parent:
        importlib.import_module("cel")
        parent.sendall(packed(b""))  # ready
        while True:
            try:
                request = receive(parent)
            except (EOFError, ConnectionError):
                return
            signal.setitimer(signal.ITIMER_REAL, longest_s)
            reply = answer(request)
            signal.setitimer(signal.ITIMER_REAL, 0)
            parent.sendall(packed(msgspec.json.encode(structs.replace(reply, worn=_is_worn()))))


def _is_worn() -> bool:
    """Whether this process had much memory. On Linux getrusage(2) also counts what the parent had before the exec."""
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT <= _WORN_BYTES:
        return False
    if not _STATUS.exists():
        return True
    own_kib = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)  # proc_pid_status(5)
    return own_kib is None or int(own_kib[1]) * 1024 > _WORN_BYTES


def _confine() -> None:
    """Bound the memory, leave no core files, and let nobody but the parent and the alarm end this process."""
    for kind, wanted in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (bound, bound))
    # A service manager tells the whole group to stop; the step that waits for an answer is finished first.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The kernel's own handling: Python's would wait for the evaluation's end.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})


if __name__ == "__main__":
    main()
