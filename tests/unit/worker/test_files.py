"""The gateway as a worker sees it."""

import asyncio

import httpx
import msgspec
import pytest
from recorders import order

from stoker_worker.files import (
    PATIENCE_S,
    RESULT_PATIENCE_S,
    Gateway,
    GatewayRefused,
    NewFile,
    SecretsMissing,
    Slot,
)

BASE = "http://inside:8787"
REQUEST_S = 10
"""What each request takes by the clock of these tests."""


class Server:
    """A gateway that answers what is queued up, then the last answer for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.base = BASE
        self.seconds = 0.0  # that have passed

    def gateway(self):
        return Gateway(lambda: self.base, httpx.MockTransport(self.handle), lambda: self.seconds)

    async def handle(self, request):
        self.seconds += REQUEST_S
        body = await request.aread()
        self.requests.append((request.method, str(request.url), body))
        self.headers = request.headers
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        return httpx.Response(status, content=content)


async def test_the_bundle_is_fetched_with_the_token_of_the_attempt(tmp_path):
    server = Server((200, b"tar"))
    await server.gateway().fetch_bundle(order(), tmp_path / "bundle")
    assert (tmp_path / "bundle").read_bytes() == b"tar"
    assert server.requests == [("GET", f"{BASE}/internal/tasks/t1/bundle", b"")]
    assert server.headers["authorization"] == "Bearer secret1"


@pytest.mark.parametrize(
    "hiccup", [(503, b""), (429, b""), httpx.ConnectError("refused"), httpx.ReadError("reset")]
)
async def test_what_passes_is_tried_again(tmp_path, hiccup):
    server = Server(hiccup, hiccup, (200, b"tar"))
    await server.gateway().fetch_bundle(order(), tmp_path / "bundle")
    assert len(server.requests) == 3


async def test_a_refusal_is_not_tried_again_and_is_told(tmp_path):
    server = Server((404, b"The code of infsh/echo is not stored"))
    with pytest.raises(GatewayRefused, match=r"answered 404 to GET .*: The code of infsh/echo is not stored"):
        await server.gateway().fetch_bundle(order(), tmp_path / "bundle")
    assert len(server.requests) == 1


async def test_a_gateway_that_is_not_there_is_named_with_what_to_check(hurried, tmp_path):
    server = Server(httpx.ConnectError("refused"))
    with pytest.raises(GatewayRefused, match=r"http://inside:8787 cannot be reached .*STOKER_INTERNAL_URL"):
        await server.gateway().fetch_bundle(order(), tmp_path / "bundle")
    assert server.seconds == PATIENCE_S


async def test_a_gateway_that_moved_is_found_again(tmp_path):
    server = Server(httpx.ConnectError("refused"), (200, b"tar"))
    gateway = Gateway(lambda: f"http://at{len(server.requests)}", httpx.MockTransport(server.handle))
    await gateway.fetch_bundle(order(), tmp_path / "bundle")
    assert server.requests[1][1].startswith("http://at1/")


async def test_files_are_announced_with_their_places_in_the_output():
    outside = "http://outside/upload/1?signature=s"
    server = Server((200, msgspec.json.encode([{"upload_url": outside, "uri": "u", "id": "x"}])))
    new = NewFile("a.png", "image/png", 5, "/image")
    assert await server.gateway().announce(order(), [new]) == [Slot(outside, "u")]
    (_, url, body) = server.requests[0]
    assert url == f"{BASE}/internal/tasks/t1/files"
    assert msgspec.json.decode(body) == {
        "files": [{"filename": "a.png", "content_type": "image/png", "size": 5, "field": "/image"}]
    }


class TusServer:
    """An upload address: takes bytes up to the next entry of `breaks`, where the connection ends."""

    def __init__(self, size, breaks=(), answers=()):
        self.size, self.breaks, self.answers = size, list(breaks), list(answers)
        self.content = b""
        self.methods = []
        self.seconds = 0.0

    def gateway(self):
        return Gateway(lambda: BASE, httpx.MockTransport(self.handle), lambda: self.seconds)

    async def handle(self, request):
        self.seconds += REQUEST_S
        self.methods.append(request.method)
        assert str(request.url) == f"{BASE}/upload/1?signature=s"
        assert request.headers["tus-resumable"] == "1.0.0"
        if request.method == "HEAD":
            return httpx.Response(200, headers={"upload-offset": str(len(self.content))})
        offset = int(request.headers["upload-offset"])
        if offset != len(self.content):
            return httpx.Response(409)
        if self.answers:
            return httpx.Response(self.answers.pop(0), content=b"not now")
        body = await request.aread()
        assert len(body) == int(request.headers["content-length"])
        if self.breaks:
            self.content += body[: self.breaks.pop(0) - offset]
            raise httpx.WriteError("reset")
        self.content += body
        return httpx.Response(204)


SLOT = Slot("http://outside/upload/1?signature=s", "uri")


def reader(content, read):
    """A function that reads from an offset; the offsets go into `read`."""

    def at(offset):
        read.append(offset)

        async def chunks():
            yield content[offset:]

        return chunks()

    return at


@pytest.fixture
def hurried(monkeypatch):
    """No pauses between tries."""

    async def wait(self):
        await asyncio.sleep(0)

    monkeypatch.setattr("stoker_worker.backoff.Backoff.wait", wait)


async def test_an_upload_is_one_request_at_the_address_as_this_machine_reaches_it():
    server, read = TusServer(5), []
    await server.gateway().upload(SLOT, 5, reader(b"bytes", read))
    assert (server.content, server.methods, read) == (b"bytes", ["PATCH"], [0])


async def test_a_broken_upload_goes_on_from_what_the_gateway_has(hurried):
    server, read = TusServer(10, breaks=[4, 4, 7]), []
    await server.gateway().upload(SLOT, 10, reader(b"0123456789", read))
    assert server.content == b"0123456789"
    assert read == [0, 4, 4, 7]
    assert server.methods == ["PATCH"] + ["HEAD", "PATCH"] * 3


async def test_an_upload_whose_last_answer_was_lost_is_not_sent_again(hurried):
    server, read = TusServer(5, breaks=[5]), []
    await server.gateway().upload(SLOT, 5, reader(b"bytes", read))
    assert (server.methods, read) == (["PATCH", "HEAD"], [0])


@pytest.mark.parametrize("answer", [409, 503])
async def test_a_gateway_that_cannot_now_is_asked_again(hurried, answer):
    server, read = TusServer(5, answers=[answer] * 20), []
    await server.gateway().upload(SLOT, 5, reader(b"bytes", read))
    assert server.content == b"bytes"


async def test_an_upload_that_gets_no_further_is_given_up_with_the_reason(hurried):
    server, read = TusServer(5, answers=[503] * 1000), []
    with pytest.raises(GatewayRefused, match="answered 503 to PATCH /upload/1: not now"):
        await server.gateway().upload(SLOT, 5, reader(b"bytes", read))
    assert server.seconds >= RESULT_PATIENCE_S


async def test_patience_counts_from_the_last_byte_that_got_there(hurried):
    size = int(RESULT_PATIENCE_S / REQUEST_S)
    server, read = TusServer(size, breaks=range(1, size)), []
    await server.gateway().upload(SLOT, size, reader(b"x" * size, read))
    assert server.content == b"x" * size


@pytest.mark.parametrize("answer", [400, 403, 404, 413])
async def test_a_refused_upload_is_not_tried_again(hurried, answer):
    server, read = TusServer(5, answers=[answer]), []
    with pytest.raises(GatewayRefused, match=f"answered {answer}"):
        await server.gateway().upload(SLOT, 5, reader(b"bytes", read))
    assert server.methods == ["PATCH"]


async def test_an_address_elsewhere_is_used_as_it_is():
    seen = []

    def handle(request):
        seen.append(str(request.url))
        return httpx.Response(204)

    gateway = Gateway(lambda: BASE, httpx.MockTransport(handle))
    await gateway.upload(Slot("https://elsewhere/tus/1?x=1", "uri"), 1, reader(b"x", []))
    assert seen == ["https://elsewhere/tus/1?x=1"]


async def test_secrets_are_fetched_with_the_token_of_the_attempt():
    server = Server((503, b""), (200, b'{"A_TOKEN":"value"}'))
    assert await server.gateway().fetch_secrets(order()) == {"A_TOKEN": "value"}
    assert server.requests[-1] == ("GET", f"{BASE}/internal/tasks/t1/secrets", b"")
    assert server.headers["authorization"] == "Bearer secret1"


async def test_a_secret_that_is_gone_is_told_in_the_gateways_words():
    server = Server((412, b'{"satisfied":false,"errors":[{"message":"A is missing."},{"message":"B too."}]}'))
    with pytest.raises(SecretsMissing, match=r"^A is missing. B too.$") as refusal:
        await server.gateway().fetch_secrets(order())
    assert refusal.value.code == "requirements_not_met"
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b'{"detail":"The key is not here."}', b"not JSON"])
async def test_any_other_refusal_of_secrets_keeps_what_the_gateway_said(body):
    with pytest.raises(GatewayRefused) as refusal:
        await Server((401, body)).gateway().fetch_secrets(order())
    assert refusal.value.said == ("The key is not here." if body.startswith(b"{") else "")
