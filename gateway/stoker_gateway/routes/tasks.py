"""Runs and tasks."""

import contextlib
from typing import Annotated, Any

from litestar import delete, get, post
from litestar.params import Body
from litestar.response import Response, Stream
from msgspec import Meta, Struct
from msgspec.structs import replace

from stoker.core.errors import FilesUnavailable
from stoker.core.messages import CANCEL_GRACE_MAX_MS, TaskId
from stoker.core.scopes import Scope
from stoker.core.states import TERMINAL
from stoker.core.telemetry import without_others
from stoker.files.logs import remove_logs
from stoker.runs.submit import Origin, RunBody
from stoker_gateway.access import lacks, needs, refuse
from stoker_gateway.awaited import check_not_awaited
from stoker_gateway.clock import now_ms
from stoker_gateway.dialect import Deltas, status_number
from stoker_gateway.door import caller_of
from stoker_gateway.dto import explanation_dto, iso, task_dto, timings_dto
from stoker_gateway.listing import ListQuery, query_of
from stoker_gateway.run_again import retry_body
from stoker_gateway.services import Answer, AnyRequest, answer, own_task, services_of
from stoker_gateway.streams import media_type
from stoker_gateway.task_files import delete_files
from stoker_gateway.task_list import task_page

STREAM_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class CancelBody(Struct, kw_only=True):
    """How to cancel."""

    force: bool = False
    timeout: Annotated[int, Meta(ge=0, le=CANCEL_GRACE_MAX_MS)] | None = (
        None  # milliseconds until the app's process is ended; None: the setting cancel_grace_s
    )


@post(["/apps/run", "/run"], status_code=200, tags=["tasks"], summary="Run an app")
async def run_app(request: AnyRequest, data: Annotated[RunBody, Body(description="What to run")]) -> Answer:
    """Queue a task and answer with it at once. Wait for its end on its stream, or read it again.

    The header `Idempotency-Key` (1 to 255 characters, yours to choose) makes a repeat with the same body give the
    first task, for a day; the same key with another body is refused with 409. A full queue answers 429 or 503 with
    Retry-After.
    """
    services, caller = services_of(request), caller_of(request)
    key = caller.headers.get("idempotency-key", "")
    view, messages = await services.submitter.submit(data, caller.owner, key)
    return answer(request, task_dto(view, caller.dialect, caller.owner.user_id), messages)


@get("/tasks/{task_id:str}", tags=["tasks"], summary="Read a task")
async def read_task(request: AnyRequest, task_id: str) -> Answer:
    """The whole task: state, queue reason, output, error, events and the live tail of its log."""
    view = await own_task(request, task_id)
    caller = caller_of(request)
    return answer(request, task_dto(view, caller.dialect, caller.owner.user_id))


@get("/tasks/{task_id:str}/status", tags=["tasks"], summary="Read a task's state")
async def read_status(request: AnyRequest, task_id: str) -> Answer:
    """State and time of the last change, for clients that poll."""
    view = await own_task(request, task_id, with_logs=False)
    status = status_number(view.state, caller_of(request).dialect, cancel_requested=view.cancel_requested)
    body = {
        "id": task_id,
        "status": status,
        "status_text": view.state.wire_name,
        "updated_at": iso(view.updated_ms),
    }
    return answer(request, body)


@get(
    "/tasks/{task_id:str}/explanation",
    tags=["tasks"],
    summary="See why a task waits, and why it ran where it did",
)
async def explain_task(request: AnyRequest, task_id: str) -> Answer:
    """Why the task waits, and for each attempt what the scheduler compared when it gave it to a worker.

    `start` of a candidate is `warm`, `ahead` (behind a short task of the same setup), `cold` (a load), or `wait` (for a
    busy worker that has the model); `ready_s` is when the task would run there, `cost_s` also has the loads that are
    expected later because of what is evicted. The first candidate is the one that was taken.
    """
    view = await own_task(request, task_id, with_logs=False)
    found = await services_of(request).store.tasks.explanations(TaskId(task_id))
    body = {
        "id": task_id,
        "status_text": view.state.wire_name,
        "queue_reason": view.queue_reason or None,
        "attempts": [explanation_dto(attempt, why) for attempt, why in found.items()],
    }
    return answer(request, body)


@get("/tasks/{task_id:str}/stream", tags=["tasks"], summary="Follow a task")
async def stream_task(request: AnyRequest, task_id: str, deltas: bool = False) -> Response[Any]:
    """The whole task as one event now and at each change; the last event carries the ending.

    NDJSON for `Accept: application/x-ndjson`, server-sent events for `text/event-stream`. With `deltas=true`
    an app that yields increments of its output has them sent one by one: `{"event": "delta", "data": {"delta",
    "seq", "resource_id"}}`, or an event named `delta`; the task then follows when anything else changes. A reader of
    server-sent events that comes back after the ending is told by 204 not to come again.
    """
    caller = caller_of(request)
    dialect = replace(caller.dialect, deltas=Deltas.ASKED) if deltas else caller.dialect
    hub = services_of(request).hub
    read_at = hub.heard.position
    view = await own_task(request, task_id)
    if view.state in TERMINAL and caller.headers.get("last-event-id") == view.cursor:
        return Response(content=b"", status_code=204)
    events = hub.events(view, read_at, dialect, caller.owner.user_id)
    return Stream(events, media_type=media_type(dialect), headers=STREAM_HEADERS)


