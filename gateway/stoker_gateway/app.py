"""The application: routes, the door before them, and one form for everything that goes wrong."""

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import RedocRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp

from stoker import __version__
from stoker.core.errors import (
    Bug,
    CallerError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    StokerError,
    TooLarge,
)
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.log import get_logger
from stoker_gateway.access import SCHEME, check_declared, check_scope
from stoker_gateway.door import Door
from stoker_gateway.problems import error_headers, media_type, problem_bytes
from stoker_gateway.refusals import describe_refusals
from stoker_gateway.routes import (
    agents,
    aliases,
    apps,
    audit,
    chat_messages,
    chats,
    engines,
    enrolments,
    files,
    flow_runs,
    flows,
    health,
    internal,
    keys,
    logs,
    openai,
    pins,
    queue,
    secrets,
    sessions,
    tasks,
    uploads,
    versions,
    webhooks,
)
from stoker_gateway.services import Services

_FIELD = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<field>[^`]*)`)?$", re.DOTALL)
_TOO_LARGE = 413
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_CORS_SENT = [
    "Authorization",
    "Content-Type",
    "X-Client-Source",
    "X-API-Version",
    "Idempotency-Key",
    "Last-Event-ID",
    "Range",
    "If-Range",
    "If-None-Match",
    "Tus-Resumable",
    "Upload-Offset",
]
_CORS_READ = [
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "ETag",
    "Tus-Resumable",
    "Upload-Length",
    "Upload-Offset",
]

log = get_logger("gateway")


def all_routes() -> list[HTTPRouteHandler]:
    """Every route of ours; the framework adds what shows the OpenAPI document."""
    return [
        *tasks.ROUTES,
        *logs.ROUTES,
        *sessions.ROUTES,
        *pins.ROUTES,
        *openai.ROUTES,
        *agents.ROUTES,
        *chats.ROUTES,
        *chat_messages.ROUTES,
        *aliases.ROUTES,
        *apps.ROUTES,
        *versions.ROUTES,
        *flows.ROUTES,
        *flow_runs.ROUTES,
        *files.ROUTES,
        *uploads.ROUTES,
        *enrolments.ROUTES,
        *engines.ROUTES,
        *queue.ROUTES,
        *keys.ROUTES,
        *secrets.ROUTES,
        *webhooks.ROUTES,
        *audit.ROUTES,
        *internal.ROUTES,
        *health.ROUTES,
    ]


class _OwnRoutes(Router):
    """The routes of one application.

    Litestar copies a router to its depths, in case another application has it too: a third of what building takes.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Not copied: nobody else has it."""
        return self


def build(
    services: Services, lifespan: Callable[[Litestar], contextlib.AbstractAsyncContextManager[None]]
) -> ASGIApp:
    """The ASGI application for a set of services.

    The door stands before the router: it changes paths, and what it refuses never reaches a route.

    Raises:
        Bug: a route does not say which scope it needs.
    """
    routes = all_routes()
    check_declared(routes)
    describe_refusals(routes)
    settings = services.settings
    cors = cors_config(settings.allowed_origins)
    routed = Litestar(
        route_handlers=[_OwnRoutes("/", route_handlers=routes, before_request=check_scope)],
        lifespan=[lifespan],
        state=State({"services": services, "encode": msgspec.json.encode, "decode": decode}),
        exception_handlers={Exception: on_error},
        request_max_body_size=settings.max_body_bytes,
        cors_config=cors,
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Stoker",
            version=__version__,
            description="Run AI apps on your own GPUs. Send `Authorization: Bearer <key>` with every request.",
            components=Components(security_schemes={SCHEME: SecurityScheme(type="http", scheme="bearer")}),
            path="/docs",
            render_plugins=[RedocRenderPlugin()],
        ),
    )
    return Door(routed, services.store, settings, services.base_url, cors)


def cors_config(origins: Sequence[str]) -> CORSConfig | None:
    """What pages of other origins may ask, and which answers' headers they may read; None = nothing."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=_CORS_SENT,
        expose_headers=_CORS_READ,
        allow_credentials="*" not in origins,
    )


def decode(raw: bytes, kind: type[Any]) -> Any:
    """A JSON body as a struct.

    Raises:
        InvalidRequest: says the field and what it should be.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(body_problem(error)) from error


def body_problem(error: Exception) -> str:
    """One sentence for a body that does not fit."""
    if isinstance(error, RecursionError):
        return "Input validation failed: the body is nested too deeply to be read"
    text = str(error)
    match = _FIELD.match(text)
    if isinstance(error, msgspec.ValidationError) and match:
        field = (match["field"] or "").removeprefix("data").lstrip(".")
        return f"Input validation failed: {field or 'body'}: {match['what']}"
    return f"Input validation failed: the body is not valid JSON ({text})"


def on_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Any exception as a problem. What nobody expected is logged with an id that the answer carries."""
    known = error if isinstance(error, StokerError) else translated(request, error)
    if known is None:
        incident = new_id()
        # The route and not the path: addresses of files carry their secret in it.
        route = request.scope.get("path_template", "")
        log.error(Event.REQUEST_FAILED, incident=incident, path=route, exc_info=error)
        known = Bug(f"An error of Stoker itself. Please report it with the log line of incident {incident}.")
    services: Services = request.app.state.services
    path = request.url.path
    headers = error_headers(known, path)
    if isinstance(error, HTTPException) and error.headers:
        headers |= {k.lower(): v for k, v in error.headers.items() if k.lower() == "allow"}
    body = problem_bytes(known, services.base_url, path)
    return Response(content=body, status_code=known.http, media_type=media_type(known, path), headers=headers)


def translated(request: Request[Any, Any, Any], error: Exception) -> StokerError | None:
    """The framework's own refusals in our words; None for what it did not expect either."""
    if isinstance(error, NotFoundException):
        return NotFound(
            f"There is nothing at {request.method} {request.url.path}. GET /openapi.json lists what is."
        )
    if isinstance(error, MethodNotAllowedException):
        return MethodNotAllowed(
            f"{request.url.path} does not take {request.method}. GET /openapi.json lists what it takes."
        )
    if not isinstance(error, HTTPException) or error.status_code >= 500:
        deep = isinstance(error, RecursionError) and request.method in _WITH_BODY
        return InvalidRequest(body_problem(error)) if deep else None
    if error.status_code == _TOO_LARGE:
        limit = request.app.state.services.settings.max_body_bytes
        return TooLarge(f"The body is larger than {limit} bytes. Upload large data as a file (POST /files).")
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, (msgspec.DecodeError, UnicodeDecodeError)):
            return InvalidRequest(body_problem(cause))
        cause = cause.__cause__ or cause.__context__
    return _validation(error)


def _validation(error: HTTPException) -> CallerError:
    extra = error.extra if isinstance(error.extra, list) else []
    fields = [
        f"{item.get('key') or 'body'}: {item.get('message')}" for item in extra if isinstance(item, dict)
    ]
    return InvalidRequest(f"Input validation failed: {'; '.join(fields) or error.detail}")
