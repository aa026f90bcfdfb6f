"""The tools of an agent: what they are on the wire, what a model is told of them, whether its arguments fit. Pure."""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs
import msgspec
from msgspec import Struct

from stoker.agents.fields import address_in, object_of, refused, text_of
from stoker.agents.secrets import check_references, names_in
from stoker.core.schema_errors import schema_errors

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the APIs of language models take as the name of a function."""
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
TAKES_SECRETS: Final = {"http": ("headers", "auth"), "call": ("headers", "auth"), "hook": ("secret",)}
"""The fields of a tool in which `${{secrets.NAME}}` stands for a value."""
COMPILED_KEPT: Final = 256
COMPILED_BYTES: Final = 16 * 1024
"""Schemas that are kept compiled, and of which size at most: a call of a tool in most chats compiles none."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ToolType(StrEnum):
    """Who does the work."""

    CLIENT = "client"
    """The caller's own program."""
    APP = "app"
    """A task of an app."""
    AGENT = "agent"
    """Another agent, in a chat of its own."""
    HTTP = "http"
    """A call of an address, with the arguments."""
    HOOK = "hook"
    """A signed call of an address."""
    INTERNAL = "internal"
    """The chat itself."""


class Internal(StrEnum):
    """Tools of the chat itself."""

    PLAN = "plan"
    MEMORY = "memory"
    FINISH = "finish"
    SKILLS = "skills"


class Auth(Struct, frozen=True, kw_only=True):
    """How a call shows who calls."""

    type: str
    secret: str = ""
    header: str = ""


class Tool(Struct, frozen=True, kw_only=True):
    """One tool. `schema` is that of its arguments, as a model is told of it."""

    name: str
    type: ToolType
    display_name: str = ""
    description: str = ""
    require_approval: bool = False
    schema: dict[str, Any] = {}
    ref: str = ""  # app, agent
    function: str = ""
    setup: dict[str, Any] | None = None
    input: dict[str, Any] = {}  # defaults that the model may override
    session_enabled: bool = False
    url: str = ""  # http, hook
    method: str = "POST"
    headers: dict[str, str] = {}
    auth: Auth | None = None
    secret: str = ""

    @property
    def secrets(self) -> frozenset[str]:
        """The names of the secrets that it refers to; their values are put in when it is called."""
        shown = self.auth.secret if self.auth is not None else ""
        return names_in([*self.headers.values(), self.secret, shown])

    def as_function(self) -> dict[str, Any]:
        """In the form that models know."""
        return function_of(self.name, self.description, self.schema)


INTERNAL_TOOLS: Final = {
    Internal.PLAN: Tool(
        name="plan",
        type=ToolType.INTERNAL,
        description="Write down the steps of your plan, or their new states. Send the whole plan each time.",
        schema={
            "type": "object",
            "properties": {
                "steps": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "description": {"type": "string"},
                            "status": {
                                "type": "string",
                                "enum": ["pending", "in_progress", "completed", "cancelled"],
                            },
                        },
                        "required": ["description"],
                    },
                }
            },
            "required": ["steps"],
        },
    ),
    Internal.MEMORY: Tool(
        name="memory",
        type=ToolType.INTERNAL,
        description=(
            "Remember facts for the rest of this conversation (set), or forget some (forget). The answer is all "
            "that is remembered."
        ),
        schema={
            "type": "object",
            "properties": {
                "set": {"type": "object", "additionalProperties": {"type": "string"}},
                "forget": {"type": "array", "items": {"type": "string"}},
            },
        },
    ),
}


def finish_tool(output_schema: Mapping[str, Any] | None) -> Tool:
    """The tool that ends a run; its arguments are the run's output."""
    anything = {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]}
    return Tool(
        name=Internal.FINISH.value,
        type=ToolType.INTERNAL,
        description="Call this when the task is done; the arguments are the final result.",
        schema=as_parameters(output_schema) if output_schema else anything,
    )


