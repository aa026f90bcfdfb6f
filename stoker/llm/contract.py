"""The LLM contract of apps: which apps keep it, what they are sent, what they answer. Pure.

An app speaks it when its default function takes `text` and `context` and gives `response`. Outputs come in several
spellings (arguments as text or as an object, ids missing or doubled); `read_output` makes one of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from stoker.core.apps import AppFunction, AppVersion

ASKED: Final = frozenset({"text", "context"})
ANSWERED: Final = "response"
SETTINGS: Final = (
    "context_size",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "max_tokens",
    "reasoning_effort",
    "reasoning_max_tokens",
    "tool_choice",
    "response_format",
    "model",
    "model_settings",
)
"""What a caller may set of a model; an app that does not know one is not sent it."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that a model asks for. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"

    def as_wire(self) -> dict[str, Any]:
        """In the form that models and their clients know."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


class LlmOutput(Struct, frozen=True, kw_only=True):
    """A whole answer."""

    response: str = ""
    reasoning: str = ""
    reasoning_state: Any = None  # opaque: kept with the message, and sent back with it
    tool_calls: tuple[ToolCall, ...] = ()
    usage: dict[str, Any] = {}
    images: tuple[Any, ...] = ()

    def count(self, name: str) -> int:
        """One of the numbers of `usage`; 0 for what the app does not tell."""
        value = self.usage.get(name)
        return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0

    @property
    def tokens(self) -> int:
        """All tokens that the answer took: the total that the app tells, else the sum of its parts."""
        return self.count("total_tokens") or self.count("prompt_tokens") + self.count("completion_tokens")


def llm_function(version: AppVersion) -> AppFunction | None:
    """The function through which a version is spoken to as a language model; None when it is none."""
    function = version.functions.get(version.default_function)
    if function is None or not properties_of(function.input_schema) >= ASKED:
        return None
    answers = properties_of(function.output_schema)
    return function if not answers or ANSWERED in answers else None


def properties_of(schema: Mapping[str, Any]) -> set[str]:
    """The names of a schema's own properties."""
    found = schema.get("properties")
    return set(found) if isinstance(found, Mapping) else set()


def fitting(function: AppFunction, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of an input, what the app declares and what is set: null is refused for fields that have a default."""
    known = properties_of(function.input_schema)
    return {name: value for name, value in given.items() if name in known and value is not None}


def read_output(raw: bytes | msgspec.Raw) -> LlmOutput:
    """An output as apps give it, whole or in part. What has another type than the contract's is left out."""
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return LlmOutput()
    if not isinstance(value, Mapping):
        return LlmOutput(response=value if isinstance(value, str) else "")
    usage = value.get("usage")
    return LlmOutput(
        response=_text(value.get("response")),
        reasoning=_text(value.get("reasoning")),
        reasoning_state=value.get("reasoning_state"),
        tool_calls=read_calls(value.get("tool_calls")),
        usage=dict(usage) if isinstance(usage, Mapping) else {},
        images=tuple(value["images"]) if isinstance(value.get("images"), list) else (),
    )


def read_calls(value: object) -> tuple[ToolCall, ...]:
    """The calls of an output, each with an id of its own."""
    calls: list[ToolCall] = []
    for number, item in enumerate(
        value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    ):
        function = item.get("function") if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping):
            continue
        call_id = _text(item.get("id"))
        if not call_id or any(call.id == call_id for call in calls):
            call_id = f"call_{number}" if not call_id else f"{call_id}_{number}"
        name = _text(function.get("name"))
        calls.append(ToolCall(id=call_id, name=name, arguments=arguments_text(function.get("arguments"))))
    return tuple(calls)


def arguments_text(value: object) -> str:
    """Arguments as JSON text, whatever the app gave; none at all is an empty object."""
    if isinstance(value, str):
        return value if value.strip() else "{}"
    return "{}" if value is None else _encode(value).decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
