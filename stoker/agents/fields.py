"""The fields of an agent's config: what one holds, or a refusal that names it. Null is absent."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from stoker.core.errors import InvalidRequest


def refused(field: str, why: str) -> InvalidRequest:
    """A refusal of one field of a config, which is named by its path in it."""
    return InvalidRequest(f"Input validation failed: agent_config.{field}: {why}")


def text_of(given: Mapping[str, Any], name: str, where: str = "") -> str:
    """A field that is a text; '' when it is not given.

    Raises:
        InvalidRequest: it is something else.
    """
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refused(path_of(name, where), f"it must be a text, not {type(value).__name__}")
    return value


def object_of(given: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    """A field that is an object; empty when it is not given.

    Raises:
        InvalidRequest: it is something else.
    """
    value = given.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refused(path_of(name, where), "it must be an object")
    return dict(value)


def list_of(given: Mapping[str, Any], name: str) -> Sequence[Any]:
    """A field that is a list; empty when it is not given.

    Raises:
        InvalidRequest: it is something else.
    """
    value = given.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise refused(name, "it must be a list")
    return value


def objects_of(given: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A field that is a list of objects; empty when it is not given.

    Raises:
        InvalidRequest: it is something else.
    """
    items = list_of(given, name)
    if not all(isinstance(item, Mapping) for item in items):
        raise refused(name, "each entry must be an object")
    return list(items)


def address_in(value: object, field: str) -> str:
    """An http or https address.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        usable = isinstance(value, str) and urlsplit(value).scheme in {"http", "https"}
    except ValueError:  # for instance an IPv6 address that is none
        usable = False
    if not usable:
        raise refused(field, f"{str(value)[:100]!r} is no http or https address")
    return str(value)


def path_of(name: str, where: str) -> str:
    """The path of a field in a config."""
    return f"{where}.{name}" if where else name
