"""Downloads, lists and visibility over both file stores, and what pages of other origins get."""

import base64
import hashlib

import httpx
import pytest

from stoker.core.messages import ApiKey
from stoker_gateway.routes.keys import NewKey, make_key

ORIGIN = {"origin": "https://app.example"}
CONTENT = bytes(range(256)) * 40


async def names(gateway, **query):
    answer = await gateway.client.post("/files/list", json=query)
    assert answer.status_code == 200, answer.text
    return [item["filename"] for item in answer.json()["data"]["items"]]


@pytest.fixture
async def stranger(gateway, store):
    """A client with the key of another user."""
    text, key = make_key("stranger", NewKey(name="other"))
    assert isinstance(key, ApiKey)
    await store.keys.put(key)
    headers = {"Authorization": f"Bearer {text}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        ("", 200, CONTENT),
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=5000-", 206, CONTENT[5000:]),
        ("bytes=-7", 206, CONTENT[-7:]),
        (f"bytes={len(CONTENT)}-", 416, b""),
        ("bytes=0-1,5-6", 200, CONTENT),
    ],
)
async def test_ranges(gateway, wanted, status, expected):
    made = await gateway.upload(CONTENT, "video/mp4", filename="film.mp4")
    for method in ("GET", "HEAD"):
        answer = await gateway.open.request(method, made["uri"], headers={"range": wanted} if wanted else {})
        assert answer.status_code == status
        assert answer.content == (expected if method == "GET" else b"")
        assert answer.headers["accept-ranges"] == "bytes"
        if status != 416:
            assert answer.headers["content-length"] == str(len(expected))
            assert answer.headers["content-type"] == "video/mp4"


