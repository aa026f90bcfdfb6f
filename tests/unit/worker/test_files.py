"""The gateway as a worker sees it."""

from types import SimpleNamespace

import httpx
import msgspec
import pytest
from recorders import order

from stoker_worker.files import TRIES, Gateway, GatewayRefused

BASE = "http://inside:8787"


class Server:
    """A gateway that answers what is queued up, then the last answer for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.base = BASE

    def gateway(self):
        return Gateway(lambda: self.base, httpx.MockTransport(self.handle))

    async def handle(self, request):
        body = await request.aread()
        self.requests.append((request.method, str(request.url), body))
        self.headers = request.headers
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        return httpx.Response(status, content=content)


def slots(*urls):
    return 200, msgspec.json.encode([{"upload_url": url, "uri": f"{url}/there", "id": "x"} for url in urls])


def out_file(path, content=b"bytes"):
    path.write_bytes(content)
    return SimpleNamespace(
        pointer="/image", path=path, content_type="image/png", filename=path.name, size=len(content)
    )


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


async def test_a_gateway_that_is_not_there_is_named_with_what_to_check(tmp_path):
    server = Server(httpx.ConnectError("refused"))
    with pytest.raises(GatewayRefused, match=r"http://inside:8787 cannot be reached .*STOKER_INTERNAL_URL"):
        await server.gateway().fetch_bundle(order(), tmp_path / "bundle")
    assert len(server.requests) == TRIES


async def test_a_gateway_that_moved_is_found_again(tmp_path):
    server = Server(httpx.ConnectError("refused"), (200, b"tar"))
    gateway = Gateway(lambda: f"http://at{len(server.requests)}", httpx.MockTransport(server.handle))
    await gateway.fetch_bundle(order(), tmp_path / "bundle")
    assert server.requests[1][1].startswith("http://at1/")


async def test_files_are_announced_together_and_uploaded_one_by_one(tmp_path):
    outside = "http://outside/upload/1?signature=s"
    server = Server(slots(outside, "https://s3/bucket/2"), (200, b""))
    files = [out_file(tmp_path / "a.png"), out_file(tmp_path / "b c.png", b"more")]
    uris = await server.gateway().store(order(), files)
    assert uris == [f"{outside}/there", "https://s3/bucket/2/there"]
    (_, url, body), first, second = server.requests
    assert url == f"{BASE}/internal/tasks/t1/files"
    assert msgspec.json.decode(body) == {
        "files": [
            {"filename": "a.png", "content_type": "image/png", "size": 5, "field": "/image"},
            {"filename": "b c.png", "content_type": "image/png", "size": 4, "field": "/image"},
        ]
    }
    assert first == ("PUT", f"{BASE}/upload/1?signature=s", b"bytes")
    assert second == ("PUT", "https://s3/bucket/2", b"more")
    assert server.headers["content-length"] == "4"
