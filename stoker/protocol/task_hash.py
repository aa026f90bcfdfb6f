"""What is stored of a task, as it is read. An engine may write the hash, so any of it may be nonsense."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from stoker.core.events import Event
from stoker.core.messages import LogLine, TaskId, TaskRequest, TaskView
from stoker.core.states import TERMINAL, TaskState
from stoker.log import get_logger

_log = get_logger("tasks")
_request = msgspec.json.Decoder(TaskRequest)
_HISTORY = re.compile(r"(?<![0-9])([0-9]{1,18}),([0-9]{1,2}),([0-9]{1,18});")
"""The moves of a task as they are stored: attempt, state, time. Longer numbers are nonsense of an engine."""
_NUMBER_MAX = 10**18
"""The most that is believed of what an engine may write: everybody can calculate with it."""
_STATES = frozenset(TaskState)
NOT_BEGUN = "waiting for the background work to begin it (stoker jobs)"
NOT_LOOKED_AT = "waiting for the scheduler to look at it"


class Standing(Struct, frozen=True, kw_only=True):
    """How far a task has come and what it gave, without what it was asked."""

    state: TaskState
    attempt: int
    output: bytes  # JSON
    error: str
    error_code: str
    delta_last: int = 0  # number of the last increment of the output that this attempt has written
    session_id: str = ""  # where it was asked for


class _InSession(Struct):
    """What is read of a request for its session."""

    session_id: str = ""


_in_session = msgspec.json.Decoder(_InSession)
STANDING_FIELDS = ("state", "attempt", "output", "error", "error_code", "delta_attempt", "delta_last")
"""What is asked of a task for its standing; the request may follow."""


def view_of(
    task_id: TaskId, fields: dict[bytes, bytes], logs: tuple[LogLine, ...], reason: str
) -> TaskView | None:
    """A task; None when an engine, which may write the hash, has put nonsense into it."""
    try:
        return _view(fields, logs, reason)
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        _log.warning(Event.TASK_UNREADABLE, task_id=task_id, reason=type(error).__name__)
        return None


def standing_of(task_id: TaskId, values: Sequence[bytes | None]) -> Standing | None:
    """A standing from the values of `STANDING_FIELDS`, and of the request; None when there is no task, or it is spoiled."""
    state, attempt, output, error, error_code, delta_attempt, delta_last, *request = values
    if state is None:
        return None
    try:
        return Standing(
            state=TaskState(int(state)),
            attempt=int(attempt or b""),
            delta_last=int(delta_last or b"") if delta_attempt == attempt else 0,
            output=output or b"null",
            error=_text(error),
            error_code=_text(error_code),
            session_id=_in_session.decode(request[0] or b"").session_id if request else "",
        )
    except (ValueError, msgspec.MsgspecError) as exc:
        _log.warning(Event.TASK_UNREADABLE, task_id=task_id, reason=type(exc).__name__)
        return None


def _delay_reason(fields: Mapping[bytes, bytes]) -> str:
    """Why a task waits that no worker could have now. An engine may have written what is no time."""
    try:
        until = datetime.fromtimestamp(int(fields[b"due"]) / 1000, UTC).isoformat(timespec="seconds")
        attempt, why = fields[b"attempt"].decode(), _text(fields.get(b"due_why"))
    except (ValueError, KeyError, OverflowError, OSError):
        return "it waits for its time"
    until = until.replace("+00:00", "Z")
    if attempt == "0":
        return f"it is to run at {until}, not before"
    return f"it is tried again at {until}: attempt {attempt} failed" + (f" ({why})" if why else "")


def is_looked_at(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the scheduler tells why a task waits."""
    return fields.get(b"state") == b"2" and b"document" not in fields and not fields.get(b"due")


def queue_reason(fields: Mapping[bytes, bytes], known: Mapping[bytes, str]) -> str:
    """Why a task waits, or ''. `known`: what the scheduler tells, by kinds of tasks."""
    if fields.get(b"state") != b"2":
        return ""
    if is_looked_at(fields):
        return known.get(fields.get(b"group", b""), NOT_LOOKED_AT)
    return NOT_BEGUN if b"document" in fields else _delay_reason(fields)


def moves_of(text: str) -> tuple[tuple[int, int, int], ...]:
    """What of a history are moves; an engine may have put anything between them, or in their place."""
    found = ((int(attempt), int(entered), int(at)) for attempt, entered, at in _HISTORY.findall(text))
    return tuple(move for move in found if move[1] in _STATES)


def _text(raw: bytes | None) -> str:
    """What is stored as text; what is none of it must not hide the task."""
    return (raw or b"").decode(errors="replace")


def _number(text: bytes) -> int:
    return max(-_NUMBER_MAX, min(int(text), _NUMBER_MAX))


def _view(fields: dict[bytes, bytes], logs: tuple[LogLine, ...], reason: str) -> TaskView:
    state = TaskState(int(fields[b"state"]))
    return TaskView(
        request=_request.decode(fields[b"request"]),
        state=state,
        attempt=_number(fields[b"attempt"]),
        created_ms=_number(fields[b"created"]),
        updated_ms=_number(fields[b"updated"]),
        engine_id=_text(fields.get(b"engine")),
        worker_id=_text(fields.get(b"worker")),
        output=msgspec.Raw(fields.get(b"output", b"null")),
        output_meta=msgspec.Raw(fields.get(b"output_meta", b"null")),
        error=_text(fields.get(b"error")),
        error_code=_text(fields.get(b"error_code")),
        cancel_requested=state not in TERMINAL and bool(fields.get(b"cancel")),
        queue_reason=reason,
        due_ms=int(fields.get(b"due") or 0) if state is TaskState.QUEUED else 0,
        log_dropped=int(fields.get(b"log_dropped", b"0")),
        history=moves_of(_text(fields[b"history"])),
        logs=logs,
        cursor=fields.get(b"cursor", b"0-0").decode(),
        log_last=int(fields.get(b"log_last", b"0")),
        delta_last=int(fields[b"delta_last"]) if fields.get(b"delta_attempt") == fields[b"attempt"] else 0,
    )
