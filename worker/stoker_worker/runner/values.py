"""Values in and out of an app: inputs made from JSON, outputs made into JSON, files found in them.

Works with pydantic models, dataclasses and plain values, with any SDK version or none. Files are found in the
values themselves, before the dump: afterwards they look like other maps or strings.
"""

import dataclasses
import json
import math
import mimetypes
import os
import sys
import typing
from enum import Enum
from pathlib import Path


class BadInput(Exception):
    """The input does not fit the function; `fields` are [{loc, message}]."""

    def __init__(self, message: str, fields: "list[dict]") -> None:
        super().__init__(message)
        self.fields = fields


class BadOutput(Exception):
    """What the app returned cannot be sent as JSON."""


def is_model(kind: object) -> bool:
    """Whether `kind` is a pydantic model class; pydantic itself is not imported for the question."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def build(kind: object, value: object, name: str) -> object:
    """`value` as the annotation `kind` wants it.

    Raises:
        BadInput: it does not fit.
    """
    try:
        if is_model(kind):
            return kind(**value) if isinstance(value, dict) else kind.model_validate(value)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return _build_dataclass(kind, value)
    except BadInput:
        raise
    except Exception as error:
        raise _bad_input(error, name) from error
    return value


def _build_dataclass(kind: type, value: object) -> object:
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None:
        return pydantic.TypeAdapter(kind).validate_python(value)
    if not isinstance(value, dict):
        raise TypeError(f"an object is needed, not {type(value).__name__}")
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    return kind(**{key: item for key, item in value.items() if key in names})


def _bad_input(error: Exception, name: str) -> BadInput:
    """A pydantic error with its fields; anything else (files that cannot be fetched ...) as it says."""
    errors = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and callable(errors):
        fields = [
            {"loc": ".".join(str(part) for part in entry["loc"]), "message": str(entry["msg"])}
            for entry in errors()
        ]
        text = "; ".join(f"{field['loc'] or name}: {field['message']}" for field in fields)
    else:
        text = str(error) or type(error).__name__
        fields = [{"loc": "", "message": text}]
    return BadInput(f"The {name} is not valid: {text}", fields)


def dump(value: object) -> "tuple[object, list[dict]]":
    """A JSON value of what an app returned, and the files in it.

    Raises:
        BadOutput: names the field that is no JSON.
    """
    files: list[dict] = []
    try:
        dumped = _dump(value, "", files)
    except RecursionError:
        raise BadOutput("The app returned an output that is nested too deeply, or contains itself") from None
    return dumped, files


def take_meta(dumped: object) -> object:
    """Take `output_meta` out of a dumped output: a field of the SDK's base class, about the output, not of it."""
    return dumped.pop("output_meta", None) if isinstance(dumped, dict) else None


def encode(value: object) -> bytes:
    """JSON bytes of a dumped value.

    Raises:
        BadOutput: it holds NaN or an infinity.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        where, number = next(_not_finite(value, ""), ("", "a number"))
        raise BadOutput(f"The app's output {_field(where)} is {number}; JSON has no such number") from None
    return text.encode("utf-8", "replace")


def _not_finite(value: object, pointer: str) -> "typing.Iterator[tuple[str, float]]":
    """Where numbers are that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        yield pointer, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{pointer}/{_escaped(str(key))}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{pointer}/{number}")


def _dump(value: object, pointer: str, files: "list[dict]") -> object:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if is_file(value):
        return _dump_file(value, pointer, files)
    if is_model(type(value)):
        return _dump_model(value, pointer, files)
    return _dump_group(value, pointer, files)


def _dump_group(value: object, pointer: str, files: "list[dict]") -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Enum):
        return _dump(value.value, pointer, files)
    if isinstance(value, dict):
        pairs = [(_key(key), item) for key, item in value.items()]
        return {key: _dump(item, f"{pointer}/{_escaped(key)}", files) for key, item in pairs}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_dump(item, f"{pointer}/{number}", files) for number, item in enumerate(value)]
    return _dump_other(value, pointer, files)


