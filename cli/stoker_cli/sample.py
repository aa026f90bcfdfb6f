"""An example value for a JSON schema: what the schema itself gives as example or default, else the smallest that fits."""

from collections.abc import Mapping
from typing import Any, Final

MAX_DEPTH: Final = 12
"""A schema may contain itself."""
_PLAIN: Final[dict[str, Any]] = {
    "string": "text",
    "integer": 1,
    "number": 1.0,
    "boolean": False,
    "null": None,
}
_FORMATS: Final = {
    "file": "https://example.com/file",
    "uri": "https://example.com/",
    "date": "2030-01-01",
    "date-time": "2030-01-01T00:00:00Z",
    "email": "me@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: Mapping[str, Any]) -> Any:
    """An example for a schema; its optional fields are left out unless they have an example."""
    return _sample(schema, schema, 0)


def type_of(schema: Mapping[str, Any]) -> str:
    """What a field may be, in a word or two: a type, several, or the name of a definition."""
    found = schema.get("type")
    if isinstance(found, list):
        return " or ".join(map(str, found))
    return str(found or schema.get("$ref", "").rsplit("/", 1)[-1] or "any")


def _sample(root: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        return None
    given = _given(schema)
    if given:
        return given[0]
    if isinstance(ref := schema.get("$ref"), str):
        return _sample(root, _target(root, ref), depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if choices := schema.get(word):
            first = next((choice for choice in choices if choice.get("type") != "null"), choices[0])
            return _sample(root, first, depth + 1)
    return _of_type(root, schema, depth)


def _given(schema: Mapping[str, Any]) -> list[Any]:
    """Values that the schema itself names, the best first."""
    named = [schema[key] for key in ("example", "const", "default") if key in schema]
    return [*(schema.get("examples") or []), *named, *(schema.get("enum") or [])]


def _of_type(root: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        required = schema.get("required") or []
        return {
            name: _sample(root, field, depth + 1)
            for name, field in (schema.get("properties") or {}).items()
            if name in required or field.get("examples")
        }
    if kind == "array":
        count = int(schema.get("minItems") or 0)
        return [_sample(root, schema.get("items") or {}, depth + 1) for _ in range(count)]
    if kind == "string":
        text = _FORMATS.get(str(schema.get("format")), _PLAIN["string"])
        return str(text).ljust(int(schema.get("minLength") or 0), ".")[: schema.get("maxLength")]
    if kind in {"integer", "number"}:
        return _number(schema, whole=kind == "integer")
    return _PLAIN.get(str(kind))


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf") or (1 if whole else 0.5)
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    high = schema.get("maximum")
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    value = low if low is not None else min(1, high) if high is not None else 1
    return int(value) if whole else float(value)


def _target(root: Mapping[str, Any], ref: str) -> Mapping[str, Any]:
    found: Any = root
    for part in ref.removeprefix("#/").split("/"):
        found = (
            found.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
        )
    return found if isinstance(found, Mapping) else {}
