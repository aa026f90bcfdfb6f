"""A request in OpenAI's chat dialect as the input of an app that keeps the LLM contract. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from stoker.core.apps import AppFunction
from stoker.core.errors import InvalidRequest
from stoker.llm.contract import fitting, properties_of

REFUSED: Final = (
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "audio",
    "prediction",
    "web_search_options",
    "moderation",
)
"""What no app could honour. Other unknown parameters have no effect."""
SAME_NAME: Final = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "top_k", "min_p")
SYSTEM_ROLES: Final = frozenset({"system", "developer"})
ROLES: Final = SYSTEM_ROLES | {"user", "assistant", "tool", "function"}
EFFORTS: Final = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
_TAKEN_FOR: Final = {"tools": "tools", "images": "pictures", "files": "files"}


class ChatRequest(Struct, kw_only=True):
    """The body of a chat completion. What it does not name is accepted and has no effect, but for `REFUSED`.

    `setup`, `workers` and `priority` are Stoker's own: as in a run.
    """

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    n: int | None = 1
    modalities: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: Any = None
    setup: dict[str, Any] | None = None
    workers: list[str] | None = None
    priority: int = 0

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return bool((self.stream_options or {}).get("include_usage"))


def llm_input(request: ChatRequest, function: AppFunction) -> dict[str, Any]:
    """The app's input.

    Raises:
        InvalidRequest: a parameter that no app could honour, or that this one does not take; a message without form.
    """
    _refuse_unsupported(request)
    given = _conversation(request.messages) | _settings(request) | _tools(request)
    if "model" in properties_of(function.input_schema):
        given["model"] = request.model
    for name, what in _TAKEN_FOR.items():
        if _used(given, name) and name not in properties_of(function.input_schema):
            raise InvalidRequest(
                f"unsupported parameter: {name}: the model {request.model!r} takes no {what}"
            )
    return fitting(function, given)


def _refuse_unsupported(request: ChatRequest) -> None:
    asked = [name for name in REFUSED if getattr(request, name)]
    if request.n not in {None, 1}:
        asked.append("n")
    if set(request.modalities or ["text"]) != {"text"}:
        asked.append("modalities")
    if request.functions and request.tools:
        asked.append("functions")
    if asked:
        raise InvalidRequest(f"unsupported parameter: {', '.join(asked)}")


def _used(given: Mapping[str, Any], name: str) -> bool:
    return bool(given.get(name)) or any(message.get(name) for message in given["context"])


def _conversation(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The current turn, and what was said before it."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise InvalidRequest(
                f"messages.{number}.role: {role!r} is unknown; it may be {', '.join(sorted(ROLES))}"
            )
        if role in SYSTEM_ROLES:
            system.append(_turn(message, number)["text"])
        else:
            turns.append(_turn(message, number))
    if not turns:
        raise InvalidRequest("messages: there is nothing to answer; send at least one message of the user")
    # A last assistant message with calls has no current turn: what follows them is to come.
    current = {"text": "", "role": "user"} if turns[-1].get("tool_calls") else turns.pop()
    given: dict[str, Any] = {"context": turns, "system_prompt": "\n\n".join(system) or None}
    return given | current


def _turn(message: Mapping[str, Any], number: int) -> dict[str, Any]:
    role = str(message["role"])
    turn: dict[str, Any] = {"role": "tool" if role == "function" else role, "text": ""}
    content = message.get("content")
    if isinstance(content, str):
        turn["text"] = content
    elif content is not None:
        turn |= _parts(content, number)
    if role in {"tool", "function"}:
        turn["tool_call_id"] = str(message.get("tool_call_id") or message.get("name") or "")
    if calls := message.get("tool_calls"):
        turn["tool_calls"] = calls
    elif call := message.get("function_call"):
        if not isinstance(call, Mapping):
            raise InvalidRequest(f"messages.{number}.function_call: it must be an object")
        turn["tool_calls"] = [{"id": str(call.get("name")), "type": "function", "function": call}]
    if reasoning := message.get("reasoning") or message.get("reasoning_content"):
        turn["reasoning"] = reasoning
    return turn


def _parts(content: object, number: int) -> dict[str, Any]:
    """Content that comes in parts: texts are joined, pictures and files are listed."""
    found: dict[str, list[Any]] = {"text": [], "images": [], "files": []}
    for part in content if isinstance(content, list) else [content]:
        name, value = _part(part, f"messages.{number}.content")
        found[name].append(value)
    turn: dict[str, Any] = {"text": "\n".join(found["text"])}
    return turn | {name: found[name] for name in ("images", "files") if found[name]}


def _part(part: object, where: str) -> tuple[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    value = part.get(kind) if isinstance(part, Mapping) and isinstance(kind, str) else None
    if isinstance(value, str) and kind in {"text", "refusal"}:
        return "text", value
    if kind == "image_url":
        url = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(url, str) and url:
            return "images", url
    if kind == "file" and isinstance(value, Mapping) and isinstance(value.get("file_data"), str):
        name = value.get("filename")
        return "files", {"uri": value["file_data"], "filename": name} if name else value["file_data"]
    raise InvalidRequest(
        f"{where}: a part of type {kind!r} is not understood; it may be text, image_url (with url) or file "
        "(with file_data)"
    )


def _settings(request: ChatRequest) -> dict[str, Any]:
    given: dict[str, Any] = {name: getattr(request, name) for name in SAME_NAME}
    given["max_tokens"] = request.max_completion_tokens or request.max_tokens
    given["stop"] = [request.stop] if isinstance(request.stop, str) else request.stop
    if request.reasoning_effort is not None:
        if request.reasoning_effort not in EFFORTS:
            raise InvalidRequest(
                f"reasoning_effort: {request.reasoning_effort!r} is unknown; it may be {', '.join(EFFORTS)}"
            )
        given["reasoning_effort"] = EFFORTS[request.reasoning_effort]
    if request.response_format:
        given["response_format"] = _response_format(request.response_format)
    return given


def _response_format(wanted: Mapping[str, Any]) -> dict[str, Any]:
    schema = wanted.get("json_schema")
    if not isinstance(schema, Mapping):
        return {"type": wanted.get("type", "text")}
    flat = {"type": "json_schema", "name": schema.get("name"), "json_schema": schema.get("schema")}
    return {
        name: value for name, value in (flat | {"strict": schema.get("strict")}).items() if value is not None
    }


def _tools(request: ChatRequest) -> dict[str, Any]:
    tools = request.tools or [{"type": "function", "function": one} for one in request.functions or ()]
    choice = request.tool_choice if request.tool_choice is not None else request.function_call
    if not tools or choice == "none":
        return {}
    given: dict[str, Any] = {"tools": tools}
    if isinstance(choice, str):
        given["tool_choice"] = {"mode": choice}
    elif choice is not None:
        named = choice.get("function") if isinstance(choice.get("function"), Mapping) else choice
        given["tool_choice"] = {"mode": "function", "name": str((named or {}).get("name", ""))}
    return given