async def test_a_file_that_one_has_is_not_sent_again(gateway):
    made = await gateway.upload(CONTENT, filename="a")
    etag = (await gateway.open.head(made["uri"])).headers["etag"]
    answer = await gateway.open.get(made["uri"], headers={"if-none-match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    part = await gateway.open.get(made["uri"], headers={"if-range": etag, "range": "bytes=0-1"})
    assert part.content == CONTENT[:2]
    whole = await gateway.open.get(made["uri"], headers={"if-range": '"other"', "range": "bytes=0-1"})
    assert whole.content == CONTENT


async def test_the_hash_of_a_whole_file_is_stated(gateway):
    """Whoever fetches it, a worker for one, can tell that it is the one that was uploaded (RFC 9530)."""
    made = await gateway.upload(CONTENT, filename="a")
    stated = f"sha-256=:{base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}:"
    for wanted in ({}, {"range": "bytes=0-9"}):
        answer = await gateway.open.get(made["uri"], headers=wanted)
        assert answer.headers["repr-digest"] == stated


async def test_a_name_comes_back_in_utf8_to_look_at_or_to_save(gateway):
    made = await gateway.upload(b"x", filename="Bär & Söhne.txt")
    looked = await gateway.open.get(made["uri"])
    saved = await gateway.open.get(made["uri"] + "?download=1")
    name = "filename*=UTF-8''B%C3%A4r%20%26%20S%C3%B6hne.txt"
    assert looked.headers["content-disposition"].startswith("inline; ")
    assert saved.headers["content-disposition"].startswith("attachment; ")
    assert name in looked.headers["content-disposition"]
    assert name in saved.headers["content-disposition"]


async def test_only_the_whole_address_opens_a_file(gateway):
    made = await gateway.upload(b"x", filename="a")
    secret = made["uri"].split("/")[-2]
    for url in (made["uri"].replace(secret, "guess"), made["uri"].replace(made["id"], "guess")):
        for method in ("GET", "HEAD"):
            assert (await gateway.open.request(method, url)).status_code == 404


async def test_a_deleted_file_is_gone_with_its_bytes(gateway):
    made = await gateway.upload(b"x", filename="a")
    assert (await gateway.client.delete(f"/files/{made['id']}")).status_code == 200
    assert (await gateway.open.get(made["uri"])).status_code == 404
    assert (await gateway.client.get(f"/files/{made['id']}")).status_code == 404
    assert await names(gateway) == []


async def test_bytes_that_are_missing_are_a_404_and_no_broken_answer(gateway):
    made = await gateway.announce(filename="a", size=10)
    await gateway.open.put(made["upload_url"], content=b"0123456789")
    from stoker.files import file_key, open_files

    await open_files(gateway.settings).delete(file_key(made["id"]))
    assert (await gateway.open.get(made["uri"])).status_code == 404


async def test_lists_have_pages_filters_and_a_search(gateway):
    for number in range(12):
        kind = "image/png" if number % 2 else "text/plain"
        await gateway.upload(
            b"x" * number, kind, filename=f"file {number}.x", category=["even", "odd"][number % 2]
        )
    newest = [f"file {n}.x" for n in range(11, -1, -1)]
    assert await names(gateway) == newest[:10]
    assert await names(gateway, limit=100) == newest
    images = [{"field": "content_type", "operator": "like", "value": "image/%"}]
    assert await names(gateway, filters=images) == newest[::2]
    assert await names(gateway, filters=images, search={"term": "file 1"}) == ["file 11.x", "file 1.x"]
    assert await names(gateway, search={"term": "ODD", "fields": ["category"]}) == newest[::2]
    assert await names(gateway, filters=[{"field": "size", "operator": "lt", "value": 2}]) == newest[-2:]
    wrong = await gateway.client.post("/files/list", json={"filters": [{"field": "secret", "value": "x"}]})
    assert wrong.status_code == 400

    first = (await gateway.client.get("/files", params={"limit": 5})).json()["data"]
    assert (first["has_next"], first["has_previous"], first["items_per_page"]) == (True, False, 5)
    second = (await gateway.client.get("/files", params={"limit": 5, "cursor": first["next_cursor"]})).json()[
        "data"
    ]
    await gateway.client.delete(f"/files/{first['items'][-1]['id']}")
    after = (await gateway.client.get("/files", params={"limit": 5, "cursor": first["next_cursor"]})).json()[
        "data"
    ]
    assert [item["filename"] for item in second["items"]] == newest[5:10]
    assert after["items"] == second["items"]
    query = {"limit": 5, "cursor": second["prev_cursor"], "direction": "prev"}
    back = (await gateway.client.get("/files", params=query)).json()["data"]
    assert [item["filename"] for item in back["items"]] == newest[:4]


async def test_a_stranger_sees_nothing_but_what_is_public(gateway, stranger):
    made = await gateway.upload(b"x", filename="a")
    assert made["visibility"] == "private"
    assert (await stranger.get(f"/files/{made['id']}")).status_code == 404
    for path, body in ((f"/files/{made['id']}/visibility", {"visibility": "public"}),):
        assert (await stranger.post(path, json=body)).status_code == 404
        assert (await gateway.client.post(path, json=body)).json()["data"]["visibility"] == "public"
    assert (await stranger.get(f"/files/{made['id']}")).json()["data"]["uri"] == made["uri"]
    assert (await stranger.delete(f"/files/{made['id']}")).status_code == 404
    assert (await stranger.post("/files/list", json={})).json()["data"]["items"] == []
    body = {"visibility": "everybody"}
    assert (await gateway.client.post(f"/files/{made['id']}/visibility", json=body)).status_code == 400
    assert (await gateway.announce(filename="b", public=True))["visibility"] == "public"
    assert (await gateway.announce(filename="c", public=None))["visibility"] == "private"


@pytest.mark.parametrize("gateway", ["local"], indirect=True)
class TestPagesOfOtherOrigins:
    async def test_may_read_a_download_and_its_headers(self, gateway):
        made = await gateway.upload(b"0123456789", filename="a")
        answer = await gateway.open.get(made["uri"], headers=ORIGIN | {"range": "bytes=0-1"})
        assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]
        shown = answer.headers["access-control-expose-headers"].lower()
        assert all(name in shown for name in ("content-range", "etag", "content-disposition"))

    @pytest.mark.parametrize(
        ("method", "sent"),
        [
            ("PUT", "content-type"),
            ("PATCH", "tus-resumable,upload-offset,content-type"),
            ("GET", "range,if-range"),
            ("GET", "authorization,last-event-id"),
        ],
    )
    async def test_may_upload_and_go_on(self, gateway, method, sent):
        headers = ORIGIN | {"access-control-request-method": method, "access-control-request-headers": sent}
        answer = await gateway.open.options("/upload/x", headers=headers)
        assert answer.status_code == 204, answer.text
        assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]

    async def test_may_read_why_they_were_refused(self, gateway, store):
        refused = await gateway.open.get("/files", headers=ORIGIN)
        text, key = make_key("u", NewKey(name="slow", rates={"get": 1}))
        await store.keys.put(key)
        authorized = ORIGIN | {"authorization": f"Bearer {text}"}
        assert (await gateway.open.get("/files", headers=authorized)).status_code == 200
        limited = await gateway.open.get("/files", headers=authorized)
        for answer, status in ((refused, 401), (limited, 429)):
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN["origin"]
            assert answer.headers["vary"] == "Origin"
            assert "retry-after" in answer.headers["access-control-expose-headers"].lower()

    async def test_of_an_origin_that_is_not_allowed_read_nothing(self, gateway):
        answer = await gateway.open.get("/files", headers={"origin": "https://elsewhere.example"})
        assert answer.status_code == 401
        assert "access-control-allow-origin" not in answer.headers
