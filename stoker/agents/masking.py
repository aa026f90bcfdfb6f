"""What may be a key in an agent's config: hidden when it is shown, and put back when a shown config is stored. Pure.

Only the fields of tools that take secrets (`TAKES_SECRETS`) are looked at: a field of a schema may have any name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from stoker.agents.fields import refused
from stoker.agents.secrets import is_reference
from stoker.agents.tools import TAKES_SECRETS

MASK: Final = "***"
"""Stands where a value is that is not told again."""

Place = tuple[str, ...]
"""The tool's name, its kind and the address that it calls, then the field: a value goes to no other address."""
Config = Mapping[str, Any]
_Change = Callable[[Place, Any], Any]


def masked(config: Config) -> dict[str, Any]:
    """A config as it is shown. A reference to a secret tells nothing, and stays."""
    return _changed(config, lambda _, value: value if is_reference(value) else MASK)


def unmasked(config: Config, versions: Iterable[Config] = ()) -> dict[str, Any]:
    """A config that was shown, with what was hidden in it.

    Args:
        versions: the configs that it may have been read from, the latest last.

    Raises:
        InvalidRequest: none of them has that field, or the tool calls another address there.
    """
    known: dict[Place, Any] = {}
    for version in versions:
        _changed(version, known.__setitem__)

    def restored(place: Place, value: Any) -> Any:
        if value != MASK:
            return value
        if place not in known:
            name, kind, _, *field = place
            raise refused(
                "tools",
                f"{name}.{kind}.{'.'.join(field)} is {MASK}, which stands for a value that is not shown. Write the value, or a "
                "reference to a secret (${{secrets.NAME}}); it is kept by itself only where tool and address stay the same",
            )
        return known[place]

    return _changed(config, restored)


def _changed(config: Config, change: _Change) -> dict[str, Any]:
    tools = config.get("tools")
    if not isinstance(tools, list):
        return dict(config)
    return {**config, "tools": [_tool(one, change) if isinstance(one, Mapping) else one for one in tools]}


def _tool(tool: Config, change: _Change) -> dict[str, Any]:
    found = dict(tool)
    for kind, fields in TAKES_SECRETS.items():
        own = tool.get(kind)
        if isinstance(own, Mapping):
            place = (str(tool.get("name")), kind, str(own.get("url")))
            found[kind] = {
                name: _field((*place, name), value, change) if name in fields and value else value
                for name, value in own.items()
            }
    return found


def _field(place: Place, value: Any, change: _Change) -> Any:
    """A secret, headers, or a way to sign in with a secret in it."""
    if not isinstance(value, Mapping):
        return change(place, value)
    open_fields = ("type", "header") if place[-1] == "auth" else ()
    return {
        name: change((*place, str(name)), text) if text and name not in open_fields else text
        for name, text in value.items()
    }
