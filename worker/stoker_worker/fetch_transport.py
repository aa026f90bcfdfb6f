"""HTTP that connects only to addresses which were checked. A name is resolved once, and the connection goes there."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx

from stoker_worker.fetch_policy import FetchFailed, port_of, shown

RESOLVE_TIMEOUT_S: Final = 10.0
ADDRESSES_TRIED: Final = 4

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Permits = Callable[[str], bool]

PERMITS: Final = "stoker_permits"
"""The request extension with the question whether an address may be connected to; without one none may."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, by the system's resolver.

    Raises:
        OSError: the name is unknown, or the resolver does not answer.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends each request to the first address of its host that it may go to and that answers.

    Connections are not kept: one is verified for a name, and is not to serve another name of the same address.
    """

    def __init__(self, resolver: Resolve = resolve, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._resolve = resolver
        self._inner = inner or httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            FetchFailed: the host has no address that may be connected to.
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
            # The addresses themselves are the operator's to know, not the caller's.
            raise FetchFailed(
                f"{shown(request.url)} leads to an address that is not public; the operator of the worker may "
                f"allow {host}:{port} in STOKER_FETCH_ALLOW"
            )
        return permitted


def _none(_address: str) -> bool:
    return False
