"""Dotted paths into JSON values and into JSON schemas, and which JSON types a schema allows."""

from collections.abc import Mapping
from typing import Any, Final

from stoker.core.setup_key import resolve

MISSING: Final = object()
"""A path leads nowhere."""
_DEPTH: Final = 16
_ALTERNATIVES: Final = ("anyOf", "oneOf")
_PYTHON_TYPES: Final[tuple[tuple[str, type | tuple[type, ...]], ...]] = (
    ("boolean", bool),  # first: it is an int to Python
    ("integer", int),
    ("number", float),
    ("string", str),
    ("array", (list, tuple)),
    ("object", dict),
)
_FILE: Final = frozenset({"string", "object"})
"""A file is an address, or a map with one."""


def dig(value: Any, path: str) -> Any:
    """The value at a path; '' is the value itself. A key that has dots in it is found as it is first."""
    if not path:
        return value
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        head, _, rest = path.partition(".")
        return dig(value[head], rest) if head in value and rest else MISSING
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        if head.isdecimal() and int(head) < len(value):
            return dig(value[int(head)], rest)
    return MISSING


def schema_at(schema: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The schema of what is at a path; {} where anything may be there, None where nothing is."""
    root = schema
    for part in path.split(".") if path else ():
        found = resolve(root, schema)
        properties = found.get("properties")
        if isinstance(properties, Mapping) and part in properties:
            schema = properties[part]
        elif part.isdecimal() and isinstance(found.get("items"), Mapping):
            schema = found["items"]
        elif isinstance(found.get("additionalProperties"), Mapping):
            schema = found["additionalProperties"]
        elif isinstance(properties, Mapping) and properties and not _open(found):
            return None
        else:
            return {}
    return _rooted(root, resolve(root, schema)) if path else schema


def types_at(schema: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types that a schema allows; empty = any."""
    return _types(schema, schema, _DEPTH)


def fits(given: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether something of the types `given` may be of those `wanted`."""
    if not given or not wanted:
        return True
    numbers = {"number", "integer"}
    return bool(given & wanted) or bool(given & numbers and wanted & numbers)


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    for name, kinds in _PYTHON_TYPES:
        if isinstance(value, kinds):
            return name
    return "null"


def _open(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("additionalProperties")) or any(
        word in schema for word in (*_ALTERNATIVES, "allOf")
    )


def _rooted(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a schema with the definitions that its references need."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return {**definitions, **schema}


def _types(root: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> frozenset[str]:
    found = resolve(root, schema)
    if found.get("format") == "file" or found.get("$id") == "/schemas/File":
        return _FILE
    if said := found.get("type"):
        return frozenset({said} if isinstance(said, str) else map(str, said))
    for word in _ALTERNATIVES:
        branches = [b for b in found.get(word) or () if isinstance(b, Mapping)]
        if branches and depth:
            each = [_types(root, branch, depth - 1) for branch in branches]
            return frozenset[str]().union(*each) if all(each) else frozenset()
    values = found.get("enum", [found["const"]] if "const" in found else [])
    return frozenset(map(type_of, values)) or frozenset({"object"} if "properties" in found else ())