def function_of(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the form that models know."""
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": as_parameters(schema)},
    }


def as_parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema as the parameters of a function: an object with properties and what is required."""
    return {"type": "object", "properties": {}, "required": []} | dict(schema)


def read_tool(given: Mapping[str, Any], where: str) -> Tool:
    """A tool as the clients send it.

    Raises:
        InvalidRequest: names the field and what it may be.
    """
    if isinstance(given.get("schema"), Mapping) and "type" not in given:  # JavaScript's tool with a handler
        given = given["schema"]
    name = given.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise refused(
            f"{where}.name", f"{name!r} cannot be the name of a tool: 1 to 64 of A-Z, a-z, 0-9, _, -"
        )
    kind = "http" if given.get("type") == "call" else given.get("type")
    known = [one.value for one in ToolType if one is not ToolType.INTERNAL]
    if kind not in known:
        raise refused(
            f"{where}.type", f"tools of the type {kind!r} are not run here; it may be {', '.join(known)}"
        )
    type_ = ToolType(kind)
    own = given.get(str(given.get("type"))) or given.get(kind) or {}
    if not isinstance(own, Mapping):
        raise refused(f"{where}.{kind}", "it must be an object")
    check_references(own, TAKES_SECRETS.get(kind, ()), f"{where}.{kind}")
    common: dict[str, Any] = {
        "name": name,
        "type": type_,
        "display_name": text_of(given, "display_name", where) or name,
        "description": text_of(given, "description", where),
        "require_approval": given.get("require_approval") is True,
        "schema": clean_schema(object_of(own, "input_schema", f"{where}.{kind}")),
    }
    return Tool(**common, **_own_fields(type_, own, f"{where}.{kind}"))


def clean_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without what older clients leave in it and no validator knows: `optional`."""
    cleaned = _cleaned(schema)
    return cleaned if isinstance(cleaned, dict) else {}


def read_arguments(text: str) -> tuple[dict[str, Any] | None, str]:
    """Arguments that a model wrote: an object, or None and what is wrong with them."""
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return None, f"The arguments are not valid JSON ({error}). Call the tool again with a JSON object."
    if isinstance(value, str):  # some models encode twice
        return read_arguments(value) if value.lstrip().startswith("{") else (None, _NO_OBJECT)
    return (value, "") if isinstance(value, dict) else (None, _NO_OBJECT)


_NO_OBJECT: Final = "The arguments are not a JSON object. Call the tool again with one."


def argument_errors(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """What is wrong with arguments, for the model to put right; empty when they fit, or the schema says nothing."""
    if not schema:
        return ""
    try:
        wrong = schema_errors(_validator(schema), dict(arguments), "arguments")
    except (ValueError, RecursionError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return ""  # the schema itself cannot be compiled: who made the tool decides what it takes
    return f"The arguments do not fit the tool: {wrong}. Call it again with valid ones." if wrong else ""


def _validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    text = _encode(schema)
    return _kept(text) if len(text) <= COMPILED_BYTES else _compiled(text)


def _compiled(text: bytes) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(_decode(text), retriever=_refuse)


_kept = lru_cache(COMPILED_KEPT)(_compiled)
"""By the schema's text: each step reads its chat anew, and its tools with it."""


def _own_fields(type_: ToolType, own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What tools of one type have beside the others."""
    if type_ is ToolType.CLIENT:
        return {}
    if type_ in {ToolType.APP, ToolType.AGENT}:
        ref = text_of(own, "ref", where)
        if not ref:
            raise refused(f"{where}.ref", "say which one, as namespace/name")
        if type_ is ToolType.AGENT:
            return {"ref": ref}
        return {
            "ref": ref,
            "function": text_of(own, "function", where),
            "setup": None if own.get("setup") is None else object_of(own, "setup", where),
            "input": object_of(own, "input", where),
            "session_enabled": own.get("session_enabled") is True,
        }
    url = address_in(text_of(own, "url", where), f"{where}.url")
    if type_ is ToolType.HOOK:
        return {"url": url, "secret": text_of(own, "secret", where)}
    method = (text_of(own, "method", where) or "POST").upper()
    if method not in METHODS:
        raise refused(f"{where}.method", f"{method!r} is unknown; it may be {', '.join(METHODS)}")
    headers = {name: str(value) for name, value in object_of(own, "headers", where).items()}
    return {"url": url, "method": method, "headers": headers, "auth": _auth(own.get("auth"), where)}


def _auth(given: object, where: str) -> Auth | None:
    if not isinstance(given, Mapping):
        return None
    kind = text_of(given, "type", f"{where}.auth")
    if kind not in {"bearer", "api_key"}:
        raise refused(
            f"{where}.auth.type",
            f"{kind!r} is not known here; it may be bearer or api_key. There are no connected accounts: give the secret",
        )
    header = text_of(given, "header", f"{where}.auth") or "X-API-Key"
    secret = text_of(given, "secret", f"{where}.auth")
    return Auth(type=kind, secret=secret, header=header if kind == "api_key" else "")


def _cleaned(value: Any) -> Any:
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    cleaned: dict[str, Any] = {}
    for name, item in value.items():
        if name == "optional" and isinstance(item, bool):
            continue
        if name == "properties" and isinstance(item, Mapping):  # names of fields, not words of the schema
            cleaned[name] = {field: _cleaned(schema) for field, schema in item.items()}
        else:
            cleaned[name] = _cleaned(item)
    return cleaned


def _refuse(uri: str) -> Any:
    raise ValueError(f"schemas are not fetched: {uri}")