@post("/tasks/{task_id:str}/cancel", status_code=200, tags=["tasks"], summary="Cancel a task")
async def cancel_task(request: AnyRequest, task_id: str) -> Answer:
    """End a waiting task; ask a running one to end, and end its process after `timeout` milliseconds.

    A task that has ended stays as it is. Body, optional: `{"force": false, "timeout": 10000}`; it is at most
    a week, and without one the system's own holds (`cancel_grace_s`).
    """
    await own_task(request, task_id, with_logs=False)
    raw = await request.body()
    options = request.app.state.decode(raw, CancelBody) if raw.strip() else CancelBody()
    tasks = services_of(request).store.tasks
    grace_ms = options.timeout
    if grace_ms is None:
        grace_ms = int(services_of(request).settings.cancel_grace_s * 1000)
    await tasks.cancel(TaskId(task_id), force=options.force, grace_ms=grace_ms)
    view = await tasks.read(TaskId(task_id), with_logs=False)
    status = status_number(view.state, caller_of(request).dialect, cancel_requested=view.cancel_requested)
    return answer(request, {"id": task_id, "status": status, "cancelled": True})


@post("/tasks/{task_id:str}/retry", status_code=200, tags=["tasks"], summary="Run a task again")
async def retry_task(request: AnyRequest, task_id: str) -> Answer:
    """Queue a new task from the request of one that failed or was cancelled, with the caller's own rights.

    App version, function, input, setup, workers, priority and limits are those of the first; `retry_of` of the new one names it.
    The header `Idempotency-Key` makes a repeat give the same new task.
    """
    view = await own_task(request, task_id, with_logs=False)
    services, caller = services_of(request), caller_of(request)
    spec = await services.store.tasks.spec(TaskId(task_id))
    key = caller.headers.get("idempotency-key", "")
    again, messages = await services.submitter.submit(
        retry_body(view, spec), caller.owner, key, Origin(retry_of=task_id)
    )
    return answer(request, task_dto(again, caller.dialect, caller.owner.user_id), messages)


@get("/tasks/{task_id:str}/timings", tags=["tasks"], summary="Read a task's timings")
async def read_timings(request: AnyRequest, task_id: str) -> Answer:
    """How long the task was in each state."""
    view = await own_task(request, task_id, with_logs=False)
    return answer(request, timings_dto(view, caller_of(request).dialect, now_ms()))


@get("/tasks/{task_id:str}/telemetry", tags=["tasks"], summary="Read a task's telemetry")
async def read_telemetry(request: AnyRequest, task_id: str) -> Answer:
    """Readings of the machine of a task that runs, without what else is there; empty when none runs it."""
    view = await own_task(request, task_id, with_logs=False)
    engines = [e for e in await services_of(request).registry.engines() if e.info.id == view.engine_id]
    return answer(request, [without_others(engine.telemetry) for engine in engines if engine.telemetry])


@post("/tasks/list", status_code=200, tags=["tasks"], summary="List tasks")
async def list_tasks(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The caller's tasks, newest first, page by page; `filters` and `search` choose among them.

    A filter names a field of the task: `{"field": "status_text", "operator": "eq", "value": "failed"}`.
    """
    return answer(request, await task_page(services_of(request), caller_of(request), data or ListQuery()))


@get("/tasks", tags=["tasks"], summary="List tasks")
async def get_tasks(request: AnyRequest) -> Answer:
    """The same with a query string: `limit`, `cursor`, `direction`, `search`, and `filters` as JSON."""
    query = query_of(request.query_params)
    return answer(request, await task_page(services_of(request), caller_of(request), query))


@delete("/tasks/{task_id:str}", status_code=200, tags=["tasks"], summary="Delete a task")
async def delete_task(request: AnyRequest, task_id: str, files: bool = False) -> Answer:
    """Forget a task that has ended, with its log; not while a chat or a flow run waits for it.

    `files=true` deletes its files too, those of its input and those that it made, also where something else names them.
    The key needs `files:write` for that.
    """
    view = await own_task(request, task_id, with_logs=False)
    services, caller = services_of(request), caller_of(request)
    await check_not_awaited(services.store, view)
    if files and lacks(caller, Scope.FILES_WRITE):
        what = f"DELETE {request.url.path}?files=true"
        await refuse(services, caller, Scope.FILES_WRITE, "DELETE /tasks/{task_id}?files=true", what)
    if files:
        await delete_files(services, view, caller.owner.user_id)
    await services.store.tasks.delete(TaskId(task_id))
    with contextlib.suppress(FilesUnavailable):  # the retention sweep finds what is left
        await remove_logs(services.blobs, services.store.logs, TaskId(task_id))
    return answer(request, {"id": task_id, "deleted": True})


ROUTES = [
    *needs(
        Scope.APPS_READ,
        read_task,
        read_status,
        explain_task,
        stream_task,
        read_timings,
        read_telemetry,
        list_tasks,
        get_tasks,
    ),
    *needs(Scope.APPS_EXECUTE, run_app, cancel_task, retry_task, delete_task),
]
