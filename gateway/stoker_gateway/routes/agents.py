"""Agents: say something to one; store, read, change and list those that have a name."""

from typing import Annotated, Any

from litestar import delete, get, post
from litestar.params import Body
from litestar.response import Stream
from msgspec import Struct, structs

from stoker.agents.config import read_config
from stoker.agents.masking import unmasked
from stoker.agents.prepare import prepare
from stoker.agents.records import (
    AGENT_KIND,
    Agent,
    agent_id,
    find_agent,
    read_agent,
    version_of,
    write_agent,
)
from stoker.agents.skills import skills_tool
from stoker.agents.tools import INTERNAL_TOOLS, Internal, finish_tool
from stoker.core.errors import Conflict, DocumentChanged, InvalidRequest, NotFound
from stoker.core.ids import check_name, new_id
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.agent_runs import AgentRunBody, AgentRuns
from stoker_gateway.chat_dto import agent_dto, agent_version_dto, message_dto
from stoker_gateway.chat_stream import ChatStream
from stoker_gateway.door import caller_of
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain
from stoker_gateway.numbers import check_cursor
from stoker_gateway.registration import DEFAULT_NAMESPACE, check_visibility
from stoker_gateway.routes.apps import VisibilityBody
from stoker_gateway.routes.tasks import STREAM_HEADERS
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of
from stoker_gateway.skills import with_skills
from stoker_gateway.streams import SSE


class AgentBody(Struct, kw_only=True):
    """An agent to store, or what changes of one; `version` is its config."""

    id: str | None = None
    name: str | None = None
    namespace: str | None = None
    title: str | None = None
    visibility: str | None = None
    images: dict[str, str] | None = None
    version: dict[str, Any] | None = None


@post("/agents/run", status_code=200, tags=["agents"], summary="Say something to an agent")
async def run_agent(
    request: AnyRequest, data: Annotated[AgentRunBody, Body(description="What to say, and to whom")]
) -> Answer | Stream:
    """Put a message into a chat, a new one without `chat_id`, and answer at once with it and with the empty answer.

    The model and the tools work afterwards: follow `GET /chats/{id}/stream`, or read the chat. With `stream` the
    answer is that stream, as server-sent events.
    """
    services = services_of(request)
    chat, asked, answers = await AgentRuns(services, caller_of(request)).send(data)
    if data.stream:
        stream = ChatStream(
            services.store, services.hub, services.settings.heartbeat_s, chat.id, ndjson=False
        )
        return Stream(stream.events(), media_type=SSE, headers=STREAM_HEADERS)
    body = {"user_message": message_dto(chat, asked), "assistant_message": message_dto(chat, answers)}
    return answer(request, body)


@post("/agents", status_code=200, tags=["agents"], summary="Store an agent")
async def put_agent(request: AnyRequest, data: AgentBody) -> Answer:
    """Make an agent, or with `id` or a known name add a version to one; `version` is a config as in a run."""
    user_id = caller_of(request).owner.user_id
    if data.id:
        return await _changed(request, await _own(request, data.id), data)
    if not data.name:
        raise InvalidRequest("Input validation failed: name: an agent needs one")
    namespace = check_name("namespace", data.namespace or DEFAULT_NAMESPACE)
    name = check_name("name", data.name)
    try:
        known = await read_agent(services_of(request).store, agent_id(namespace, name), user_id)
    except NotFound:
        made = Agent(id=agent_id(namespace, name), namespace=namespace, name=name, owner_id=user_id)
        return await _changed(request, made, data)
    if known.owner_id != user_id:
        raise Conflict(f"The name {namespace}/{name} belongs to another user. Take another one.")
    return await _changed(request, known, data)


@post("/agents/{wanted_id:str}", status_code=200, tags=["agents"], summary="Change an agent")
async def change_agent(request: AnyRequest, wanted_id: str, data: AgentBody) -> Answer:
    """Title, visibility, images; a `version` becomes the current one. What is left out stays.

    A value that is shown as `***` may come back like that: it stays what it is while its tool calls the same address.
    """
    return await _changed(request, await _own(request, wanted_id), data)


async def _changed(request: AnyRequest, agent: Agent, data: AgentBody) -> Answer:
    services, user_id = services_of(request), caller_of(request).owner.user_id
    for name in ("title", "images"):
        if getattr(data, name) is not None:
            agent = structs.replace(agent, **{name: getattr(data, name)})
    if data.visibility:
        agent = structs.replace(agent, visibility=check_visibility(data.visibility))
    if data.version is not None or not agent.versions:
        given = unmasked(data.version or {}, [version.config for version in agent.versions])
        config = await with_skills(given, services.settings)
        await prepare(read_config(config), services, user_id)
        new = version_of(config, await services.store.now_ms())
        kept = tuple(version for version in agent.versions if version.id != new.id)
        agent = structs.replace(agent, versions=(*kept, new))
    try:
        await write_agent(services.store, agent)
    except DocumentChanged as error:
        text = f"{agent.namespace}/{agent.name} was changed, or made by somebody else, at the same time. Try again."
        raise Conflict(text) from error
    return answer(request, agent_dto(await read_agent(services.store, agent.id, user_id)))


