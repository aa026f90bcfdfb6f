"""HTTP to addresses that a stranger named: only those that were checked are connected to.

A name is resolved once, and the connection goes to what was checked. Nothing of an answer outlives it: no cookie, no
connection.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from http.cookiejar import CookieJar
from typing import Final

import httpx

from stoker import lookups
from stoker.core.addresses import AllowList, is_public

PORTS: Final = {"http": 80, "https": 443}
RESOLVE_TIMEOUT_S: Final = 10.0
ADDRESSES_TRIED: Final = 4

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Permits = Callable[[str], bool]

PERMITS: Final = "stoker_permits"
"""The request extension with the question whether an address may be connected to; without one none may."""


class AddressRefused(Exception):
    """A host has no address that may be connected to. `url`: the one that was asked for."""

    def __init__(self, url: httpx.URL) -> None:
        super().__init__(f"{url.host} leads to an address that is not public")
        self.url = url


class _NoCookies(CookieJar):
    """Keeps nothing: what one user's server sets is not for the next user's request."""

    def extract_cookies(self, *_: object) -> None:
        """Nothing is taken."""


def checked_client(
    timeout: httpx.Timeout, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A client for such addresses. Redirects are the caller's to judge.

    Proxies of the environment are not used, because they would resolve names by themselves.
    """
    return httpx.AsyncClient(
        timeout=timeout,
        trust_env=False,
        transport=transport or CheckedTransport(),
        follow_redirects=False,
        cookies=_NoCookies(),
    )


def may_reach(allow: AllowList, url: httpx.URL) -> "Permits":
    """The question whether an address is good for a URL: public, or allowed by the host's name or by network."""
    if allow.has_host(url.host, port_of(url)):
        return lambda _address: True

    def permits(address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return is_public(ip) or allow.has_address(ip)

    return permits


def port_of(url: httpx.URL) -> int:
    """The port that a URL leads to."""
    return url.port or PORTS.get(url.scheme, 0)


async def resolve(host: str, _port: int) -> Sequence[str]:
    """The addresses of a host, by the system's resolver. No port changes them: all ports of a host share a lookup.

    Raises:
        OSError: the name is unknown, the resolver does not answer, or too many other names are silent.
        UnicodeError: no name can be so.
    """
    return await lookups.shared.addresses(host)


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends each request to the first address of its host that it may go to and that answers.

    Connections are not kept: one is verified for a name, and is not to serve another name of the same address.
    """

    def __init__(
        self,
        resolver: Resolve = resolve,
        inner: httpx.AsyncBaseTransport | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._resolve = resolver
        limits = httpx.Limits(max_keepalive_connections=0)
        self._inner = inner or httpx.AsyncHTTPTransport(limits=limits, verify=verify)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            AddressRefused: the host has no address that may be connected to.
            httpx.TransportError: as usual.
        """
        host = request.url.host
        addresses = await self._addresses(request)
        failed: httpx.TransportError | None = None
        for address in addresses[:ADDRESSES_TRIED]:
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,  # with the Host of the name
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error
        raise failed or httpx.ConnectError(f"{host} has no address")

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _addresses(self, request: httpx.Request) -> list[str]:
        host, port = request.url.host, port_of(request.url)
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"the name {host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"the name {host} cannot be resolved: {error}") from error
        permits: Permits = request.extensions.get(PERMITS, _none)
        permitted = [address for address in found if permits(address)]
        if found and not permitted:
            raise AddressRefused(request.url)
        return permitted


def _none(_address: str) -> bool:
    return False
