"""Error bodies: problem+json (RFC 9457) and the fields of the older envelope in one object.

Where OpenAI's dialect is spoken, `error` has that one's fields too.
"""

from typing import Any

import msgspec

from stoker.core.errors import RateLimited, RequirementsNotMet, StokerError
from stoker_gateway.openai_answer import error_body

MEDIA_TYPE = "application/problem+json"
STORE_RETRY_S = 2
OPENAI_PATHS = ("/models", "/chat/completions")
PLAIN_PATHS = ("/agents", "/chats", "/tools", "/interrupts", "/agent-runs", *OPENAI_PATHS)
"""Clients of these read the body of an error under plain application/json alone."""
_UNAVAILABLE = 503
_encode = msgspec.json.Encoder().encode


def problem(error: StokerError, base_url: str) -> dict[str, Any]:
    """The body for an error; every generation of clients finds its text in it."""
    return {
        "type": f"{base_url}/errors/{error.code}",
        "title": error.title,
        "status": error.http,
        "detail": error.message,
        "success": False,
        "message": error.message,
        "error": {"code": error.code, "message": error.message},
    } | {name: value for name, value in error.fields.items() if isinstance(value, (str, int, list))}


def problem_bytes(error: StokerError, base_url: str, path: str = "") -> bytes:
    """The same, as one line of JSON. What a run lacks has a body of its own, the same for every client."""
    if path.startswith(OPENAI_PATHS):
        return bytes(_encode(problem(error, base_url) | error_body(error)))
    if isinstance(error, RequirementsNotMet):
        return bytes(_encode({"satisfied": False, "errors": error.missing}))
    return bytes(_encode(problem(error, base_url)))


def media_type(error: StokerError, path: str = "") -> str:
    """What the body for an error is."""
    return "application/json" if isinstance(error, RequirementsNotMet) else media_type_at(path)


def media_type_at(path: str) -> str:
    """What the body for an error is that any route may answer with."""
    return "application/json" if path.startswith(PLAIN_PATHS) else MEDIA_TYPE


def error_headers(error: StokerError, path: str = "") -> dict[str, str]:
    """The headers of an error's answer beside its type. OpenAI's clients repeat what failed unless they are told not to."""
    headers = retry_headers(error)
    if path.startswith(OPENAI_PATHS):
        headers["x-should-retry"] = "true" if error.retryable else "false"
    return headers


def retry_headers(error: StokerError) -> dict[str, str]:
    """Retry-After, for errors that pass by themselves."""
    if isinstance(error, RateLimited):
        return {"retry-after": str(error.fields.get("retry_after", 1))}
    if error.http == _UNAVAILABLE:
        return {"retry-after": str(error.fields.get("retry_after", STORE_RETRY_S))}
    return {}
