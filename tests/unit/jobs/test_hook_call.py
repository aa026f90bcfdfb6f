"""What a call of a webhook's receiver comes to, whatever the receiver does."""

import asyncio

import httpx
import pytest

from stoker.core.addresses import AllowList
from stoker.outbound import CheckedTransport, checked_client
from stoker_jobs.hook_call import HookCaller

pytestmark = pytest.mark.unit

HOOK = "https://hooks.example/services/T0SECRET?token=abcdef"
PUBLIC = "93.184.216.34"


class Pieces(httpx.AsyncByteStream):
    """A body as it comes from a network; `endless`: its end never comes."""

    def __init__(self, *pieces, endless=False):
        self.pieces, self.endless = pieces, endless

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece
        if self.endless:
            await asyncio.Event().wait()


def refusal(*pieces, kind="text/plain", endless=False, **headers):
    return httpx.Response(
        500, headers={"content-type": kind, **headers}, stream=Pieces(*pieces, endless=endless)
    )


async def call(answer, url=HOOK, *, address=PUBLIC, allow=(), timeout_s=5.0):
    """Call a receiver whose name leads to `address`; the outcome, and the requests that arrived."""
    seen = []

    async def handle(request):
        seen.append(request)
        return await answer(request) if asyncio.iscoroutinefunction(answer) else answer

    async def resolver(_host, _port):
        return (address,)

    transport = CheckedTransport(resolver, httpx.MockTransport(handle))
    async with checked_client(httpx.Timeout(timeout_s), transport) as client:
        caller = HookCaller(client, AllowList.parse(allow), timeout_s)
        return await caller.call(url, {"X-Delivery-Id": "d1"}, b'{"a":1}'), seen


async def test_a_success_is_taken_by_its_status_alone():
    outcome, [request] = await call(httpx.Response(204))
    assert outcome.arrived
    assert (outcome.done.status, outcome.done.error, outcome.done.excerpt) == (204, "", "")
    assert request.content == b'{"a":1}'
    assert request.headers["x-delivery-id"] == "d1"
    assert request.headers["content-type"] == "application/json"
    assert (request.url.host, request.headers["host"]) == (PUBLIC, "hooks.example")


async def test_of_a_refusal_a_short_line_is_kept_without_what_the_address_hides():
    outcome, _ = await call(refusal(b"no hook\nT0SEC", b"RET\x1b[2J", b"x" * 5000))
    assert outcome.done.error == "it answered 500"
    assert outcome.done.excerpt.startswith("no hook ... [2J")
    assert len(outcome.done.excerpt) == 200


@pytest.mark.parametrize(
    "answer", [refusal(b"abc", kind="image/png"), refusal(b"abc", **{"content-encoding": "gzip"})]
)
async def test_nothing_is_kept_of_what_is_no_plain_text(answer):
    outcome, _ = await call(answer)
    assert (outcome.done.status, outcome.done.excerpt) == (500, "")


async def test_a_body_without_an_end_is_cut_off(monkeypatch):
    monkeypatch.setattr("stoker_jobs.hook_call.EXCERPT_S", 0.05)
    outcome, _ = await call(refusal(b"because", endless=True))
    assert (outcome.done.status, outcome.done.excerpt) == (500, "because")


async def test_nothing_is_kept_of_what_a_receiver_inside_says():
    for allow in ("10.0.0.0/8", "hooks.example"):
        outcome, _ = await call(refusal(b"inner"), address="10.1.2.3", allow=[allow])
        assert (outcome.done.status, outcome.done.excerpt) == (500, "")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1"])
async def test_a_private_address_is_not_called_and_not_tried_again(address):
    outcome, seen = await call(httpx.Response(200), address=address)
    assert not seen
    assert outcome.hopeless
    assert "webhook_allow" in outcome.done.error


async def test_a_redirect_is_not_followed():
    inside = httpx.Response(302, headers={"location": "http://127.0.0.1/"})
    outcome, seen = await call(inside)
    assert len(seen) == 1
    assert not outcome.hopeless
    assert "redirect" in outcome.done.error


async def test_a_receiver_that_says_nothing_costs_its_time_and_no_more():
    async def silent(_request):
        await asyncio.Event().wait()

    outcome, _ = await call(silent, timeout_s=0.05)
    assert (outcome.done.status, outcome.done.error) == (0, "no answer within 0.05 s")
    assert not outcome.hopeless


async def test_what_the_network_says_holds_no_secret_of_the_address():
    async def broken(request):
        raise httpx.ConnectError(f"cannot get {HOOK}")

    outcome, _ = await call(broken)
    assert outcome.done.error == "cannot get ..."
    assert not outcome.hopeless


@pytest.mark.parametrize("url", ["ftp://a.example/", "nonsense", ""])
async def test_what_is_no_address_is_given_up(url):
    outcome, seen = await call(httpx.Response(200), url)
    assert not seen
    assert outcome.hopeless
