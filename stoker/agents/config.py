"""What an agent is made of, from any generation's config. Pure.

Older clients say `core_app_ref` and `core_app_input`, newer ones `core_app: {ref, input, setup}`; both are taken
from everyone, null is absent, and what is unknown is ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from stoker.agents.fields import list_of, object_of, objects_of, refused, text_of
from stoker.agents.hooks import Hook, read_hooks
from stoker.agents.skills import Skill, read_skills
from stoker.agents.tools import Internal, Tool, read_tool
from stoker.core.errors import InvalidRequest

MAX_TOOLS: Final = 128
"""As many as the APIs of language models take."""


class Core(Struct, frozen=True, kw_only=True):
    """The language model: an app, how it is set up, and the settings of each of its answers."""

    ref: str = ""
    id: str = ""
    version_id: str = ""
    setup: dict[str, Any] = {}
    input: dict[str, Any] = {}


class ContextField(Struct, frozen=True, kw_only=True):
    """A value that a caller gives for a whole chat; `{{context.NAME}}` stands for it."""

    name: str
    description: str = ""
    required: bool = False
    default: str = ""


class Limits(Struct, frozen=True, kw_only=True):
    """Of one run; 0 = the system's bound."""

    turns: int = 0
    tool_calls: int = 0
    tokens: int = 0


class AgentConfig(Struct, frozen=True, kw_only=True):
    """A config in one form. `fields` are the input fields of the language model's app, once it was looked up."""

    core: Core
    name: str = ""
    description: str = ""
    system_prompt: str = ""
    example_prompts: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    internal: tuple[Internal, ...] = ()
    output_schema: dict[str, Any] | None = None
    skills: tuple[Skill, ...] = ()
    hooks: tuple[Hook, ...] = ()
    context: tuple[ContextField, ...] = ()
    allow_all_tools: bool = False
    limits: Limits = Limits()
    fields: tuple[str, ...] = ()


def read_config(given: Mapping[str, Any]) -> AgentConfig:
    """A config as it came over the wire.

    Raises:
        InvalidRequest: names the field and what it may be.
    """
    tools = tuple(
        read_tool(tool, f"tools.{number}") for number, tool in enumerate(objects_of(given, "tools"))
    )
    skills = read_skills(objects_of(given, "skills"))
    internal = _internal(given, skills)
    _check_names(tools, internal)
    schema = given.get("output_schema")
    if schema is not None and not isinstance(schema, Mapping):
        raise refused("output_schema", "it must be a JSON schema")
    permissions = object_of(given, "permissions")
    return AgentConfig(
        core=_core(given),
        name=text_of(given, "name"),
        description=text_of(given, "description"),
        system_prompt=text_of(given, "system_prompt"),
        example_prompts=tuple(text for text in list_of(given, "example_prompts") if isinstance(text, str)),
        tools=tools,
        internal=internal,
        output_schema=dict(schema) if schema else None,
        skills=skills,
        hooks=read_hooks(objects_of(given, "hooks")),
        context=tuple(
            _context_field(field, f"context.{number}")
            for number, field in enumerate(objects_of(given, "context"))
        ),
        allow_all_tools=permissions.get("allow_all_tools") is True,
        limits=_limits(object_of(given, "limits")),
    )


def fill_context(fields: Sequence[ContextField], given: Mapping[str, Any] | None) -> dict[str, str]:
    """The context of a new chat, with the defaults of what is not given.

    Raises:
        InvalidRequest: a required value is missing.
    """
    filled = {name: value if isinstance(value, str) else str(value) for name, value in (given or {}).items()}
    for field in fields:
        if field.name not in filled and field.default:
            filled[field.name] = field.default
        if field.required and not filled.get(field.name):
            raise InvalidRequest(
                f"Input validation failed: context.{field.name}: this agent needs it"
                + (f" ({field.description})" if field.description else "")
            )
    return filled


def _core(given: Mapping[str, Any]) -> Core:
    newer, older = object_of(given, "core_app"), text_of(given, "core_app_ref")
    ref = text_of(newer, "ref", "core_app") or older
    app_id = text_of(newer, "id", "core_app")
    if not (ref or app_id):
        raise refused(
            "core_app.ref", "an agent needs the app that is its language model, for instance examples/llm"
        )
    return Core(
        ref=ref.removesuffix("@latest"),
        id=app_id,
        version_id=text_of(newer, "version_id", "core_app"),
        setup=object_of(newer, "setup", "core_app"),
        input=object_of(newer, "input", "core_app") or object_of(given, "core_app_input"),
    )


def _internal(given: Mapping[str, Any], skills: Sequence[Skill]) -> tuple[Internal, ...]:
    """Those that are on. Others belong to the platform's own pages: a config may name them, and nothing comes of it.

    Reading skills is on unless it is turned off, when there is anything to read.
    """
    flags = object_of(given, "internal_tools")
    reads = flags.get(Internal.SKILLS.value) is not False and not all(skill.preload for skill in skills)
    flags[Internal.SKILLS.value] = reads
    return tuple(tool for tool in Internal if flags.get(tool.value) is True)


def _check_names(tools: Sequence[Tool], internal: Sequence[Internal]) -> None:
    if len(tools) > MAX_TOOLS:
        raise refused("tools", f"an agent may have {MAX_TOOLS} tools; this one has {len(tools)}")
    taken = {tool.value for tool in internal}
    for number, tool in enumerate(tools):
        if tool.name in taken:
            raise refused(f"tools.{number}.name", f"{tool.name!r} is the name of another tool of this agent")
        taken.add(tool.name)


def _context_field(given: Mapping[str, Any], where: str) -> ContextField:
    default = given.get("default")
    return ContextField(
        name=text_of(given, "name", where),
        description=text_of(given, "description", where),
        required=given.get("required") is True,
        default="" if default is None else str(default),
    )


def _limits(given: Mapping[str, Any]) -> Limits:
    found = {}
    for name in ("turns", "tool_calls", "tokens"):
        value = given.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise refused(f"limits.{name}", f"{value!r} is no number of {name.replace('_', ' ')}")
        found[name] = value
    return Limits(**found)
