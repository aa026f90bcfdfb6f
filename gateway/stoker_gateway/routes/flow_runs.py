"""Runs of flows: begin, read, list, follow, cancel."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import get, post
from litestar.response import Response, Stream
from msgspec import Struct, structs

from stoker.core.errors import DocumentChanged, NotFound
from stoker.core.messages import TaskId, TaskView
from stoker.core.scopes import Scope
from stoker.flows import records
from stoker.flows.records import RUN
from stoker.flows.run import Run
from stoker.protocol.documents import DUE_LATER_S, Change, Document
from stoker.runs.submit import check_key
from stoker_gateway.access import needs
from stoker_gateway.document_streams import follow, framed
from stoker_gateway.door import caller_of
from stoker_gateway.dto import task_dto
from stoker_gateway.flow_dto import run_dto, task_ids
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain
from stoker_gateway.numbers import check_cursor
from stoker_gateway.registration import check_visibility
from stoker_gateway.routes.apps import VisibilityBody
from stoker_gateway.routes.tasks import STREAM_HEADERS
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of
from stoker_gateway.streams import HEARTBEAT_COMMENT, HEARTBEAT_LINE, media_type

TRIES = 20
"""Writers of one run: the steps, and who cancels it."""
TASKS_S = 1.0
"""Between two looks at the tasks of a run that somebody follows."""


class NewRun(Struct, kw_only=True):
    """A run to begin. `flow` is its id or `namespace/name`."""

    flow: str
    input: Any = None
    fail_on_error: bool | None = None


class RunChange(Struct, kw_only=True):
    """What may change about a run."""

    visibility: str | None = None


class RunQuery(ListQuery, kw_only=True):
    """A page of runs. `flow_id`, or a filter of that field: those of one flow."""

    flow_id: str | None = None


async def own_run(request: AnyRequest, run_id: str) -> Document:
    """A run of the caller.

    Raises:
        NotFound: no such run of this caller.
    """
    [document] = await services_of(request).store.documents.get_many(RUN, [run_id])
    if document is None or document.owner_id != caller_of(request).owner.user_id:
        raise NotFound(f"Flow run not found: {run_id!r}. It never was, or its time is over.")
    return document


async def run_answer(request: AnyRequest, document: Document) -> Answer:
    """A run with the tasks of its nodes."""
    services, dialect = services_of(request), caller_of(request).dialect
    parts = await services.store.documents.parts(RUN, document.id)
    views: dict[str, TaskView] = {view.request.id: view for view in await tasks_of(request, document)}
    return answer(request, run_dto(document, parts, dialect, views))


async def tasks_of(request: AnyRequest, document: Document) -> list[TaskView]:
    """The tasks of a run's nodes that were submitted and are kept."""
    ids = [TaskId(one) for one in task_ids(records.run_of(document.body))]
    if not ids:
        return []
    found = await services_of(request).store.tasks.read_many(ids, with_logs=False)
    return [view for view in found if view is not None]


@post("/flowruns", status_code=200, tags=["flows"], summary="Run a flow")
async def create_run(request: AnyRequest, data: NewRun) -> Answer:
    """Begin a run of a flow's published version, or of its draft when none was published; the run.

    `input` is `{field: value}`, or as runs show it; then values may replace inputs of single nodes. The header
    `Idempotency-Key` (1 to 255 characters) makes a repeat with the same body give the first run.
    """
    caller = caller_of(request)
    document = await services_of(request).flows.start(
        data.flow,
        data.input,
        caller.owner,
        fail_on_error=data.fail_on_error,
        key=check_key(caller.headers.get("idempotency-key", "")),
    )
    return await run_answer(request, document)


