"""Before every route: the path, the key, the dialect, the rate. After it: the headers that tell of the rate.

A plain ASGI middleware, so that an answer to a refused request has been through the same door.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping
from typing import Any, Final, cast

from litestar import Request
from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Struct

from stoker.core.audit import Actor
from stoker.core.errors import RateLimited, StokerError, StoreUnavailable, Unauthorized
from stoker.core.messages import ApiKey, Owner
from stoker.protocol import RateState, Store
from stoker.settings import GatewaySettings
from stoker_gateway.attempts import Attempts
from stoker_gateway.clock import now_ms
from stoker_gateway.dialect import Dialect, decide
from stoker_gateway.dto import iso
from stoker_gateway.problems import error_headers, media_type, problem_bytes

KEY_FRESH_S: Final = 1.0
"""How long a deleted key may still open this process."""
_KEYS_KEPT: Final = 10_000
_V2_PREFIX: Final = "/compat/v2"
_SCOPE_KEY: Final = "stoker_caller"
_OPEN_EXACT: Final = frozenset({"/health", "/ready", "/metrics", "/openapi.json", "/docs", "/"})
_RUN_PATHS: Final = re.compile(
    r"(/apps)?/run|/tasks/[^/]+/retry|/flowruns(/[^/]+/clone)?|/agents/run|/chats/[^/]+/messages"
    r"|(/models/openai)?/chat/completions|/webhooks/(test|deliveries/[^/]+/replay)"
)
"""What makes work, here or elsewhere."""


Rate = RateState | asyncio.Task[RateState] | None
"""What the limiter counted, or is counting; None on routes without a key."""


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, and how to answer. `key` is None on routes that need none."""

    dialect: Dialect
    base_url: str
    key: ApiKey | None = None
    headers: Mapping[str, str] = {}
    address: str = ""
    """Of the connection: behind a proxy, the proxy's."""

    @property
    def owner(self) -> Owner:
        """Who owns what this request makes.

        Raises:
            Unauthorized: the route is open and no key came.
        """
        if self.key is None:
            raise Unauthorized
        return Owner(user_id=self.key.user_id, key_id=self.key.id)

    @property
    def actor(self) -> Actor:
        """Who changes something, for the record of changes."""
        if self.key is None:
            return Actor(address=self.address)
        return Actor(user_id=self.key.user_id, key_id=self.key.id, address=self.address)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the key was limited to; nothing = no limit.

        Raises:
            Unauthorized: the route is open and no key came.
        """
        if self.key is None:
            raise Unauthorized
        return self.key.scopes


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """The caller that the door let in."""
    caller: Caller = cast("dict[str, Any]", request.scope)[_SCOPE_KEY]
    return caller


class Door:
    """The middleware."""

    def __init__(
        self,
        app: ASGIApp,
        store: Store,
        settings: GatewaySettings,
        base_url: str,
        cors: CORSConfig | None = None,
    ) -> None:
        self._app = app
        self._cors = cors
        self._store = store
        self._rates = {"run": settings.rate_run, "get": settings.rate_get, "upload": settings.rate_upload}
        self._base_url = base_url
        self._keys: dict[str, tuple[float, ApiKey]] = {}
        self._attempts = Attempts(store.audit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await self._http(cast("dict[str, Any]", scope), receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path, prefix_v2 = plain_path(scope["path"])
        scope["path"] = path
        scope["raw_path"] = path.encode()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"]
        # As people know it: a socket for both families tells an IPv4 address as ::ffff:10.0.0.1.
        address = (scope.get("client") or ("",))[0].removeprefix("::ffff:")
        rate: Rate = None
        try:
            # A browser asks with OPTIONS, without a key, what it may send.
            keyless = method == "OPTIONS" or is_open(path)
            key = None if keyless else await self._authenticate(headers, address, f"{method} {part_of(path)}")
            if key is not None:
                rate = await self._count(key, rate_kind(method, path))
        except StokerError as error:
            await self._refuse(send, error, path, headers.get("origin", ""))
            return
        scope[_SCOPE_KEY] = Caller(
            dialect=decide(headers, prefix_v2=prefix_v2, key_numbering=key.numbering if key else ""),
            base_url=self._base_url,
            key=key,
            headers=headers,
            address=address,
        )
        await self._app(cast("Scope", scope), receive, with_rate(send, rate))

    async def _authenticate(self, headers: Mapping[str, str], address: str, tried: str) -> ApiKey:
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise Unauthorized
        digest = hashlib.sha256(text.strip().encode()).hexdigest()
        at, key = self._keys.get(digest, (0.0, None))
        if key is None or at + KEY_FRESH_S < time.monotonic():
            self._keys.pop(digest, None)
            key = await self._store.keys.by_hash(digest)
            if key is None:
                await self._attempts.unknown_key(address, tried)
                raise Unauthorized
            if len(self._keys) >= _KEYS_KEPT:
                self._keys.clear()
            self._keys[digest] = (time.monotonic(), key)
        if key.expired(now_ms()):
            await self._attempts.expired(Actor(user_id=key.user_id, key_id=key.id, address=address), tried)
            raise Unauthorized(
                f"Invalid API key: '{key.name or key.id}' expired at {iso(key.expires_ms)}. Make another one with a "
                "key that is still good: stoker keys create --name NAME"
            )
        return key

    async def _count(self, key: ApiKey, kind: str) -> Rate:
        limit = key.rates.get(kind, self._rates[kind])
        hit = self._store.limits.hit(key.id, kind, limit)
        if not limit:  # never refused, so the request does not wait until it is counted
            return asyncio.create_task(hit)
        rate = await hit
        if not rate.allowed:
            wait = rate.retry_after_s(time.time())
            raise _TooMany(
                f"Rate limit exceeded: {limit} {kind} requests a minute for this key. Try again in {wait} s.",
                rate,
                wait,
            )
        return rate

    async def _refuse(self, send: Send, error: StokerError, path: str, origin: str) -> None:
        rate = error.rate if isinstance(error, _TooMany) else None
        body = problem_bytes(error, self._base_url, path)
        headers = (
            rate_headers(rate)
            | cors_headers(self._cors, origin)
            | error_headers(error, path)
            | {"content-type": media_type(error, path), "content-length": str(len(body))}
        )
        if isinstance(error, Unauthorized):
            headers["www-authenticate"] = "Bearer"
        start: Message = {
            "type": "http.response.start",
            "status": error.http,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})


class _TooMany(RateLimited):
    """A refusal by the limiter, with what it counted."""

    def __init__(self, message: str, rate: RateState, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
        self.rate = rate


def plain_path(path: str) -> tuple[str, bool]:
    """The route's path without doubled slashes and base-URL prefixes, and whether ``/compat/v2`` was one."""
    while "//" in path:
        path = path.replace("//", "/")
    prefix_v2 = path.startswith(_V2_PREFIX + "/")
    if prefix_v2:
        path = path.removeprefix(_V2_PREFIX)
    if path.startswith("/v1/"):
        path = path.removeprefix("/v1")
    return path, prefix_v2


