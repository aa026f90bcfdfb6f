"""A config on its way to a chat: everything that it names is looked up, once, so that a step has to ask for nothing."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from stoker.agents.config import AgentConfig
from stoker.agents.fields import refused
from stoker.agents.place import Workplace
from stoker.agents.records import Agent, find_agent
from stoker.agents.tools import Internal, Tool, ToolType, clean_schema
from stoker.core.apps import AppVersion
from stoker.core.errors import InvalidRequest, NotFound
from stoker.llm.contract import llm_function, properties_of
from stoker.protocol import Store
from stoker.runs.registry import Registry
from stoker.runs.submit import choose_function

ASKS_AN_AGENT: Final = {
    "type": "object",
    "properties": {"message": {"type": "string", "description": "What the agent is to do"}},
    "required": ["message"],
}


async def prepare(
    config: AgentConfig, place: Workplace, user_id: str, agent: Agent | None = None
) -> AgentConfig:
    """The config with what its language model takes, and with the schemas of its tools.

    Args:
        agent: the stored agent that it is of; None = the user's own words.

    Raises:
        NotFound: an app or an agent that it names is not there for this user.
        InvalidRequest: its core app is no language model, or does not take what the agent needs; or a secret is missing.
    """
    store, registry = place.store, place.registry
    version, name = await _core_version(config, registry, user_id)
    function = llm_function(version)
    if function is None:
        raise refused(
            "core_app",
            f"{name} is no language model: its default function does not take text and context and give a response",
        )
    fields = properties_of(function.input_schema)
    if "tools" not in fields:  # the skills then are in the prompt
        config = replace(config, internal=tuple(one for one in config.internal if one is not Internal.SKILLS))
    if (config.tools or config.internal or config.output_schema) and "tools" not in fields:
        raise refused("tools", f"the language model {name} takes no tools")
    await _check_secrets(config, place, user_id, agent)
    tools = [await _tool(tool, store, registry, user_id) for tool in config.tools]
    owner_id = agent.owner_id if agent is not None else user_id
    hooks = tuple(replace(hook, owner_id=owner_id) for hook in config.hooks)
    return replace(config, tools=tuple(tools), hooks=hooks, fields=tuple(sorted(fields)))


async def _check_secrets(config: AgentConfig, place: Workplace, user_id: str, agent: Agent | None) -> None:
    """Whether the user has what the tools refer to, and the agent may use it. Asks for nothing when they do not.

    Raises:
        InvalidRequest: names the tool and the secret.
    """
    wanted = {name: tool.name for tool in reversed(config.tools) for name in tool.secrets}
    if not wanted:
        return
    verified = {user_id, *place.settings.verified_owners}
    if agent is not None and not verified & {agent.owner_id, "*"}:
        raise refused(
            "tools",
            f"{agent.namespace}/{agent.name} belongs to another user, whose agents are not given your secrets "
            f"({', '.join(sorted(wanted))}). Copy it (POST /agents/{agent.id}/duplicate), or ask the operator to list "
            "its owner in the setting verified_owners",
        )
    have = await place.store.secrets.get_many(user_id, sorted(wanted))
    for name, tool in sorted(wanted.items()):
        if name not in have:
            raise refused(
                "tools",
                f"{tool}: it refers to the secret {name}, which is missing. Add it: stoker secrets set {name}, or "
                "POST /secrets",
            )


async def _core_version(config: AgentConfig, registry: Registry, user_id: str) -> tuple[AppVersion, str]:
    core = config.core
    if core.ref:
        _, _, version = await registry.resolve(core.ref, user_id)
        return version, core.ref
    app, version = await registry.by_id(core.id, core.version_id, user_id)
    return version, f"{app.namespace}/{app.name}"


async def _tool(tool: Tool, store: Store, registry: Registry, user_id: str) -> Tool:
    try:
        if tool.type is ToolType.APP:
            ref, app, version = await registry.resolve(tool.ref, user_id)
            function = choose_function(app, version, tool.function or ref.function)
            description = tool.description or function.description or app.agent_description or app.description
            schema = _open_fields(function.input_schema, tool.input)
            return replace(tool, function=function.name, description=description, schema=schema)
        if tool.type is ToolType.AGENT:
            _, agent_version = await find_agent(store, tool.ref, user_id)
            description = tool.description or str(agent_version.config.get("description") or "")
            return replace(tool, description=description, schema=ASKS_AN_AGENT)
    except (NotFound, InvalidRequest) as error:
        raise type(error)(
            f"Input validation failed: agent_config.tools: {tool.name}: {error.message}"
        ) from error
    return tool


def _open_fields(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """An app's input as a model's arguments: what has a default here needs not be given."""
    cleaned = clean_schema(schema)
    cleaned["required"] = [name for name in cleaned.get("required") or [] if name not in given]
    return cleaned
