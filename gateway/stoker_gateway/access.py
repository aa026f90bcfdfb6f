"""Which scope each route needs. The lists `ROUTES` of `routes/` declare it; a route without it cannot be served.

The door (`door.py`) finds out who asks; this looks, once the route is known, whether the key may do that.
"""

from collections.abc import Iterable
from typing import Any, Final, NoReturn

from litestar.handlers import HTTPRouteHandler

from stoker.core.errors import Bug, MissingScope, Unauthorized
from stoker.core.scopes import Scope, allows
from stoker_gateway.door import Caller, caller_of
from stoker_gateway.services import AnyRequest, Services, services_of

SCHEME: Final = "key"
"""The name of the way to sign in, in the OpenAPI document."""
_NEEDS: Final = "stoker_scope"
_OPEN: Final = "open"


def needs(scope: Scope, *handlers: HTTPRouteHandler) -> tuple[HTTPRouteHandler, ...]:
    """Routes that take a key with this scope."""
    for handler in handlers:
        handler.opt[_NEEDS] = scope
        handler.security = [{SCHEME: [scope.value]}]
    return handlers


def open_to_all(*handlers: HTTPRouteHandler) -> tuple[HTTPRouteHandler, ...]:
    """Routes that take no key: they carry a secret of their own, or tell nothing of anybody."""
    for handler in handlers:
        handler.opt[_NEEDS] = _OPEN
    return handlers


def check_declared(handlers: Iterable[HTTPRouteHandler]) -> None:
    """Whether every route says what it needs.

    Raises:
        Bug: one does not; it must not be served.
    """
    silent = [path for handler in handlers if _NEEDS not in handler.opt for path in sorted(handler.paths)]
    if silent:
        raise Bug(
            f"The routes {', '.join(silent)} do not say which scope they need. Put them into `needs(...)` or "
            "`open_to_all(...)` in the ROUTES of their module."
        )


def needed_by(handler: HTTPRouteHandler) -> Scope | None:
    """What a route declares; None = it is open to all."""
    declared: Scope | str = handler.opt[_NEEDS]
    return declared if isinstance(declared, Scope) else None


async def check_scope(request: AnyRequest) -> None:
    """Whether the caller's key may use the route. A hook before the request; a guard would copy the handler each time.

    Raises:
        Unauthorized: the route needs a key, and the door asked for none.
        MissingScope: the key lacks the scope.
    """
    if request.method == "OPTIONS":  # a browser asks, without a key, what it may send
        return
    handler: HTTPRouteHandler = request.scope["route_handler"]  # type: ignore[assignment]
    needed: Any = handler.opt.get(_NEEDS)
    if needed == _OPEN:
        return
    caller = caller_of(request)
    if caller.key is None or needed is None:
        raise Unauthorized
    if lacks(caller, needed):
        tried = f"{request.method} {request.scope['path_template']}"
        await refuse(services_of(request), caller, needed, tried, f"{request.method} {request.url.path}")


def lacks(caller: Caller, needed: Scope) -> bool:
    """Whether the caller's key is without a scope; a key without scopes has all.

    Raises:
        Unauthorized: there is no key.
    """
    if caller.key is None:
        raise Unauthorized
    return bool(caller.key.scopes) and not allows(caller.key.scopes, needed)


async def refuse(services: Services, caller: Caller, needed: Scope, tried: str, what: str) -> NoReturn:
    """Refuse a key that lacks a scope.

    Args:
        tried: what was tried, for the record of attempts: nothing that a stranger chose.
        what: the same for the caller, who reads that it needs the scope.

    Raises:
        MissingScope: always.
    """
    key = caller.key
    assert key is not None  # noqa: S101 - `lacks` was asked
    await services.attempts.lacks_scope(caller.actor, tried, needed)
    raise MissingScope(
        f"{what} needs the scope {needed}. The key '{key.name or key.id}' has {', '.join(key.scopes)}. Use a key that "
        f"has it, or make one: stoker keys create --name NAME --scope {needed}",
        missing_scopes=[needed.value],
    )
