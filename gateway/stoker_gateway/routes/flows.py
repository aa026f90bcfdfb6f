"""Flows: make, change, list, publish as an app. Their runs: `routes/flow_runs.py`."""

from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.response import Stream
from msgspec import Struct, structs

from stoker.core.audit import Action
from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.scopes import Scope
from stoker.flows import records
from stoker.flows.edits import Action as FlowAction
from stoker.flows.history import changed
from stoker.flows.records import FLOW
from stoker.flows.schema import GRAPH_FIELDS, parse_graph
from stoker_gateway.access import needs
from stoker_gateway.app_dto import app_dto
from stoker_gateway.document_streams import follow
from stoker_gateway.door import caller_of
from stoker_gateway.flow_dto import acted_dto, flow_dto, version_dto
from stoker_gateway.flow_edits import act
from stoker_gateway.flows import Flow, flow_of, slug
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain, term_of
from stoker_gateway.numbers import check_cursor, whole
from stoker_gateway.registration import check_visibility
from stoker_gateway.routes.apps import TransferBody, VisibilityBody, record_app
from stoker_gateway.routes.tasks import STREAM_HEADERS
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of
from stoker_gateway.streams import media_type

_TEXTS = ("name", "title", "description", "card_image", "thumbnail", "banner_image")


class NewFlow(Struct, kw_only=True):
    """A flow to make."""

    name: str = ""
    namespace: str = ""


class FlowChange(Struct, kw_only=True):
    """What may change about a flow; what is left out, or null, stays. The graph's fields are the draft's."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    card_image: str | None = None
    thumbnail: str | None = None
    banner_image: str | None = None
    visibility: str | None = None
    input_schema: dict[str, Any] | None = None
    input: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    output_mappings: dict[str, Any] | None = None
    node_data: dict[str, Any] | None = None
    nodes: list[dict[str, Any]] | None = None
    edges: list[dict[str, Any]] | None = None
    viewport: dict[str, Any] | None = None
    fail_on_error: bool | None = None


class ActionsBody(Struct, kw_only=True):
    """Edits of a draft, done one after the other. docs/flows.md has their payloads."""

    actions: list[FlowAction]


async def own_flow(request: AnyRequest, ref: str) -> Flow:
    """A flow of the caller.

    Raises:
        NotFound: no such flow of this caller.
    """
    return await services_of(request).flows.find(ref, caller_of(request).owner)


async def flow_answer(request: AnyRequest, flow: Flow) -> Answer:
    """A flow with the graph of its published version."""
    return answer(request, await whole_flow(request, flow))


async def whole_flow(request: AnyRequest, flow: Flow) -> dict[str, Any]:
    """The same, not yet an answer."""
    part = records.version_part(flow.body.published_version_id)
    documents = services_of(request).store.documents
    found = await documents.parts(FLOW, flow.document.id, part) if flow.body.published_version_id else {}
    return flow_dto(flow, msgspec.json.decode(found[part]) if part in found else None)


@post("/flows", status_code=200, tags=["flows"], summary="Make a flow")
async def create_flow(request: AnyRequest, data: NewFlow | None = None) -> Answer:
    """A flow with an empty draft. Its app, once it is deployed, has its name: letters, digits, `-`, `_` and `.`."""
    data = data or NewFlow()
    flow = await services_of(request).flows.create(data.name, data.namespace, caller_of(request).owner)
    return await flow_answer(request, flow)


@post("/flows/list", status_code=200, tags=["flows"], summary="List flows")
async def list_flows(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The caller's flows, newest first; `search` looks into names."""
    query = plain(data, searched=True)
    found = await flow_page(request, query.cursor or "", query.limit or LIST_LIMIT, term_of(query))
    return answer(request, found)


@get("/flows", tags=["flows"], summary="List flows")
async def get_flows(request: AnyRequest, cursor: str = "", limit: int = 20) -> Answer:
    """The same."""
    return answer(request, await flow_page(request, cursor, limit, ""))


