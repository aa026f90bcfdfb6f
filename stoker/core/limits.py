"""How long each part of a task may take and how often it is tried: what an app, a request and the settings say. Pure.

What a request says counts before what its app says, and that before the system's default. Nothing goes beyond the
bounds: a request that asks for more is refused, an app gets what there is.
"""

from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct, structs

from stoker.core.errors import InvalidRequest


class BadLimit(Exception):
    """What a document says is no limit; the text names the key and what it may be."""


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds; 0 = not said. The keys of `timeouts` in inf.yml and in a request."""

    queue: float = 0  # the whole time in the queue
    no_match: float = 0  # while no worker is known that could run it
    setup: float = 0  # preparing, serving and setting up together
    run: float = 0
    upload: float = 0  # storing the files of the result


class Retry(Struct, frozen=True, kw_only=True):
    """How often to try; None = not said. The keys of `retry` in inf.yml and in a request."""

    max_attempts: int | None = None
    delay: float | None = None  # seconds before the second attempt; it doubles with each further one
    app_errors: bool | None = None  # also what the app itself raised


DELAY_MAX_S: Final = 3_600
KEEP_ALIVE_MAX_S: Final = 30 * 86_400
"""For longer than a month nobody means a time, but for ever: that is a pin, or no keep-alive at all."""
TIMEOUTS: Final = tuple(field.name for field in structs.fields(Timeouts))
RETRY: Final = tuple(field.name for field in structs.fields(Retry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of the settings: the defaults, and the most that anybody may ask for."""

    attempts: int = 3
    attempts_max: int = 10
    delay_s: float = 1.0
    timeout_max_s: float = 7 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """What holds for one task. A timeout of 0 = the default of who keeps it."""

    timeouts: Timeouts
    max_attempts: int
    retry_delay_s: float
    retry_app_errors: bool


def read_timeouts(value: object) -> Timeouts:
    """The timeouts in a part of a document.

    Raises:
        BadLimit: says which key is wrong and what it may be.
    """
    found = {}
    for key, seconds in _mapping(value, "timeouts", TIMEOUTS).items():
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, (int, float))
            or not 0 < seconds < float("inf")
        ):
            raise BadLimit(f"timeouts.{key}: {seconds!r} is no number of seconds above 0")
        found[key] = float(seconds)
    return Timeouts(**found)


def read_retry(value: object) -> Retry:
    """The retry rules in a part of a document.

    Raises:
        BadLimit: says which key is wrong and what it may be.
    """
    given = _mapping(value, "retry", RETRY)
    attempts, delay, app_errors = given.get("max_attempts"), given.get("delay"), given.get("app_errors")
    if attempts is not None and (isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1):
        raise BadLimit(f"retry.max_attempts: {attempts!r} is no whole number from 1 on (1 = no retry)")
    if delay is not None and (
        isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay <= DELAY_MAX_S
    ):
        raise BadLimit(f"retry.delay: {delay!r} is no number of seconds from 0 to {DELAY_MAX_S}")
    if app_errors is not None and not isinstance(app_errors, bool):
        raise BadLimit(f"retry.app_errors: {app_errors!r} is neither true nor false")
    return Retry(max_attempts=attempts, delay=delay, app_errors=app_errors)


def read_keep_alive(value: object) -> float | None:
    """For how many seconds after its last task an instance stays; None = not said.

    Raises:
        BadLimit: it is no number of seconds, or out of bounds.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= KEEP_ALIVE_MAX_S:
        raise BadLimit(
            f"keep_alive: {value!r} is no number of seconds from 0 (not kept after a task) to {KEEP_ALIVE_MAX_S}"
        )
    return float(value)


def decide_limits(
    timeouts: Timeouts, retry: Retry, app_timeouts: Timeouts, app_retry: Retry, bounds: Bounds
) -> TaskLimits:
    """What holds for a task whose request says `timeouts` and `retry`.

    Raises:
        InvalidRequest: the request asks for more than the system allows; names the field and the bound.
    """
    for key in TIMEOUTS:
        if getattr(timeouts, key) > bounds.timeout_max_s:
            raise InvalidRequest(
                f"Input validation failed: timeouts.{key}: {getattr(timeouts, key):g} s is too long; this system "
                f"allows {bounds.timeout_max_s:g} s (STOKER_TIMEOUT_MAX_S)"
            )
    if (retry.max_attempts or 0) > bounds.attempts_max:
        raise InvalidRequest(
            f"Input validation failed: retry.max_attempts: {retry.max_attempts} are too many; this system allows "
            f"{bounds.attempts_max} (STOKER_RETRY_ATTEMPTS_MAX)"
        )
    chosen = {key: getattr(timeouts, key) or getattr(app_timeouts, key) for key in TIMEOUTS}
    attempts = _first(retry.max_attempts, app_retry.max_attempts, bounds.attempts)
    return TaskLimits(
        timeouts=Timeouts(**{key: min(seconds, bounds.timeout_max_s) for key, seconds in chosen.items()}),
        max_attempts=min(attempts, bounds.attempts_max),
        retry_delay_s=_first(retry.delay, app_retry.delay, bounds.delay_s),
        retry_app_errors=_first(retry.app_errors, app_retry.app_errors, False),
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _mapping(value: object, name: str, known: tuple[str, ...]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadLimit(f"{name}: {value!r} is no mapping; its keys may be {', '.join(known)}")
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise BadLimit(f"{name}: {', '.join(unknown)} unknown; it may have {', '.join(known)}")
    return {key: item for key, item in value.items() if item is not None}