@post("/flowruns/list", status_code=200, tags=["flows"], summary="List flow runs")
async def list_runs(request: AnyRequest, data: RunQuery | None = None) -> Answer:
    """The caller's runs, newest first, without their outputs."""
    query = plain(data, filtered=("flow_id",))
    flow_id = (data.flow_id if data else "") or ""
    for condition in query.filters or ():
        flow_id = str(condition.value or "")
    return answer(request, await run_page(request, query.cursor or "", query.limit or LIST_LIMIT, flow_id))


@get("/flowruns", tags=["flows"], summary="List flow runs")
async def get_runs(request: AnyRequest, cursor: str = "", limit: int = 20, flow_id: str = "") -> Answer:
    """The same."""
    return answer(request, await run_page(request, cursor, limit, flow_id))


async def run_page(request: AnyRequest, cursor: str, limit: int, flow_id: str) -> dict[str, Any]:
    """One page of the caller's runs; with `flow_id` those of its runs that are of that flow."""
    documents, caller = services_of(request).store.documents, caller_of(request)
    limit, user_id = max(1, min(limit, MAX_LIMIT)), caller.owner.user_id
    ids, following = await documents.page(RUN, user_id, check_cursor(cursor), limit)
    found = [one for one in await documents.get_many(RUN, ids) if one is not None]
    items = [
        run_dto(one, {}, caller.dialect) for one in found if flow_id in {"", records.run_of(one.body).flow_id}
    ]
    return page(items, following, limit, await documents.count(RUN, user_id))


@get("/flowruns/{run_id:str}", tags=["flows"], summary="Read a flow run")
async def get_run(request: AnyRequest, run_id: str) -> Answer:
    """A run with the states, tasks and outputs of its nodes, and its output."""
    return await run_answer(request, await own_run(request, run_id))


async def write_run(request: AnyRequest, run_id: str, *, wake: bool, **changes: object) -> Document:
    """Change a run; one that has ended keeps its state.

    Raises:
        NotFound: no such run of this caller.
        DocumentChanged: others wrote it all the time.
    """
    services = services_of(request)
    for _ in range(TRIES):
        document = await own_run(request, run_id)
        run: Run = structs.replace(records.run_of(document.body), **changes)
        change = Change(
            body=records.dumps(run).encode(),
            due_s=DUE_LATER_S,  # what follows from an end may not be done yet
            wake=wake and not run.ended,
            keep_s=services.settings.retention_s if run.ended else 0,
        )
        try:
            await services.store.documents.put(RUN, run_id, document.owner_id, document.revision, change)
        except DocumentChanged:
            continue
        return await own_run(request, run_id)
    raise DocumentChanged


@post("/flowruns/{run_id:str}", status_code=200, tags=["flows"], summary="Change a flow run")
async def change_run(request: AnyRequest, run_id: str, data: RunChange) -> Answer:
    """Its visibility."""
    return await _change(request, run_id, data)


async def _change(request: AnyRequest, run_id: str, data: RunChange) -> Answer:
    if not data.visibility:
        return await run_answer(request, await own_run(request, run_id))
    visibility = check_visibility(data.visibility)
    return await run_answer(request, await write_run(request, run_id, wake=False, visibility=visibility))


@post(
    "/flowruns/{run_id:str}/visibility", status_code=200, tags=["flows"], summary="Set who may see a flow run"
)
async def set_run_visibility(request: AnyRequest, run_id: str, data: VisibilityBody) -> Answer:
    """Kept for the platform's clients; a run is read by its owner alone."""
    return await _change(request, run_id, RunChange(visibility=data.visibility))


@post("/flowruns/{run_id:str}/cancel", status_code=200, tags=["flows"], summary="Cancel a flow run")
async def cancel_run(request: AnyRequest, run_id: str) -> Answer:
    """End a run; its tasks that run are asked to end. A run that has ended stays as it is."""
    document = await own_run(request, run_id)
    if not records.run_of(document.body).ended:
        document = await write_run(request, run_id, wake=True, cancel=True)
    return await run_answer(request, document)


