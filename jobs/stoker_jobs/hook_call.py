"""One call of a webhook's receiver, who is a stranger: one time limit for all of it, and next to nothing is read."""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Mapping
from typing import Final

import httpx

from stoker import __version__
from stoker.core.addresses import AllowList, is_public
from stoker.core.webhooks import EXCERPT_BYTES, Outcome, Try, excerpt_of, judge
from stoker.outbound import PERMITS, PORTS, AddressRefused, may_reach

EXCERPT_S: Final = 1.0
"""For the beginning of an answer that refuses; a receiver that sends it more slowly goes without."""
_TEXT: Final = ("text/", "application/json", "application/problem+json")


class HookCaller:
    """Calls receivers with one client."""

    def __init__(self, client: httpx.AsyncClient, allow: AllowList, timeout_s: float) -> None:
        """Args: client: made by `stoker.outbound.checked_client`; the caller closes it."""
        self._client = client
        self._allow = allow
        self._timeout_s = timeout_s

    async def call(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Post `body`; never raises for what the receiver or the network does."""
        began_s, began = time.time(), time.monotonic()

        def tried(error: str = "", excerpt: str = "") -> Try:
            took_ms = round((time.monotonic() - began) * 1000)
            return Try(at_ms=round(began_s * 1000), took_ms=took_ms, error=error, excerpt=excerpt)

        try:
            parsed = httpx.URL(url)
            if parsed.scheme not in PORTS or not parsed.host:
                raise httpx.InvalidURL("no http")  # noqa: TRY301 - as for what is no address at all
            reach = _Reach(self._allow, parsed)
            async with asyncio.timeout(self._timeout_s):
                answer = await self._send(url, headers, body, reach)
        except AddressRefused:
            text = "its address is not public, and the operator's setting webhook_allow does not name it"
            return Outcome(done=tried(text), hopeless=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            return Outcome(done=tried("it is no http or https address"), hopeless=True)
        except (TimeoutError, httpx.HTTPError) as error:
            text = excerpt_of(str(error).encode(), url) or f"no answer within {self._timeout_s:g} s"
            return Outcome(done=tried(text))
        excerpt = ""
        try:
            if not answer.is_success and not reach.inside:
                excerpt = excerpt_of(await _beginning(answer), url)
        finally:
            with contextlib.suppress(httpx.HTTPError):
                await answer.aclose()
        return judge(answer.status_code, answer.headers, tried(excerpt=excerpt))

    async def _send(
        self, url: str, headers: Mapping[str, str], body: bytes, reach: "_Reach"
    ) -> httpx.Response:
        """The answer's head. Redirects are not followed: where they lead nobody has checked."""
        own = {"Content-Type": "application/json", "User-Agent": f"stoker/{__version__}"}
        request = self._client.build_request(
            "POST", url, content=body, headers={**own, **headers}, extensions={PERMITS: reach}
        )
        return await self._client.send(request, stream=True)


class _Reach:
    """May an address be called? Notes `inside`: it is allowed, and not public; what it says there is not kept."""

    def __init__(self, allow: AllowList, url: httpx.URL) -> None:
        self._permits = may_reach(allow, url)
        self.inside = False

    def __call__(self, address: str) -> bool:
        permitted = self._permits(address)
        with contextlib.suppress(ValueError):
            self.inside |= permitted and not is_public(ipaddress.ip_address(address))
        return permitted


async def _beginning(answer: httpx.Response) -> bytes:
    """The first bytes of an answer that is plain text."""
    kind = answer.headers.get("content-type", "").lower()
    if answer.headers.get("content-encoding") or not kind.startswith(_TEXT):
        return b""
    raw = b""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(EXCERPT_S):
            async for chunk in answer.aiter_raw():
                raw += chunk
                if len(raw) >= EXCERPT_BYTES:
                    break
    return raw[:EXCERPT_BYTES]