@post("/agents/list", status_code=200, tags=["agents"], summary="List agents")
async def list_agents(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The caller's agents, newest first, page by page."""
    query = plain(data)
    cursor = check_cursor(query.cursor or "")
    store, user_id = services_of(request).store, caller_of(request).owner.user_id
    limit = max(1, min(query.limit or LIST_LIMIT, MAX_LIMIT))
    ids, following = await store.documents.page(AGENT_KIND, user_id, cursor, limit)
    items = []
    for one in ids:
        try:
            items.append(agent_dto(await read_agent(store, one, user_id)))
        except NotFound:
            continue  # deleted a moment ago
    total = await store.documents.count(AGENT_KIND, user_id)
    return answer(request, page(items, following, limit, total))


@get("/agents/internal-tools", tags=["agents"], summary="List internal tools")
async def internal_tools(request: AnyRequest) -> Answer:
    """The tools of the chat itself, which a config turns on by `internal_tools`."""
    tools = {**INTERNAL_TOOLS, Internal.FINISH: finish_tool(None), Internal.SKILLS: skills_tool(())}
    shown = [
        {
            "id": tool.name,
            "name": tool.name,
            "description": tool.description,
            "tools": [tool.name],
            "scope": "chat",
            "default_enabled": name is Internal.SKILLS,
            "input_schema": tool.schema,
        }
        for name, tool in tools.items()
    ]
    return answer(request, shown)


@get("/agents/{wanted_id:str}", tags=["agents"], summary="Read an agent")
async def get_agent(request: AnyRequest, wanted_id: str) -> Answer:
    """An agent with its current version."""
    agent = await read_agent(services_of(request).store, wanted_id, caller_of(request).owner.user_id)
    return answer(request, agent_dto(agent))


@get("/agents/{namespace:str}/{name:str}", tags=["agents"], summary="Read an agent by its name")
async def get_agent_by_name(request: AnyRequest, namespace: str, name: str) -> Answer:
    """The same, by namespace and name, which may end in @version."""
    store, user_id = services_of(request).store, caller_of(request).owner.user_id
    agent, version = await find_agent(store, f"{namespace}/{name}", user_id)
    return answer(request, agent_dto(agent, version))


@get(
    "/agents/{wanted_id:str}/versions/{version_id:str}", tags=["agents"], summary="Read a version of an agent"
)
async def get_version(request: AnyRequest, wanted_id: str, version_id: str) -> Answer:
    """One version, by its id or the first characters of it."""
    agent = await read_agent(services_of(request).store, wanted_id, caller_of(request).owner.user_id)
    return answer(request, agent_version_dto(agent, agent.version(version_id)))


@post(
    "/agents/{wanted_id:str}/versions/list",
    status_code=200,
    tags=["agents"],
    summary="List an agent's versions",
)
async def list_versions(request: AnyRequest, wanted_id: str) -> Answer:
    """All versions, newest first."""
    agent = await read_agent(services_of(request).store, wanted_id, caller_of(request).owner.user_id)
    return answer(request, page([agent_version_dto(agent, version) for version in reversed(agent.versions)]))


@post("/agents/{wanted_id:str}/duplicate", status_code=200, tags=["agents"], summary="Copy an agent")
async def duplicate_agent(request: AnyRequest, wanted_id: str) -> Answer:
    """A private agent of the caller with the current version of this one."""
    services, user_id = services_of(request), caller_of(request).owner.user_id
    agent = await read_agent(services.store, wanted_id, user_id)
    name = f"{agent.name[:40]}-copy-{new_id()[:6]}"
    copy = structs.replace(
        agent,
        id=agent_id(agent.namespace, name),
        name=name,
        owner_id=user_id,
        visibility="private",
        versions=agent.versions[-1:],
        revision=0,
    )
    await write_agent(services.store, copy)
    return answer(request, agent_dto(await read_agent(services.store, copy.id, user_id)))


@post(
    "/agents/{wanted_id:str}/visibility", status_code=200, tags=["agents"], summary="Set who may use an agent"
)
async def set_visibility(request: AnyRequest, wanted_id: str, data: VisibilityBody) -> Answer:
    """`private`: its owner; `unlisted` and `public`: whoever knows its name."""
    return await _changed(request, await _own(request, wanted_id), AgentBody(visibility=data.visibility))


@delete("/agents/{wanted_id:str}", status_code=200, tags=["agents"], summary="Delete an agent")
async def delete_agent(request: AnyRequest, wanted_id: str) -> Answer:
    """Forget an agent; chats that it has begun go on."""
    agent = await _own(request, wanted_id)
    await services_of(request).store.documents.delete(AGENT_KIND, agent.id, agent.owner_id)
    return answer(request, {"id": agent.id, "deleted": True})


async def _own(request: AnyRequest, wanted_id: str) -> Agent:
    user_id = caller_of(request).owner.user_id
    agent = await read_agent(services_of(request).store, wanted_id, user_id)
    if agent.owner_id != user_id:
        raise NotFound("Agent not found")
    return agent


ROUTES = [
    *needs(
        Scope.AGENTS_READ,
        list_agents,
        internal_tools,
        get_agent,
        get_agent_by_name,
        get_version,
        list_versions,
    ),
    *needs(Scope.AGENTS_WRITE, put_agent, change_agent, duplicate_agent, set_visibility, delete_agent),
    *needs(Scope.AGENTS_EXECUTE, run_agent),
]
