"""Error bodies: problem+json (RFC 9457) and the fields of the older envelope in one object."""

from typing import Any

import msgspec

from stoker.core.errors import RateLimited, RequirementsNotMet, StokerError

MEDIA_TYPE = "application/problem+json"
STORE_RETRY_S = 2
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


def problem_bytes(error: StokerError, base_url: str) -> bytes:
    """The same, as one line of JSON. What a run lacks has a body of its own, the same for every client."""
    if isinstance(error, RequirementsNotMet):
        return bytes(_encode({"satisfied": False, "errors": error.missing}))
    return bytes(_encode(problem(error, base_url)))


def media_type(error: StokerError) -> str:
    """What the body for an error is."""
    return "application/json" if isinstance(error, RequirementsNotMet) else MEDIA_TYPE


def retry_headers(error: StokerError) -> dict[str, str]:
    """Retry-After, for errors that pass by themselves."""
    if isinstance(error, RateLimited):
        return {"retry-after": str(error.fields.get("retry_after", 1))}
    if error.http == _UNAVAILABLE:
        return {"retry-after": str(error.fields.get("retry_after", STORE_RETRY_S))}
    return {}
