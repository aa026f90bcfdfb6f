"""Skills: texts that a model is given with its prompt, or reads when it needs them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from stoker.agents.tools import Internal, Tool, ToolType
from stoker.core.errors import InvalidRequest

MAX_SKILLS: Final = 64
"""Of one agent; the model is told of each."""


class Skill(Struct, frozen=True, kw_only=True):
    """A text that the model is given, or told of."""

    name: str
    description: str = ""
    content: str = ""
    preload: bool = False
    apart: bool = False  # the text is stored beside the chat's head


def read_skills(given: Sequence[Mapping[str, Any]]) -> tuple[Skill, ...]:
    """The skills of a config, whose texts are there.

    Raises:
        InvalidRequest: names the skill and what it lacks.
    """
    if len(given) > MAX_SKILLS:
        raise skill_refused("", f"an agent may have {MAX_SKILLS} skills; this one has {len(given)}")
    found = tuple(_skill(one, number) for number, one in enumerate(given))
    names = [skill.name for skill in found]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise skill_refused(f".{number}.name", f"{name!r} is the name of another skill of this agent")
    return found


def address_of(given: Mapping[str, Any], number: int) -> str:
    """Where the text of a skill is to be fetched; empty when it is there.

    Raises:
        InvalidRequest: there is no text and no address, or the address is none.
    """
    if given.get("content"):
        return ""
    url = given.get("url")
    if not url:
        by = next((name for name in ("skill_id", "version_id") if given.get(name)), "")
        why = f"{by} names a skill of a store, and there is none here" if by else "it has no text"
        raise skill_refused(f".{number}", f"{why}: give `content`, or the `url` of the text")
    try:
        usable = isinstance(url, str) and urlsplit(url).scheme in {"http", "https"}
    except ValueError:
        usable = False
    if not usable:
        raise skill_refused(f".{number}.url", f"{str(url)[:100]!r} is no http or https address")
    return str(url)


def skill_refused(field: str, why: str) -> InvalidRequest:
    """A refusal of a config's skills.

    Args:
        field: what follows the list's name: a dot, the number, and perhaps the field.
    """
    return InvalidRequest(f"Input validation failed: agent_config.skills{field}: {why}")


def skills_tool(skills: Sequence[Skill]) -> Tool:
    """The tool by which the model reads what it was only told of."""
    names = [skill.name for skill in skills if not skill.preload]
    name: dict[str, Any] = {"type": "string", "description": "The skill's name"}
    return Tool(
        name=Internal.SKILLS.value,
        type=ToolType.INTERNAL,
        description="Read the text of a skill. Do so before you do what the skill is for.",
        schema={
            "type": "object",
            "properties": {"name": name | ({"enum": names} if names else {})},
            "required": ["name"],
        },
    )


def _skill(given: Mapping[str, Any], number: int) -> Skill:
    if address_of(given, number):
        raise skill_refused(f".{number}", "its text was not fetched")
    return Skill(
        name=_text(given, "name", number) or f"skill-{number + 1}",
        description=_text(given, "description", number),
        content=_text(given, "content", number),
        preload=given.get("preload") is True,
    )


def _text(given: Mapping[str, Any], field: str, number: int) -> str:
    value = given.get(field)
    if value and not isinstance(value, str):
        raise skill_refused(f".{number}.{field}", f"it must be a text, not {type(value).__name__}")
    return str(value or "")
