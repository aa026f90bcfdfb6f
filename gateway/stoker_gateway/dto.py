"""Tasks as clients read them: the platform's TaskDTO, and the lines of a stream."""

import re
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import msgspec

from stoker.agents.chat import KIND as CHAT
from stoker.core.explanations import Explanation
from stoker.core.ids import short_id
from stoker.core.messages import LogLine, TaskRequest, TaskView
from stoker.core.states import TERMINAL, TaskState
from stoker.flows.records import RUN
from stoker_gateway.dialect import Dialect, ending_statuses, status_number

LINE_LIMIT_BYTES = 100 * 1024
"""aiohttp refuses longer lines: 128 KiB in its older versions."""
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, which are all that a calendar here has."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NON_ASCII = re.compile(r"[^\x00-\x7f]")

_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=4096)  # a task is written anew at each change, with the times of all its changes before
def iso(at_ms: int) -> str:
    """Milliseconds since 1970 as the platform writes times; the first or the last there is for one beyond them.

    An engine may have written what is no time, and must not be able to stop who shows it.
    """
    at = _EPOCH + timedelta(milliseconds=min(max(at_ms, FIRST_MS), LAST_MS))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EncodedLogs:
    """The newest lines of a log as JSON, each encoded once however many updates it is part of."""

    def __init__(self) -> None:
        self._lines: deque[msgspec.Raw] = deque()
        self._bytes = 0

    def add(self, task_id: str, lines: Iterable[LogLine]) -> None:
        """Take new lines; of the old ones as many go as no event could hold."""
        for line in lines:
            data = ascii_json(task_log(task_id, line))
            self._lines.append(msgspec.Raw(data))
            self._bytes += len(data) + 1
        while self._bytes > LINE_LIMIT_BYTES and len(self._lines) > 1:
            self._bytes -= len(bytes(self._lines.popleft())) + 1

    def fitting(self) -> list[msgspec.Raw]:
        """The lines, oldest first."""
        return list(self._lines)


def task_dto(
    view: TaskView, dialect: Dialect, user_id: str = "", logs: list[msgspec.Raw] | None = None
) -> dict[str, Any]:
    """The whole task; `output` is raw JSON, to be encoded as it is. `logs`: lines that are encoded already."""
    request, waiter = view.request, view.request.waiter
    return {
        "id": request.id,
        "short_id": short_id(request.id),
        "created_at": iso(view.created_ms),
        "updated_at": iso(view.updated_ms),
        "user_id": user_id,
        "team_id": user_id,
        "visibility": "private",
        "is_featured": False,
        "status": status_number(view.state, dialect, cancel_requested=view.cancel_requested),
        "status_text": view.state.wire_name,
        "app_id": request.app_id,
        "app_ref": request.app,
        "app_version_id": request.version_id,
        "app_variant": request.variant,
        "function": request.function,
        "infra": request.infra,
        "workers": request.workers,
        "engine_id": view.engine_id or None,
        "worker_id": view.worker_id or None,
        "attempt": view.attempt,
        "queue_reason": view.queue_reason or None,
        "run_at": iso(request.run_at_ms) if request.run_at_ms else None,
        "retry_of": request.retry_of or None,
        "webhook": request.webhook or None,
        "chat_id": waiter.id if waiter is not None and waiter.kind == CHAT else None,
        "chat_message_id": waiter.part if waiter is not None and waiter.kind == CHAT else None,
        "session_id": request.session_id or None,
        "flow_run_id": flow_run_of(request),
        "session_timeout": int(request.session_timeout_s) or None,
        "setup": request.setup,
        "input": request.input,
        "output": view.output,
        "output_meta": view.output_meta,
        "error": view.error or None,
        "error_code": view.error_code or None,
        "rating": "unrated",
        "events": task_events(view, dialect),
        "logs": [task_log(request.id, line) for line in view.logs] if logs is None else logs,
        "logs_dropped": view.log_dropped,
        "usage_events": [],
    }


def flow_run_of(request: TaskRequest) -> str | None:
    """The flow run that a task belongs to, or shows."""
    if request.flow is not None:
        return request.id
    return request.waiter.id if request.waiter is not None and request.waiter.kind == RUN else None


def task_events(view: TaskView, dialect: Dialect) -> list[dict[str, Any]]:
    """The states that the task entered, in order."""
    return [
        {
            "id": f"{view.request.id}-{number}",
            "task_id": view.request.id,
            "created_at": iso(at_ms),
            "event_time": iso(at_ms),
            "status": status_number(TaskState(state), dialect),
            "attempt": attempt,
        }
        for number, (attempt, state, at_ms) in enumerate(view.history)
    ]


