"""Which values of an input are files, by the JSON schema of its function. Pure.

A schema is compiled once into shapes that lead to files and nowhere else, so a function without files costs a
look into a dictionary. Files are `{"type": "string", "format": "file"}`, or a schema whose `$id` is
`/schemas/File`, as older SDKs have it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stoker.core.errors import InvalidRequest

MAX_FILES: Final = 1000
"""Each is fetched before the run; more belong into an archive."""
MAX_DEPTH: Final = 64
"""How deeply an input may be nested where files may lie. Beyond it a file could hide."""
MAX_SHAPES: Final = 5000
"""Of one schema; a recursive one with many alternatives could otherwise make any number."""
_FORMAT: Final = "file"
_OLDER_ID: Final = "/schemas/File"
_KEPT: Final = 1000
_TOO_INTRICATE: Final = (
    "The input schema of this function is nested too deeply, or has too many alternatives, to find the files in "
    "an input. Simplify the app's input model."
)
_BRANCHES: Final = ("anyOf", "oneOf", "allOf")

Schema = Mapping[str, Any]


@dataclass(eq=False, slots=True)
class Shape:
    """What may stand at one place of an input; parts that no file can lie in are left out."""

    is_file: bool = False
    text_first: bool = False
    """A plain string is taken as text: that alternative comes before the file, and pydantic prefers it."""
    properties: dict[str, "Shape"] = field(default_factory=dict)
    others: "Shape | None" = None
    """Properties without a schema of their own."""
    prefix: dict[int, "Shape"] = field(default_factory=dict)
    items: "Shape | None" = None

    def children(self) -> Iterator["Shape"]:
        """The shapes one level below."""
        yield from self.properties.values()
        yield from self.prefix.values()
        yield from (shape for shape in (self.others, self.items) if shape is not None)


class FileFields:
    """The shapes of the functions seen lately, by version and name."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, str], Shape | None] = {}

    def find(self, version_id: str, function: str, schema: Schema, value: object) -> tuple[str, ...]:
        """`find_files` with the function's compiled schema.

        Raises:
            InvalidRequest: as there.
        """
        key = (version_id, function)
        if key not in self._shapes:
            if len(self._shapes) >= _KEPT:
                self._shapes.clear()
            self._shapes[key] = compile_files(schema)
        shape = self._shapes[key]
        return () if shape is None else find_files(shape, value)


def find_files(shape: Shape, value: object) -> tuple[str, ...]:
    """JSON pointers (RFC 6901) to the files in an input, in its order; empty values are no files.

    Raises:
        InvalidRequest: more than `MAX_FILES`, or nested deeper than `MAX_DEPTH`.
    """
    found: list[str] = []
    for pointer in _walk(shape, value, "", 0):
        found.append(pointer)
        if len(found) > MAX_FILES:
            raise InvalidRequest(
                f"Input validation failed: input: it has more than {MAX_FILES} files; put them into an archive"
            )
    return tuple(found)


def compile_files(schema: Schema) -> Shape | None:
    """The shape of a function's input; None when no file can lie in it.

    Raises:
        InvalidRequest: the schema is nested too deeply, or has too many alternatives.
    """
    compiler = _Compiler(schema)
    try:
        root = compiler.shape([schema])
    except RecursionError:
        raise InvalidRequest(_TOO_INTRICATE) from None
    leading = compiler.leading()
    for shape in leading:
        shape.properties = {name: child for name, child in shape.properties.items() if child in leading}
        shape.prefix = {number: child for number, child in shape.prefix.items() if child in leading}
        shape.others = shape.others if shape.others in leading else None
        shape.items = shape.items if shape.items in leading else None
    return root if root in leading else None