def part_of(path: str) -> str:
    """The first part of a path: what is behind it may be a name, or a secret that went astray."""
    return "/" + path.split("/")[1]


def is_open(path: str) -> bool:
    """Whether a path needs no API key: addresses that carry their own secret, and what says how the system is."""
    parts = path.split("/")
    download = path.startswith("/files/") and len(parts) > 4
    return (
        path in _OPEN_EXACT or download or path.startswith(("/internal/", "/upload/", "/docs/", "/errors/"))
    )


def rate_kind(method: str, path: str) -> str:
    """Which limit a request counts against: run, upload or get."""
    plain = path.rstrip("/")  # the router takes a route with a slash behind it too
    if method == "POST" and _RUN_PATHS.fullmatch(plain):
        return "run"
    return "upload" if method == "POST" and plain == "/files" else "get"


def cors_headers(cors: CORSConfig | None, origin: str) -> dict[str, str]:
    """What lets a page of an allowed origin read a refusal; without it the page sees a network error."""
    if cors is None or not origin:
        return {}
    headers = {name.lower(): value for name, value in cors.simple_headers.items()}
    if not cors.is_allow_all_origins:
        headers["vary"] = "Origin"
        if cors.is_origin_allowed(origin):
            headers["access-control-allow-origin"] = origin
    return headers


def rate_headers(rate: RateState | None) -> dict[str, str]:
    """What every answer says of the limit; an unlimited key sees limit 0."""
    if rate is None:
        return {}
    return {
        "x-ratelimit-limit": str(rate.limit),
        "x-ratelimit-remaining": str(rate.remaining),
        "x-ratelimit-reset": str(rate.reset_at),
    }


def with_rate(send: Send, rate: Rate) -> Send:
    """`send` that adds what is known of the limit to the start of the answer."""
    if rate is None:
        return send

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = rate_headers(await _counted(rate))
            extra = [(name.encode(), value.encode()) for name, value in headers.items()]
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return add


async def _counted(rate: Rate) -> RateState | None:
    """The count; None when Redis went away under a request that did not depend on it."""
    if not isinstance(rate, asyncio.Task):
        return rate
    try:
        return await rate
    except StoreUnavailable:
        return None
