"""When a run may begin, how long its parts may take, how often it is tried: what a request says, checked."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from stoker.core.apps import AppVersion
from stoker.core.errors import InvalidRequest
from stoker.core.limits import BadLimit, Bounds, TaskLimits, decide_limits, read_retry, read_timeouts

T = TypeVar("T")

AHEAD_MAX_S: Final = 366 * 86_400
"""A task that waits takes memory of the server."""


def task_limits(timeouts: Any, retry: Any, version: AppVersion, bounds: Bounds) -> TaskLimits:
    """What holds for a task of this version.

    Raises:
        InvalidRequest: `timeouts` or `retry` is not what it may be, or more than the system allows.
    """
    return decide_limits(
        _read(read_timeouts, timeouts), _read(read_retry, retry), version.timeouts, version.retry, bounds
    )


def read_run_at(value: str | float | None, session: str | None, now_s: float | None = None) -> int:
    """The time of `run_at` in milliseconds, 0 = at once.

    Args:
        value: an ISO 8601 time (without an offset it is UTC), or seconds since 1970.
        session: what the run says of sessions.
        now_s: for tests.

    Raises:
        InvalidRequest: no time, too far ahead, or a task of a session.
    """
    if value in (None, "", 0):
        return 0
    at_s = _seconds(value)
    if at_s is None:
        raise InvalidRequest(
            f"Input validation failed: run_at: {str(value)[:100]!r} is no time; give ISO 8601 "
            "(2030-01-31T12:00:00Z) or seconds since 1970"
        )
    if session:
        raise InvalidRequest(
            "Input validation failed: run_at: a session's tasks run one after the other, as they come; leave it out"
        )
    if at_s > (time.time() if now_s is None else now_s) + AHEAD_MAX_S:
        raise InvalidRequest(
            f"Input validation failed: run_at: {str(value)[:100]!r} is more than {AHEAD_MAX_S // 86_400} days ahead"
        )
    return int(max(0.0, at_s) * 1000)


def _seconds(value: str | float | None) -> float | None:
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            at = datetime.fromisoformat(str(value).strip())
        except ValueError:
            return None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return seconds if math.isfinite(seconds) else None


def _read(read: Callable[[object], T], value: object) -> T:
    try:
        return read(value)
    except BadLimit as error:
        raise InvalidRequest(f"Input validation failed: {error}") from error