def with_maps(schema: Any) -> Any:
    """The schema with files that may also come as a map (uri, content_type ...) or empty, as the SDK takes them."""
    if isinstance(schema, list):
        return [with_maps(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == _FORMAT and schema.get("type") == "string":
        return schema | {"type": ["string", "object", "null"]}
    return {key: with_maps(item) for key, item in schema.items()}


def _walk(shape: Shape, value: object, pointer: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"Input validation failed: input{pointer.replace('/', '.')[:200]}: nested deeper than {MAX_DEPTH} levels"
        )
    if _is_file(shape, value):
        yield pointer
    elif isinstance(value, dict):
        for name, item in value.items():
            child = shape.properties.get(name, shape.others)
            if child is not None:
                yield from _walk(child, item, f"{pointer}/{_escaped(name)}", depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            child = shape.prefix.get(number, shape.items)
            if child is not None:
                yield from _walk(child, item, f"{pointer}/{number}", depth + 1)


def _is_file(shape: Shape, value: object) -> bool:
    if not shape.is_file or not value:
        return False
    if isinstance(value, str):
        return not shape.text_first
    alone = not any(True for _ in shape.children())
    return isinstance(value, dict) and (alone or "uri" in value or "path" in value)


class _Compiler:
    """Makes shapes of schemas. One set of schemas is one shape, so a recursive schema is a ring of shapes."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._shapes: dict[tuple[int, ...], Shape] = {}

    def shape(self, schemas: Sequence[object]) -> Shape:
        """The shape of a place at which each of `schemas` may hold."""
        plain: list[Schema] = []
        for schema in schemas:
            self._expand(schema, plain, set())
        key = tuple(id(schema) for schema in plain)
        if key not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                raise InvalidRequest(_TOO_INTRICATE)
            self._shapes[key] = made = Shape()
            self._fill(made, plain)
        return self._shapes[key]

    def leading(self) -> set[Shape]:
        """The shapes that are files or lead to some."""
        leading = {shape for shape in self._shapes.values() if shape.is_file}
        grown = True
        while grown:
            more = {
                s for s in self._shapes.values() if s not in leading and not leading.isdisjoint(s.children())
            }
            leading |= more
            grown = bool(more)
        return leading

    def _expand(self, schema: object, plain: list[Schema], seen: set[int]) -> None:
        """Append a schema and all that it refers to or offers, in order."""
        if not isinstance(schema, dict) or id(schema) in seen:
            return
        seen.add(id(schema))
        if any(schema is known for known in plain):
            return
        plain.append(schema)
        if _names_file(schema):
            return
        self._expand(_resolved(self._root, schema.get("$ref")), plain, seen)
        for branch in (one for name in _BRANCHES for one in _listed(schema.get(name))):
            self._expand(branch, plain, seen)

    def _fill(self, shape: Shape, plain: list[Schema]) -> None:
        for schema in plain:
            if _names_file(schema):
                shape.is_file = True
            elif not shape.is_file and _takes_text(schema):
                shape.text_first = True
        open_ended = [schema for schema in plain if not _names_file(schema)]
        names = dict.fromkeys(name for schema in open_ended for name in _mapped(schema.get("properties")))
        for name in names:
            below = [
                _mapped(s.get("properties")).get(name, s.get("additionalProperties")) for s in open_ended
            ]
            shape.properties[name] = self.shape(below)
        others = [
            other
            for schema in open_ended
            for other in (
                schema.get("additionalProperties"),
                *_mapped(schema.get("patternProperties")).values(),
            )
            if isinstance(other, dict)
        ]
        shape.others = self.shape(others) if others else None
        for number in range(max((len(_listed(s.get("prefixItems"))) for s in open_ended), default=0)):
            at = [s["prefixItems"][number] for s in open_ended if number < len(_listed(s.get("prefixItems")))]
            shape.prefix[number] = self.shape(at)
        items = [schema["items"] for schema in open_ended if isinstance(schema.get("items"), dict)]
        shape.items = self.shape(items) if items else None


def _names_file(schema: Schema) -> bool:
    return (
        schema.get("format") == _FORMAT or schema.get("$id") == _OLDER_ID or schema.get("$ref") == _OLDER_ID
    )


def _takes_text(schema: Schema) -> bool:
    kind = schema.get("type")
    if kind is None:
        return not any(key in schema for key in (*_BRANCHES, "$ref", "enum", "const", "properties", "items"))
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _resolved(root: Schema, ref: object) -> object:
    """What a reference within the document names; None for any other."""
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    found: Any = root
    for part in ref[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapped(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