async def flow_page(request: AnyRequest, cursor: str, limit: int, term: str) -> dict[str, Any]:
    """One page of the caller's flows."""
    documents, user_id = services_of(request).store.documents, caller_of(request).owner.user_id
    limit = max(1, min(limit, MAX_LIMIT))
    ids, following = await documents.page(FLOW, user_id, check_cursor(cursor), limit)
    flows = [flow_of(one) for one in await documents.get_many(FLOW, ids) if one is not None]
    items = [
        flow_dto(flow) for flow in flows if term in f"{flow.ref} {flow.body.name} {flow.body.title}".lower()
    ]
    return page(items, following, limit, await documents.count(FLOW, user_id))


@get("/flows/{flow_id:str}", tags=["flows"], summary="Read a flow")
async def get_flow(request: AnyRequest, flow_id: str) -> Answer:
    """A flow with its draft and its published version, by its id or by its name where that is unique."""
    return await flow_answer(request, await own_flow(request, flow_id))


@get("/flows/{namespace:str}/{name:str}", tags=["flows"], summary="Read a flow by its name")
async def get_flow_by_name(request: AnyRequest, namespace: str, name: str) -> Answer:
    """The same, by namespace and name."""
    return await flow_answer(request, await own_flow(request, f"{namespace}/{name}"))


@post("/flows/{flow_id:str}", status_code=200, tags=["flows"], summary="Change a flow")
async def change_flow(request: AnyRequest, flow_id: str, data: FlowChange) -> Answer:
    """Names and draft. A draft may be unfinished; whether it can run is checked when it is run or deployed."""
    return await _change(request, flow_id, data)


async def _change(request: AnyRequest, flow_id: str, data: FlowChange) -> Answer:
    flow = await own_flow(request, flow_id)
    given = {name: value for name, value in structs.asdict(data).items() if value is not None}
    if "visibility" in given:
        check_visibility(str(given["visibility"]))
    if "name" in given and flow.body.app_id and slug(str(given["name"])) != slug(flow.body.name):
        raise InvalidRequest(
            f"Input validation failed: name: {flow.ref} is deployed, and references to it would break. "
            "Duplicate it (POST /flows/{id}/duplicate) and name the copy."
        )
    graph = {**flow.body.graph, **records.graph_only(given)}
    parse_graph(graph)
    texts = {name: given[name] for name in (*_TEXTS, "visibility") if name in given}
    body, parts = changed(structs.replace(flow.body, **texts), graph)
    document = flow.document
    stored = await services_of(request).flows.put(
        document.id, document.owner_id, document.revision, body, parts
    )
    return await flow_answer(request, stored)


@post("/flows/{flow_id:str}/actions", status_code=200, tags=["flows"], summary="Edit a flow's draft")
async def act_on_flow(request: AnyRequest, flow_id: str, data: ActionsBody) -> Answer:
    """Do single edits of the draft: all of them, or none and `errors` says why, each with the action's `index`.

    `version` grows with each change. `undo` takes the last change back, `redo` does it again; each comes alone.
    """
    services = services_of(request)
    acted = await act(services.flows, services.store, flow_id, caller_of(request).owner, data.actions)
    return answer(request, acted_dto(acted))


@delete("/flows/{flow_id:str}", status_code=200, tags=["flows"], summary="Delete a flow")
async def delete_flow(request: AnyRequest, flow_id: str) -> Answer:
    """Forget a flow, its versions and its app; runs that began go on."""
    flow = await own_flow(request, flow_id)
    app = await services_of(request).flows.delete(flow)
    if app is not None:
        await record_app(request, Action.APP_DELETED, app, flow=flow.document.id)
    return answer(request, {"id": flow.document.id, "deleted": True})


@post("/flows/{flow_id:str}/duplicate", status_code=200, tags=["flows"], summary="Copy a flow")
async def duplicate_flow(request: AnyRequest, flow_id: str) -> Answer:
    """A flow with the draft of this one."""
    flow, owner = await own_flow(request, flow_id), caller_of(request).owner
    copy = await services_of(request).flows.create(
        f"{flow.body.name}-copy", flow.body.namespace, owner, flow.body
    )
    return await flow_answer(request, copy)


