"""Skills: texts that a model is given with its prompt, or reads when it needs them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from stoker.agents.fields import address_in, refused, text_of
from stoker.agents.tools import Internal, Tool, ToolType

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
        raise refused("skills", f"an agent may have {MAX_SKILLS} skills; this one has {len(given)}")
    found = tuple(_skill(one, number) for number, one in enumerate(given))
    names = [skill.name for skill in found]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise refused(f"skills.{number}.name", f"{name!r} is the name of another skill of this agent")
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
        raise refused(f"skills.{number}", f"{why}: give `content`, or the `url` of the text")
    return address_in(url, f"skills.{number}.url")


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
        raise refused(f"skills.{number}", "its text was not fetched")
    return Skill(
        name=text_of(given, "name", f"skills.{number}") or f"skill-{number + 1}",
        description=text_of(given, "description", f"skills.{number}"),
        content=text_of(given, "content", f"skills.{number}"),
        preload=given.get("preload") is True,
    )
