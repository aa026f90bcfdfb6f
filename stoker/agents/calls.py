"""Calls of addresses that tools name: what is sent, and what a model is told of the answer. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from stoker.agents.chat import Chat, ToolCall
from stoker.agents.prompt import as_text, in_context
from stoker.agents.secrets import filled, wrong_header
from stoker.agents.tools import Tool, ToolType
from stoker.core.errors import InvalidRequest
from stoker.core.webhooks import DELIVERY, SIGNATURE, TIMESTAMP, signature

RESULT_CHARS: Final = 100_000
"""Of an answer that a model is told."""
_IN_QUERY: Final = frozenset({"GET", "DELETE"})
_encode = msgspec.json.Encoder().encode


class ToolRequest(Struct, frozen=True, kw_only=True):
    """An HTTP request."""

    method: str
    url: str
    headers: dict[str, str]
    query: dict[str, str] = {}
    body: bytes | None = None


def tool_request(
    chat: Chat, tool: Tool, call: ToolCall, wall_s: int, secrets: Mapping[str, str]
) -> ToolRequest:
    """The request of a call.

    Args:
        wall_s: seconds since 1970, for the signature.
        secrets: the values of those that the tool refers to.

    Raises:
        InvalidRequest: a header cannot be sent.
    """
    url = in_context(tool.url, chat.context, in_url=True)
    if tool.type is ToolType.HOOK:
        body: dict[str, Any] = {
            "event": "tool.call",
            "chat_id": chat.id,
            "tool_invocation_id": call.id,
            "tool": tool.name,
            "arguments": call.arguments,
        }
        return _signed(url, _encode(body), filled(tool.secret, {}, secrets), call.id, wall_s)
    headers = {name: filled(value, chat.context, secrets).strip() for name, value in tool.headers.items()}
    if tool.auth is not None:
        bearer = tool.auth.type == "bearer"
        name = "Authorization" if bearer else tool.auth.header
        secret = filled(tool.auth.secret, {}, secrets).strip()
        headers[name] = f"Bearer {secret}" if bearer else secret
    if wrong := wrong_header(headers):
        raise InvalidRequest(
            f"The header {wrong} of this tool cannot be sent: its value holds a line end, or a character that is not "
            "ASCII. Its owner has to change it, or the secret that it refers to."
        )
    headers.setdefault("Idempotency-Key", call.id)
    if tool.method in _IN_QUERY:
        query = {name: as_text(value) for name, value in call.arguments.items()}
        return ToolRequest(method=tool.method, url=url, headers=headers, query=query)
    headers.setdefault("Content-Type", "application/json")
    return ToolRequest(method=tool.method, url=url, headers=headers, body=_encode(call.arguments))


def answer_text(host: str, status: int, text: str) -> tuple[str, bool]:
    """What a model is told of an answer, and whether the call failed."""
    shown = text[:RESULT_CHARS]
    if 200 <= status < 300:
        return shown or "(an empty answer)", False
    return f"{host} answered with status {status}: {shown}".rstrip(": "), True


def _signed(url: str, body: bytes, secret: str, call_id: str, wall_s: int) -> ToolRequest:
    """HMAC-SHA256 under the tool's secret over ``<timestamp>.<body>``, as webhooks have it."""
    headers = {"Content-Type": "application/json", DELIVERY: call_id, TIMESTAMP: str(wall_s)}
    if secret:
        headers[SIGNATURE] = signature(secret, wall_s, body)
    return ToolRequest(method="POST", url=url, headers=headers, body=body)
