"""Which refusals each route may answer, in the OpenAPI document."""

from collections.abc import Iterable
from http import HTTPMethod
from typing import Any, Final

from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from stoker_gateway.access import needed_by
from stoker_gateway.problems import media_type_at


class ProblemError(Struct):
    """The part that older clients read."""

    code: str
    message: str


class Problem(Struct):
    """A refusal: what happened, why, and what to do."""

    type: str
    title: str
    status: int
    detail: str
    success: bool
    message: str
    error: ProblemError


_TEXTS: Final[dict[int, str]] = {
    400: "The request is not valid; `detail` names the field.",
    401: "No key, or not a valid one.",
    403: "The key lacks the scope, or may not do that.",
    404: "There is no such thing, or the key may not see it.",
    409: "Its state does not allow this now.",
    410: "The session is over.",
    412: "Secrets that the app needs are missing.",
    413: "The body is too large.",
    429: "Too many requests, or too many tasks of this key wait. See Retry-After.",
    503: "Redis, the file store or every worker is away. See Retry-After.",
}
_ALWAYS: Final = frozenset({400, 503})
_WITH_KEY: Final = frozenset({401, 403, 429})
_WITH_NAME: Final = frozenset({401, 404})
_WITH_BODY: Final = frozenset({404, 409, 413})
_OF_A_RUN: Final = frozenset({410, 412})
_OF_A_LOAD: Final = frozenset({404, 412})
_LOADS: Final = frozenset({"/pins", "/loads", "/apps/unload"})
_BODY_METHODS: Final = frozenset({HTTPMethod.POST, HTTPMethod.PUT, HTTPMethod.PATCH})


def describe_refusals(handlers: Iterable[HTTPRouteHandler]) -> None:
    """Put them into every route's description; what a route declares itself stays."""
    for handler in handlers:
        declared: dict[int, Any] = dict(handler.responses or {})
        media_type = media_type_at(min(handler.paths))
        for status in refusals(handler):
            declared.setdefault(
                status,
                ResponseSpec(
                    Problem, generate_examples=False, description=_TEXTS[status], media_type=media_type
                ),
            )
        handler.responses = declared


def refusals(handler: HTTPRouteHandler) -> frozenset[int]:
    """The statuses, by what the route takes."""
    found = _ALWAYS
    if needed_by(handler) is not None:
        found |= _WITH_KEY
    if any("{" in path for path in handler.paths):
        found |= _WITH_NAME
    if _BODY_METHODS & set(handler.http_methods):
        found |= _WITH_BODY
    if "DELETE" in handler.http_methods:
        found |= {409}
    if _LOADS & handler.paths and _BODY_METHODS & set(handler.http_methods):
        found |= _OF_A_LOAD
    if any(word in path for path in handler.paths for word in ("run", "session")):
        found |= _OF_A_RUN
    return found