def _dump_model(model: object, pointer: str, files: "list[dict]") -> object:
    """A pydantic model: its own dump decides, but for the fields that hold files."""
    if issubclass(type(model), sys.modules["pydantic"].RootModel):
        return _dump(model.root, pointer, files)
    shown = [name for name, field in type(model).model_fields.items() if not field.exclude]
    shown += model.__pydantic_extra__ or ()
    held = {name: getattr(model, name, None) for name in shown}
    holds = {name: value for name, value in held.items() if may_hold_file(value)}
    try:
        dumped = model.model_dump(mode="json", exclude=set(holds) or None)
    except Exception as error:
        raise BadOutput(f"The app's output {_field(pointer)} cannot be written as JSON: {error}") from error
    if not isinstance(dumped, dict) or not holds:
        return dumped
    merged = {}
    for name in dict.fromkeys((*shown, *dumped)):  # in the order of the fields
        if name in holds:
            merged[name] = _dump(holds[name], f"{pointer}/{_escaped(name)}", files)
        elif name in dumped:
            merged[name] = dumped[name]
    return merged


def may_hold_file(value: object) -> bool:
    """Whether a file lies somewhere in `value`."""
    if value is None or isinstance(value, (str, bytes, int, float)):
        return False
    if is_file(value):
        return True
    if isinstance(value, dict):
        return any(may_hold_file(item) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(may_hold_file(item) for item in value)
    if is_model(type(value)) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return (
            any(may_hold_file(item) for item in vars(value).values()) if hasattr(value, "__dict__") else False
        )
    return False


def _dump_other(value: object, pointer: str, files: "list[dict]") -> object:
    """What JSON lacks: numbers of numpy, dates, paths, UUIDs ..., as pydantic writes them where it is there."""
    item = getattr(value, "tolist", None)  # numpy and torch: scalars and arrays
    if callable(item):
        return _dump(item(), pointer, files)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    core = sys.modules.get("pydantic_core")
    if core is not None and not isinstance(value, type):
        try:
            return _dump(core.to_jsonable_python(value), pointer, files)
        except Exception as error:
            raise BadOutput(f"The app's output {_field(pointer)} is no JSON: {error}") from error
    kind = type(value)
    raise BadOutput(
        f"The app's output {_field(pointer)} is a {kind.__module__}.{kind.__name__}, which is no JSON"
    )


def is_file(value: object) -> bool:
    """An SDK's File, of any age: by its class's name, or by its attributes."""
    if isinstance(value, (dict, list, tuple, str, type)):
        return False
    named = any(kind.__name__ == "File" for kind in type(value).__mro__)
    return hasattr(value, "path") and (named or hasattr(value, "uri"))


def _dump_file(file: object, pointer: str, files: "list[dict]") -> object:
    """A map like the SDK's own, without paths of this machine. The daemon uploads what lies on it."""
    uri, path = getattr(file, "uri", None), getattr(file, "path", None)
    shown = {name: getattr(file, name, None) for name in ("content_type", "size", "filename")}
    if isinstance(uri, str) and uri.startswith(("http://", "https://")):
        shown["uri"] = uri
    elif path:
        found = _out_file(Path(path).absolute(), shown, pointer)
        files.append(found)
        shown = {name: found[name] for name in shown}
    elif isinstance(uri, str):
        raise BadOutput(
            f"The app's output {_field(pointer)} is a File that is neither on disk nor on the web"
        )
    return {key: item for key, item in shown.items() if item is not None}


def _out_file(path: Path, shown: dict, pointer: str) -> dict:
    filename = shown["filename"] or path.name
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # the daemon names the field when it finds nothing there
    kind = shown["content_type"] or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return {"pointer": pointer, "path": str(path), "content_type": kind, "filename": filename, "size": size}


def _key(key: object) -> str:
    if isinstance(key, Enum):
        key = key.value
    return (
        key if isinstance(key, str) else json.dumps(key) if isinstance(key, (bool, type(None))) else str(key)
    )


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _field(pointer: str) -> str:
    return "'" + pointer[1:].replace("/", ".") + "'" if pointer else "itself"
