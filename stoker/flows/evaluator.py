"""Evaluation in a helper process, because nothing can stop CEL on its way but the end of its process.

The helper starts with the first expression, is kept, and is killed when an evaluation takes too long.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from stoker.core.errors import StokerError
from stoker.flows.cel import ExpressionFailed
from stoker.flows.evaluator_child import (
    LIMIT_S,
    MAX_REQUEST_BYTES,
    MEMORY_BYTES,
    Reply,
    Request,
    packed,
    receive,
)

START_TIMEOUT_S: Final = 30.0
"""An interpreter and its imports: half a second, and more on a loaded machine."""
KILL_TIMEOUT_S: Final = 5.0
ORPHAN_S: Final = 1.0
"""How much longer than it may a helper computes whose parent is gone."""
_LOADER: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Some interpreters do not find their own library without these."""


class Evaluator:
    """One helper process and the way to it. Any thread may call; one evaluation runs at a time."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        """Start nothing yet.

        Args:
            limit_s: seconds that one evaluation may take.
        """
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._helper: _Helper | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the helper, if there is one."""
        helper = self._helper
        return helper.process.pid if helper is not None else None

    def evaluate(self, expression: str, values: Mapping[str, Any]) -> Any:
        """See `stoker.flows.expressions.evaluate`."""
        request = _request(expression, values)
        with self._lock:
            reply = self._ask(expression, request)
        if reply.error:
            raise ExpressionFailed(reply.error)
        return msgspec.json.decode(reply.value)

    def close(self) -> None:
        """End the helper. May be called twice or first; the next evaluation starts another."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """In a forked process: the helper is the parent's."""
        self._lock = threading.Lock()
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.connection.close()
            helper.process.returncode = 0  # else it would be waited for

    def _ask(self, expression: str, request: bytes) -> Reply:
        connection = self._connected()
        kept = False
        try:
            payload = _exchange(connection, request, self._limit_s)
            reply = msgspec.json.decode(payload, type=Reply)
            kept = not reply.worn
        except TimeoutError as error:
            raise ExpressionFailed(
                f"{expression!r} took longer than {self._limit_s:g} s; let an app compute it"
            ) from error
        except (OSError, EOFError) as error:
            raise ExpressionFailed(
                f"{expression!r} ended the process that computed it, which may have {MEMORY_BYTES} bytes of "
                "memory; let an app compute it"
            ) from error
        finally:
            # Also after any other error: what the helper still says would answer the next request.
            if not kept:
                self._end()
        return reply

    def _connected(self) -> socket.socket:
        helper = self._helper
        if helper is None or helper.process.poll() is not None:
            self._end()
            helper = self._helper = _start(self._limit_s)
        return helper.connection

    def _end(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.end()


class _Helper(Struct, frozen=True):
    process: subprocess.Popen[bytes]
    connection: socket.socket

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(KILL_TIMEOUT_S)


def _start(limit_s: float) -> _Helper:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "stoker.flows.evaluator_child", str(limit_s + ORPHAN_S)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _LOADER if name in os.environ},
                process_group=0,  # Ctrl-C is for the parts
            )
    except OSError as error:
        ours.close()
        raise StokerError(f"the process that evaluates expressions did not start: {error}") from error
    helper, ready = _Helper(process, ours), False
    try:
        receive(ours, time.monotonic() + START_TIMEOUT_S)
        ready = True
    except (OSError, EOFError) as error:
        raise StokerError(f"the process that evaluates expressions did not start: {error!r}") from error
    finally:
        if not ready:
            helper.end()
    return helper


def _request(expression: str, values: Mapping[str, Any]) -> bytes:
    try:
        request = msgspec.json.encode(Request(expression, dict(values)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ExpressionFailed(f"{expression!r}: its values are no JSON: {error}") from error
    if len(request) > MAX_REQUEST_BYTES:
        raise ExpressionFailed(
            f"{expression!r} gets {len(request)} bytes; {MAX_REQUEST_BYTES} are allowed. Let an app compute it."
        )
    return request


def _exchange(connection: socket.socket, request: bytes, limit_s: float) -> bytes:
    """Send a request and return the answer.

    Raises:
        TimeoutError: not within `limit_s`, both ways together.
        EOFError, OSError: the other end is gone.
    """
    deadline = time.monotonic() + limit_s
    connection.settimeout(limit_s)
    connection.sendall(packed(request))
    return receive(connection, deadline)


shared: Final = Evaluator()
"""The one of this process."""
os.register_at_fork(after_in_child=shared.forget)
atexit.register(shared.close)