def task_log(task_id: str, line: LogLine) -> dict[str, Any]:
    """One line of the log, in the platform's TaskLog. Its id ends in the attempt and the number."""
    at = iso(line.at_ms)
    return {
        "id": f"{task_id}-{line.attempt}-{line.number}",
        "created_at": at,
        "updated_at": at,
        "task_id": task_id,
        "log_type": line.type.number,
        "content": line.text,
    }


def explanation_dto(attempt: int, why: Explanation) -> dict[str, Any]:
    """Why an attempt ran where it did."""
    return {
        "attempt": attempt,
        "worker_id": why.candidates[0].worker_id if why.candidates else None,
        "reason": why.text,
        "candidates": [
            {
                "worker_id": each.worker_id,
                "start": each.start,
                "ready_s": each.ready_s,
                "cost_s": each.cost_s,
                "evict": list(each.evict),
                "parked": each.parked,
            }
            for each in why.candidates
        ],
    }


def timings_dto(view: TaskView, dialect: Dialect, now_ms: int) -> dict[str, Any]:
    """How long the task was in each state. Groups: the states of the last attempt, by name.

    A task whose history an engine has spoiled has fewer of both, or none.
    """
    events, groups = [], []
    for (_, state, at_ms), following in zip_longest(view.history, view.history[1:]):
        ended = following is None and TaskState(state) in TERMINAL
        until = following[2] if following else (at_ms if ended else now_ms)
        took = until - at_ms
        name = TaskState(state).wire_name
        events.append(
            {
                "status": status_number(TaskState(state), dialect),
                "status_text": name,
                "timestamp": iso(at_ms),
                "duration": _seconds(took),
                "duration_ms": took,
                "next_status": status_number(TaskState(following[1]), dialect) if following else None,
            }
        )
        if not ended:
            groups.append(
                {
                    "label": name,
                    "start_at": iso(at_ms),
                    "end_at": iso(until) if following else None,
                    "duration": _seconds(took),
                    "duration_ms": took,
                }
            )
    total = (view.updated_ms if view.state in TERMINAL else now_ms) - view.created_ms
    return {
        "task_id": view.request.id,
        "status": status_number(view.state, dialect, cancel_requested=view.cancel_requested),
        "total_duration": _seconds(total),
        "total_duration_ms": total,
        "groups": groups,
        "events": events,
    }


def stream_lines(
    view: TaskView, dialect: Dialect, user_id: str = "", logs: list[msgspec.Raw] | None = None
) -> list[bytes] | None:
    """The JSON of the next events of a stream: one, or two for a double ending.

    Args:
        logs: its newest lines, encoded; None = encode those of the view.

    Returns:
        ASCII JSON without line breaks, each under `LINE_LIMIT_BYTES` unless it is an ending that cannot be
        shortened; None when the client does better with a stream that closes without one.
    """
    dto = task_dto(view, dialect, user_id, logs)
    if view.state not in TERMINAL:
        return [shortened(dto, final=False)]
    line = shortened(dto, final=True)
    if len(line) > LINE_LIMIT_BYTES and dialect.reconciles:
        return None
    statuses = ending_statuses(view.state, dialect)
    if len(statuses) == 1:
        return [line]
    return [shortened(dto | {"status": status}, final=True) for status in statuses]


def shortened(dto: dict[str, Any], *, final: bool) -> bytes:
    """A task as one line; what may go is left out while it is too long: input, old log lines, a partial output."""
    line = ascii_json(dto)
    if len(line) <= LINE_LIMIT_BYTES:
        return line
    dto = dto | {"input": None}
    logs = dto["logs"]
    while len(line := ascii_json(dto)) > LINE_LIMIT_BYTES and logs:
        logs = logs[len(logs) // 2 + 1 :]
        dto["logs"] = logs
    if len(line) > LINE_LIMIT_BYTES and not final:
        dto["output"] = None
        line = ascii_json(dto)
    return line


def ascii_json(value: object) -> bytes:
    """JSON in ASCII: old clients split lines at every Unicode line break."""
    line: bytes = _encode(value)
    if line.isascii() and b"\n" not in line:
        return line
    text = line.decode().replace("\n", " ")  # only raw parts have line breaks, between their tokens
    return _NON_ASCII.sub(_escaped, text).encode()


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _seconds(took_ms: int) -> str:
    return f"{took_ms / 1000:.3f}s"
