"""The log of a task: page by page, whole as text, or as it grows."""

from collections.abc import AsyncIterator
from typing import Any, Final

from litestar import get
from litestar.response import Stream

from stoker.core.errors import InvalidRequest
from stoker.core.messages import LogLine, LogType, TaskId, TaskView
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.dialect import Dialect, status_number
from stoker_gateway.door import caller_of
from stoker_gateway.dto import ascii_json, task_events, task_log
from stoker_gateway.log_reader import LogReader, Position, Wanted
from stoker_gateway.log_stream import LogStream, Quiet
from stoker_gateway.numbers import whole
from stoker_gateway.routes.tasks import STREAM_HEADERS
from stoker_gateway.services import Answer, AnyRequest, answer, own_task, services_of
from stoker_gateway.streams import HEARTBEAT_COMMENT, HEARTBEAT_LINE, media_type

PAGE_LINES: Final = 10_000
PAGE_CHARS: Final = 4 * 1024 * 1024
"""A page ends early with this much text."""


@get("/tasks/{task_id:str}/logs", tags=["tasks"], summary="Read a task's log")
async def read_logs(
    request: AnyRequest,
    task_id: str,
    cursor: str = "",
    limit: int = PAGE_LINES,
    attempt: int = 0,
    follow: bool = False,
) -> Answer | Stream:
    """The complete log, one entry a line, from the first attempt on; `next_cursor` leads to the next page.

    `attempt=2` and `type=run,setup` choose lines. `Accept: text/plain` downloads everything as text. `follow=1` sends
    each line when it comes, as NDJSON or server-sent events, until the task has ended. What was dropped is counted
    by a line in its place, and in `logs_dropped`.
    """
    view = await own_task(request, task_id, with_logs=False)
    services, caller = services_of(request), caller_of(request)
    wanted = Wanted(attempt=attempt, types=wanted_types(request.query_params.get("type", "")))
    reader = LogReader(services.store, services.blobs, TaskId(task_id), wanted)
    reader.start_at(parse_cursor(cursor))
    stream = LogStream(services.store, services.hub, services.settings.heartbeat_s, reader, TaskId(task_id))
    if "text/plain" in caller.headers.get("accept", ""):
        return Stream(as_text(stream, follow=follow), media_type="text/plain; charset=utf-8")
    if follow:
        body = as_events(stream, task_id, caller.dialect)
        return Stream(body, media_type=media_type(caller.dialect), headers=STREAM_HEADERS)
    return answer(request, await log_page(view, caller.dialect, reader, max(1, min(limit, PAGE_LINES))))


async def log_page(view: TaskView, dialect: Dialect, reader: LogReader, limit: int) -> dict[str, Any]:
    """One page, in the platform's form of a log."""
    state = await reader.refresh()
    lines: list[LogLine] = []
    chars, following = 0, ""
    async for batch in reader.lines(state):
        for line in batch:
            if len(lines) == limit or chars > PAGE_CHARS:
                following = f"{lines[-1].attempt}-{lines[-1].number}"
                break
            lines.append(line)
            chars += len(line.text)
        if following:
            break
    task_id = view.request.id
    return {
        "task_id": task_id,
        "status": status_number(view.state, dialect, cancel_requested=view.cancel_requested),
        "events": task_events(view, dialect),
        "logs": [task_log(task_id, line) for line in lines],
        "logs_dropped": sum(chunk.dropped for chunks in state.chunks.values() for chunk in chunks),
        "next_cursor": following or None,
        "has_next": bool(following),
    }


async def as_text(stream: LogStream, *, follow: bool) -> AsyncIterator[bytes]:
    """The lines and nothing else."""
    async for item in stream.items(follow=follow):
        if not isinstance(item, Quiet | TaskView):
            yield "".join(f"{line.text}\n" for line in item).encode(errors="replace")


async def as_events(stream: LogStream, task_id: str, dialect: Dialect) -> AsyncIterator[bytes]:
    """Each line as an event; the last one says how the task ended."""
    async for item in stream.items(follow=True):
        if isinstance(item, Quiet):
            yield HEARTBEAT_LINE if dialect.ndjson else HEARTBEAT_COMMENT
        elif isinstance(item, TaskView):
            end = {"type": "end", "task_id": task_id, "status": status_number(item.state, dialect)}
            line = ascii_json(end | {"status_text": item.state.wire_name})
            yield line + b"\n" if dialect.ndjson else b"event: done\ndata: %b\n\n" % line
        else:
            yield b"".join(_event(task_id, line, dialect) for line in item)


def _event(task_id: str, line: LogLine, dialect: Dialect) -> bytes:
    data = ascii_json(task_log(task_id, line))
    if dialect.ndjson:
        return data + b"\n"
    return b"id: %d-%d\nevent: log\ndata: %b\n\n" % (line.attempt, line.number, data)


def parse_cursor(cursor: str) -> Position:
    """A place in a log.

    Raises:
        InvalidRequest: the cursor is none of ours.
    """
    attempt, _, number = cursor.partition("-")
    if not cursor:
        return Position()
    if whole(attempt) is None or whole(number) is None:
        raise InvalidRequest("Input validation failed: cursor: take it from next_cursor of the page before")
    return Position(int(attempt), int(number))


def wanted_types(text: str) -> frozenset[LogType]:
    """Types of lines by name or number, divided by commas.

    Raises:
        InvalidRequest: names the ones that there are.
    """
    known = {name: kind for kind in LogType for name in (kind.value, str(kind.number))}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise InvalidRequest(
            f"Input validation failed: type: {unknown[0]!r} is unknown; known: {', '.join(LogType)}"
        )
    return frozenset(known[name] for name in names)


ROUTES = [
    *needs(Scope.APPS_READ, read_logs),
]