@post("/flows/{flow_id:str}/visibility", status_code=200, tags=["flows"], summary="Set who may run a flow")
async def set_flow_visibility(request: AnyRequest, flow_id: str, data: VisibilityBody) -> Answer:
    """`private`: its owner; `unlisted` and `public`: whoever knows its id. Its app has a visibility of its own."""
    return await _change(request, flow_id, FlowChange(visibility=check_visibility(data.visibility)))


@post(
    "/flows/{flow_id:str}/transfer", status_code=200, tags=["flows"], summary="Give a flow to another owner"
)
async def transfer_flow(request: AnyRequest, flow_id: str, data: TransferBody) -> Answer:
    """The platform's route. There are no teams here: a flow belongs to a user, and all keys of the user share it."""
    flow = await own_flow(request, flow_id)
    if data.team_id != flow.document.owner_id:
        raise NotFound(
            f"Team not found: {data.team_id!r}. This system has no teams; the flow belongs to "
            f"{flow.document.owner_id!r}, and every key of that user may use and change it (stoker keys create)."
        )
    return await flow_answer(request, flow)


@post("/flows/{flow_id:str}/versions/list", status_code=200, tags=["flows"], summary="List a flow's versions")
async def list_flow_versions(request: AnyRequest, flow_id: str, data: ListQuery | None = None) -> Answer:
    """What was deployed, newest first."""
    query = plain(data)
    flow = await own_flow(request, flow_id)
    entries = list(reversed(flow.body.versions))
    start, limit = whole(query.cursor or "") or 0, max(1, min(query.limit or LIST_LIMIT, MAX_LIMIT))
    shown = entries[start : start + limit]
    names = [records.version_part(entry.id) for entry in shown]
    found = await services_of(request).store.documents.parts(FLOW, flow.document.id, *names) if names else {}
    graphs = {name: msgspec.json.decode(text) for name, text in found.items()}
    items = [version_dto(flow, entry, graphs.get(records.version_part(entry.id), {})) for entry in shown]
    following = str(start + limit) if len(entries) > start + limit else ""
    return answer(request, page(items, following, limit, len(entries)))


@post("/flows/{flow_id:str}/app", status_code=200, tags=["flows"], summary="Deploy a flow as an app")
async def deploy_flow(request: AnyRequest, flow_id: str) -> Answer:
    """Check the draft, make it a version, and that the current version of the flow's app; the app.

    A draft that has not changed since its last deployment makes no new version.
    """
    services = services_of(request)
    flow = await own_flow(request, flow_id)
    app, version = await services.flows.publish(flow, caller_of(request).owner)
    await record_app(request, Action.APP_DEPLOYED, app, version=version.short_id, flow=flow.document.id)
    return answer(request, app_dto(app, version))


@get("/flows/{flow_id:str}/stream", tags=["flows"], summary="Follow a flow")
async def stream_flow(request: AnyRequest, flow_id: str) -> Stream:
    """The whole flow as one event now and at each change."""
    services, dialect = services_of(request), caller_of(request).dialect
    flow = await own_flow(request, flow_id)

    async def shown() -> tuple[int, dict[str, Any], bool]:
        document = await services.store.documents.get(FLOW, flow.document.id)
        return document.revision, await whole_flow(request, flow_of(document)), False

    events = follow(services.hub, services.settings, FLOW, flow.document.id, dialect, shown)
    return Stream(events, media_type=media_type(dialect), headers=STREAM_HEADERS)


assert set(GRAPH_FIELDS) <= set(FlowChange.__struct_fields__)  # noqa: S101 - one list in two forms

ROUTES = [
    *needs(
        Scope.FLOWS_READ, list_flows, get_flows, get_flow, get_flow_by_name, list_flow_versions, stream_flow
    ),
    *needs(
        Scope.FLOWS_WRITE,
        create_flow,
        change_flow,
        act_on_flow,
        delete_flow,
        duplicate_flow,
        set_flow_visibility,
        transfer_flow,
        deploy_flow,
    ),
]
