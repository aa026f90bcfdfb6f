"""Answers in OpenAI's chat dialect: a completion, its chunks, an error. Pure."""

from typing import Any, Final

from stoker.core.errors import CallerError, StokerError
from stoker.llm.contract import LlmOutput
from stoker.llm.growth import Delta

DONE: Final = b"data: [DONE]\n\n"
CUT_SHORT: Final = frozenset({"length", "max_tokens"})
_ERROR_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Completion:
    """One answer: what all its parts have in common."""

    def __init__(self, answer_id: str, model: str, created_s: int) -> None:
        self._common = {"id": f"chatcmpl-{answer_id}", "created": created_s, "model": model}

    def whole(self, output: LlmOutput) -> dict[str, Any]:
        """A `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": output.response or None, "refusal": None}
        if output.reasoning:
            message |= {"reasoning": output.reasoning, "reasoning_content": output.reasoning}
        if output.tool_calls:
            message["tool_calls"] = [call.as_wire() for call in output.tool_calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(output)}
        answer = {"object": "chat.completion", "choices": [choice], "usage": usage_of(output)}
        return self._common | answer

    def first(self) -> dict[str, Any]:
        """The chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def part(self, delta: Delta) -> dict[str, Any] | None:
        """A chunk for what is new; None when nothing of it is for the client."""
        told: dict[str, Any] = {}
        if delta.get("response"):
            told["content"] = delta["response"]
        if delta.get("reasoning"):
            told |= {"reasoning": delta["reasoning"], "reasoning_content": delta["reasoning"]}
        if delta.get("tool_calls"):
            told["tool_calls"] = delta["tool_calls"]
        return self._chunk(told) if told else None

    def last(self, output: LlmOutput) -> dict[str, Any]:
        """The chunk that says why it ended."""
        return self._chunk({}, finish_reason(output))

    def usage(self, output: LlmOutput) -> dict[str, Any]:
        """The chunk after the last one, for those who asked for it."""
        return self._common | {
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage_of(output),
        }

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._common | {"object": "chat.completion.chunk", "choices": [choice]}


def finish_reason(output: LlmOutput) -> str:
    """Why an answer ended, in the dialect's words."""
    if output.tool_calls:
        return "tool_calls"
    said = str(output.usage.get("stop_reason"))
    if said in CUT_SHORT:
        return "length"
    return "content_filter" if said == "content_filter" else "stop"


def usage_of(output: LlmOutput) -> dict[str, Any]:
    """What an answer took; 0 for what the app does not tell."""
    return {
        "prompt_tokens": output.count("prompt_tokens"),
        "completion_tokens": output.count("completion_tokens"),
        "total_tokens": output.tokens,
        "prompt_tokens_details": {"cached_tokens": output.count("cached_tokens")},
        "completion_tokens_details": {"reasoning_tokens": output.count("reasoning_tokens")},
    }


def error_body(error: StokerError, code: str = "") -> dict[str, Any]:
    """An error as clients of this dialect read it."""
    default = "invalid_request_error" if isinstance(error, CallerError) else "server_error"
    kind = _ERROR_TYPES.get(error.http, default)
    return {
        "error": {"message": error.message, "type": kind, "param": None, "code": code or error.code.lower()}
    }