@post("/flowruns/{run_id:str}/clone", status_code=200, tags=["flows"], summary="Run a flow once more")
async def clone_run(request: AnyRequest, run_id: str) -> Answer:
    """A new run of the same version with the same input."""
    services, owner = services_of(request), caller_of(request).owner
    document = await own_run(request, run_id)
    before = records.run_of(document.body)
    parts = await services.store.documents.parts(RUN, run_id, records.PLAN_PART, records.INPUT_PART)
    run = Run(
        flow_id=before.flow_id,
        flow_version_id=before.flow_version_id,
        name=before.name,
        key_id=owner.key_id,
        fail_on_error=before.fail_on_error,
        files_url=before.files_url,
    )
    own = msgspec.json.decode(parts[records.INPUT_PART])
    return await run_answer(
        request, await services.flows.begin(run, records.plan_of(parts), own, owner.user_id)
    )


@get("/flowruns/{run_id:str}/stream", tags=["flows"], summary="Follow a flow run")
async def stream_run(request: AnyRequest, run_id: str) -> Response[Any]:
    """The whole run as one event now and at each change; the last event carries the ending.

    Server-sent events have no name. A reader that comes back after the ending is told by 204 not to come again.
    """
    services, caller = services_of(request), caller_of(request)
    document = await own_run(request, run_id)
    if records.run_of(document.body).ended and caller.headers.get("last-event-id") == str(document.revision):
        return Response(content=b"", status_code=204)

    async def shown() -> tuple[int, dict[str, Any], bool]:
        now = await services.store.documents.get(RUN, run_id)
        parts = await services.store.documents.parts(RUN, run_id)
        return now.revision, run_dto(now, parts, caller.dialect), records.run_of(now.body).ended

    events = follow(services.hub, services.settings, RUN, run_id, caller.dialect, shown)
    return Stream(events, media_type=media_type(caller.dialect), headers=STREAM_HEADERS)


@get("/flowruns/{run_id:str}/tasks/stream", tags=["flows"], summary="Follow the tasks of a flow run")
async def stream_run_tasks(request: AnyRequest, run_id: str) -> Response[Any]:
    """Each task of the run's nodes as one event now and when it has changed; ends with the run.

    A reader of server-sent events that comes back after the ending is told by 204 not to come again.
    """
    caller = caller_of(request)
    document = await own_run(request, run_id)
    seen = caller.headers.get("last-event-id")
    ended = bool(seen) and records.run_of(document.body).ended
    if ended and any(_event_id(view) == seen for view in await tasks_of(request, document)):
        return Response(content=b"", status_code=204)
    return Stream(
        _task_events(request, run_id), media_type=media_type(caller.dialect), headers=STREAM_HEADERS
    )


def _event_id(view: TaskView) -> str:
    return f"{view.request.id}-{view.cursor}"


async def _task_events(request: AnyRequest, run_id: str) -> AsyncIterator[bytes]:
    services, caller = services_of(request), caller_of(request)
    sent: dict[str, tuple[object, ...]] = {}
    async for _ in services.hub.document_changes(RUN, run_id, TASKS_S):
        document = await own_run(request, run_id)
        news = False
        for view in await tasks_of(request, document):
            sign = (view.cursor, view.state, view.updated_ms)
            if sent.get(view.request.id) != sign:
                sent[view.request.id], news = sign, True
                shown = task_dto(view, caller.dialect, caller.owner.user_id)
                yield framed(_event_id(view), shown, caller.dialect)
        if records.run_of(document.body).ended:
            return
        if not news:
            yield HEARTBEAT_LINE if caller.dialect.ndjson else HEARTBEAT_COMMENT


ROUTES = [
    *needs(Scope.FLOWS_READ, list_runs, get_runs, get_run, stream_run, stream_run_tasks),
    *needs(Scope.FLOWS_EXECUTE, create_run, change_run, set_run_visibility, cancel_run, clone_run),
]
