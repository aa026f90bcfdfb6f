"""Files of inputs fetched from a real server, good and bad."""

import asyncio
import base64
import hashlib
import os
from pathlib import Path

import pytest
from file_server import FileServer, Reply, ranged
from helpers import eventually
from recorders import order

from stoker.core.addresses import AllowList
from stoker.core.messages import LogType
from stoker.outbound import CheckedTransport, resolve
from stoker_worker import inputs as inputs_module
from stoker_worker.fetch import TRIES, Fetcher
from stoker_worker.fetch_policy import FetchPolicy
from stoker_worker.input_cache import InputCache
from stoker_worker.inputs import Inputs
from stoker_worker.outcomes import InputFileFailed

BODY = os.urandom(3 * 1024 * 1024 + 17)
LIMIT = 8 * 1024 * 1024


@pytest.fixture
async def server():
    async with FileServer() as made:
        yield made


class Desk:
    """Inputs with their own directories, on one server that is allowed."""

    def __init__(self, folder, allow, stores=(), resolver=resolve, **options):
        policy = FetchPolicy(AllowList.parse(allow), lambda: list(stores))
        fetcher = Fetcher(policy, max_bytes=LIMIT, transport=CheckedTransport(resolver), first_pause_s=0.001)
        self.cache = InputCache(folder / "cache", options.pop("cache_bytes", 10 * LIMIT))
        self.folder = folder / "runs with blanks"
        self.inputs = Inputs(fetcher, self.cache, self.folder, timeout_s=options.pop("timeout_s", 60))
        self.inputs.open()
        self.lines = []
        self._orders = 0

    def order(self, value):
        self._orders += 1
        return order(task_id=f"t{self._orders}", input={"image": value}, input_files=("/image",))

    async def fetch(self, value):
        """What the app gets for a file."""
        given = await self.inputs.fetch(self.order(value), lambda *line: self.lines.append(line))
        return given["image"]

    async def fails(self, value):
        with pytest.raises(InputFileFailed) as caught:
            await self.fetch(value)
        assert not list(self.cache._folder.glob("*.part"))
        return caught.value.message


@pytest.fixture
async def desk(tmp_path, server):
    made = Desk(tmp_path, [f"127.0.0.1:{server.port}"])
    yield made
    await made.inputs.close()


def content(given):
    return Path(given["path"]).read_bytes()


async def test_a_file_lies_under_its_own_name_and_keeps_its_address(desk, server):
    url = server.put("/a/my%20photo%20(1).png?sig=1", Reply(headers={"Content-Type": "image/png"}, body=BODY))
    given = await desk.fetch(url)
    assert content(given) == BODY
    assert given == {
        "uri": url,
        "path": given["path"],
        "content_type": "image/png",
        "size": len(BODY),
        "filename": "my photo (1).png",
    }
    assert Path(given["path"]).name == "my_photo__1_.png"
    assert " " not in given["path"]


async def test_what_the_caller_says_of_a_file_goes_first_and_its_path_never(desk, server):
    url = server.put("/x", Reply(headers={"Content-Type": "image/png"}, body=b"x"))
    given = await desk.fetch(
        {"uri": url, "path": "/etc/passwd", "filename": "a b.tiff", "content_type": "image/tiff", "size": 99}
    )
    assert content(given) == b"x"
    assert Path(given["path"]).name == "a_b.tiff"
    assert (given["filename"], given["content_type"], given["size"]) == ("a b.tiff", "image/tiff", 1)


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd", "file:///etc/passwd", "FILE:///etc/passwd", "etc/passwd", "ftp://h/x", "inf://files/x",
        "\\\\host\\share", {"path": "/etc/passwd"}, {"path": "/etc/passwd", "uri": ""},
        {"uri": "/etc/passwd"}, {"uri": "file:///etc/passwd", "path": "x"},
    ],
)  # fmt: skip
async def test_a_path_of_the_machine_is_refused_by_the_name_of_its_field(desk, value):
    text = await desk.fails(value)
    assert text.startswith("input.image: ")
    assert "give an http, https or data address" in text


@pytest.mark.parametrize("value", [None, "", {}, 3, ["x"]])
async def test_what_is_no_file_stays_as_it_is(desk, value):
    assert await desk.fetch(value) == value


async def test_a_data_address_is_a_file_too(desk):
    data = bytes(range(256))
    for text in (base64.urlsafe_b64encode(data).decode().rstrip("="), base64.b64encode(data).decode()):
        uri = f"data:image/png;base64,{text}"
        given = await desk.fetch(uri)
        assert content(given) == data
        assert (given["uri"], given["filename"], given["content_type"]) == (uri, "file.png", "image/png")
    assert (await desk.fetch({"uri": "data:,x", "filename": "n.txt"}))["path"].endswith("/n.txt")
    assert "base64 cannot be decoded" in await desk.fails("data:;base64,!")


async def test_an_answer_that_is_an_error_is_told_and_not_repeated(desk, server):
    text = await desk.fails(server.url + "/none.png?secret=1")
    assert text == f"input.image: {server.url}/none.png answered 404 Not Found"
    assert len(server.requests) == 1


async def test_a_server_in_trouble_is_asked_again(desk, server):
    url = server.put("/x", Reply("503 Service Unavailable"), Reply("429 Too Many Requests"), Reply(body=b"x"))
    assert content(await desk.fetch(url)) == b"x"
    url = server.put("/y", Reply("500 Internal Server Error"))
    assert f"answered 500 Internal Server Error ({TRIES} times)" in await desk.fails(url)


async def test_nobody_there_is_told(desk, server):
    server._server.close()
    assert f"{server.url}/x cannot be reached, {TRIES} times" in await desk.fails(server.url + "/x")


async def test_a_cut_connection_goes_on_where_it_broke(desk, server):
    first = Reply(headers={"ETag": '"1"'}, body=BODY, cut=2_000_000)
    url = server.put("/big.bin", first, ranged(BODY))
    assert content(await desk.fetch(url)) == BODY
    wanted = server.requests[1].headers
    assert (wanted["range"], wanted["if-range"]) == ("bytes=2000000-", '"1"')


async def test_a_file_that_changed_meanwhile_comes_anew(desk, server):
    first = Reply(headers={"ETag": '"1"'}, body=BODY, cut=2_000_000)
    url = server.put("/big.bin", first, ranged(b"other", etag='"2"'))
    assert content(await desk.fetch(url)) == b"other"


async def test_without_a_version_nothing_is_put_together(desk, server):
    url = server.put("/big.bin", Reply(body=BODY, cut=2_000_000), Reply(body=b"x" * len(BODY)))
    assert content(await desk.fetch(url)) == b"x" * len(BODY)
    assert "range" not in server.requests[1].headers


async def test_a_rest_from_another_place_is_not_taken(desk, server):
    first = Reply(headers={"ETag": '"1"'}, body=BODY, cut=2_000_000)
    wrong = Reply("206 Partial Content", {"Content-Range": f"bytes 5-9/{len(BODY)}"}, b"xxxxx")
    url = server.put("/big.bin", first, wrong, Reply(headers={"ETag": '"1"'}, body=BODY))
    assert content(await desk.fetch(url)) == BODY


async def test_a_wrong_length_is_an_error(desk, server):
    url = server.put("/short", Reply(body=b"12345", length=10))
    assert f"broke off after 5 of 10 bytes, {TRIES} times" in await desk.fails(url)


async def test_bytes_that_are_not_those_of_the_stated_hash_are_an_error(desk, server):
    good = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    stated = {"Repr-Digest": f"sha-256=:{good}:", "ETag": '"1"'}
    first = Reply(headers=stated, body=BODY, cut=1_500_000)
    url = server.put("/sum", first, ranged(BODY, **{"Repr-Digest": stated["Repr-Digest"]}))
    assert content(await desk.fetch(url)) == BODY
    url = server.put("/bad", Reply(headers=stated, body=b"other"))
    assert "sent other bytes than its sha256 says" in await desk.fails(url)


async def test_a_file_that_is_too_large_is_refused_before_and_while_it_comes(desk, server):
    url = server.put("/large", Reply(body=b"x", length=LIMIT + 1, hold=True))
    assert f"has {LIMIT + 1} bytes; at most {LIMIT} are fetched" in await desk.fails(url)
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    chunked = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    url = server.put("/endless", Reply(headers=chunked, body=piece * 9, hold=True))
    assert f"bytes; at most {LIMIT} are fetched" in await desk.fails(url)


async def test_redirects_are_followed_and_bounded(desk, server):
    server.put("/end.png", Reply(body=b"end"))
    url = server.put("/from.png", Reply("302 Found", {"Location": "/end.png"}))
    given = await desk.fetch(url)
    assert content(given) == b"end"
    assert given["filename"] == "from.png"
    loop = server.put("/loop", Reply("302 Found", {"Location": "/loop"}))
    assert "more than 5 redirects" in await desk.fails(loop)


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/x", "http://localhost:1/x", "http://[::1]:1/", "http://169.254.169.254/latest/meta-data",
     "http://0x7f.1:1/", "http://2130706433:1/", "http://[::ffff:127.0.0.1]:1/"],
)  # fmt: skip
async def test_a_redirect_to_the_inside_is_refused(desk, server, location):
    url = server.put("/from", Reply("302 Found", {"Location": location}))
    text = await desk.fails(url)
    assert "leads to an address that is not public" in text
    assert "STOKER_FETCH_ALLOW" in text


async def test_a_redirect_to_a_file_of_the_machine_is_refused(desk, server):
    url = server.put("/from", Reply("302 Found", {"Location": "file:///etc/passwd"}))
    assert "is no http or https address" in await desk.fails(url)


async def test_addresses_of_the_inside_are_refused_without_a_setting(tmp_path, server):
    desk = Desk(tmp_path, [])
    server.put("/x", Reply(body=b"x"))
    text = await desk.fails(server.url + "/x?secret=1")
    assert text.startswith(f"input.image: {server.url}/x leads to an address that is not public")
    assert server.requests == []


async def test_a_name_is_resolved_once_and_the_connection_goes_there(tmp_path, server):
    """The second answer of a resolver that changes its mind is never asked for."""
    answers = [["127.0.0.1"], ["10.9.9.9"]]
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return answers[min(len(asked) - 1, 1)]

    desk = Desk(tmp_path, ["127.0.0.0/8"], resolver=rebinding)
    server.put("/x", Reply(body=b"x"))
    given = await desk.fetch(f"http://changes.example:{server.port}/x")
    assert content(given) == b"x"
    assert asked == ["changes.example"]
    assert server.requests[0].headers["host"] == f"changes.example:{server.port}"


async def test_a_name_that_turns_inside_is_refused_when_it_is_used_again(tmp_path, server):
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"]

    desk = Desk(tmp_path, [], resolver=rebinding)
    assert "not public" in await desk.fails(f"http://changes.example:{server.port}/x")
    assert server.requests == []


async def test_of_several_addresses_only_those_allowed_are_used(tmp_path, server):
    async def mixed(host, port):
        return ["10.9.9.9", "127.0.0.1"]

    desk = Desk(tmp_path, ["127.0.0.1"], resolver=mixed)
    server.put("/x", Reply(body=b"x"))
    assert content(await desk.fetch(f"http://mixed.example:{server.port}/x")) == b"x"


async def test_the_own_store_is_reached_by_its_public_name_and_the_rest_of_its_host_is_not(tmp_path, server):
    desk = Desk(tmp_path, [], stores=[server.url, "https://stoker.example"])
    server.put("/files/f1/secret/a.png", Reply(body=b"x"))
    given = await desk.fetch("https://stoker.example/files/f1/secret/a.png")
    assert (content(given), given["uri"]) == (b"x", "https://stoker.example/files/f1/secret/a.png")
    for path in ("/internal/tasks/t/bundle", "/files/f1/../../keys", "/keys"):
        assert "not public" in await desk.fails(server.url + path)
    assert server.paths() == ["/files/f1/secret/a.png"]


async def test_callers_may_know_the_own_store_by_an_address_that_workers_cannot_reach(tmp_path, server):
    desk = Desk(tmp_path, [], stores=[server.url])
    server.put("/files/f1/secret/a.png", Reply(body=b"x"))
    uri = "http://localhost:1/files/f1/secret/a.png"
    assert "not public" in await desk.fails(uri)
    known = order(input={"image": uri}, input_files=("/image",), files_url="http://localhost:1")
    given = (await desk.inputs.fetch(known, print))["image"]
    assert (content(given), given["uri"]) == (b"x", uri)


async def test_a_file_comes_once_while_its_server_says_that_it_holds(desk, server):
    url = server.put("/x.png", ranged(BODY, **{"Cache-Control": "max-age=60"}))
    first, second = await asyncio.gather(desk.fetch(url), desk.fetch(url))
    assert first["path"] != second["path"]
    assert content(first) == content(second) == content(await desk.fetch(url)) == BODY
    assert len(server.requests) == 1


async def test_a_kept_file_is_asked_about_and_a_changed_one_comes_anew(desk, server):
    url = server.put("/x.png", ranged(b"one"), ranged(b"one"), ranged(b"two", etag='"2"'))
    assert [content(await desk.fetch(url)) for _ in range(3)] == [b"one", b"one", b"two"]
    assert "if-none-match" in server.requests[1].headers


async def test_what_must_not_be_stored_is_not_kept(desk, server):
    url = server.put("/x", ranged(b"one", **{"Cache-Control": "no-store"}))
    assert content(await desk.fetch(url)) == b"one"
    assert list(desk.cache._folder.iterdir()) == []


async def test_other_secrets_have_other_copies(desk, server):
    keep = {"Cache-Control": "max-age=60"}
    mine = server.put("/x?sig=mine", ranged(b"mine", **keep))
    theirs = server.put("/x?sig=theirs", Reply("403 Forbidden"))
    assert content(await desk.fetch(mine)) == b"mine"
    assert "403" in await desk.fails(theirs)


async def test_a_file_stays_with_its_run_when_it_is_evicted(tmp_path, server):
    desk = Desk(tmp_path, [f"127.0.0.1:{server.port}"], cache_bytes=5 * len(BODY))
    keep = {"Cache-Control": "max-age=60"}
    urls = [server.put(f"/{n}", ranged(BODY, **keep)) for n in range(8)]
    given = [await desk.fetch(url) for url in urls]
    assert {content(one) for one in given} == {BODY}
    assert len(list(desk.cache._folder.glob("*.data"))) <= 5


async def test_a_file_that_goes_as_soon_as_it_is_kept_is_there_all_the_same(desk, server, monkeypatch):
    keep = desk.cache.keep

    def keep_and_lose(*arguments):  # as when another daemon replaces it, or makes room
        kept = keep(*arguments)
        (desk.cache._folder / kept.data).unlink()
        return kept

    monkeypatch.setattr(desk.cache, "keep", keep_and_lose)
    url = server.put("/a.bin", Reply(headers={"ETag": '"1"'}, body=BODY))
    assert content(await desk.fetch(url)) == BODY


async def test_a_stop_ends_the_fetch_and_leaves_nothing(desk, server):
    url = server.put("/slow", Reply(body=BODY, cut=2_000_000, hold=True))
    given = desk.order(url)
    fetching = asyncio.ensure_future(desk.inputs.fetch(given, print))
    await eventually(lambda: server.open, "the request")
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await desk.inputs.discard(given)
    await eventually(lambda: not server.open, "the end of the connection")
    assert list(desk.cache._folder.iterdir()) == list(desk.folder.iterdir()) == []


async def test_a_fetch_that_takes_too_long_says_which_setting(tmp_path, server):
    desk = Desk(tmp_path, ["127.0.0.1"], timeout_s=0.2)
    url = server.put("/slow", Reply(body=BODY, cut=10, hold=True))
    assert "not here within 0.2 s (STOKER_FETCH_TIMEOUT_S)" in await desk.fails(url)


async def test_one_file_that_fails_stops_the_others(desk, server):
    slow = server.put("/slow", Reply(body=BODY, cut=10, hold=True))
    given = order(input={"a": [slow, server.url + "/none"]}, input_files=("/a/0", "/a/1"))
    with pytest.raises(InputFileFailed, match=r"^input\.a\.1: .* answered 404"):
        await desk.inputs.fetch(given, print)
    await eventually(lambda: not server.open, "the end of the other connection")


async def test_files_of_one_name_do_not_meet(desk, server):
    urls = [server.put(f"/{n}/same.png", Reply(body=b"%d" % n)) for n in range(6)]
    given = order(input={"a": urls}, input_files=tuple(f"/a/{n}" for n in range(6)))
    got = (await desk.inputs.fetch(given, print))["a"]
    assert [content(one) for one in got] == [b"%d" % n for n in range(6)]
    assert {Path(one["path"]).name for one in got} == {"same.png"}
    await desk.inputs.discard(given)
    assert list(desk.folder.iterdir()) == []
    assert given.task.input == {"a": urls}


async def test_a_large_file_says_in_the_log_how_far_it_is(desk, server, monkeypatch):
    monkeypatch.setattr(inputs_module, "LARGE_BYTES", 1024)
    monkeypatch.setattr(inputs_module, "PROGRESS_S", 0)
    await desk.fetch(server.put("/big.bin", Reply(body=BODY)))
    assert desk.lines[-1] == (LogType.TASK, "input.image: 3 of 3 MiB from 127.0.0.1")


async def test_a_full_disk_is_told(desk, server, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stoker_worker.fetch._Download._put", full)
    text = await desk.fails(server.put("/x", Reply(body=b"x")))
    assert text == "input.image: it could not be stored on the worker's machine: No space left on device"


async def test_what_one_fetch_was_told_to_remember_is_not_told_to_the_next(server, desk):
    """Two tasks may be two users': a cookie of the one's server is not for the other's request."""
    server.put("/one", Reply(body=b"1", headers={"set-cookie": "session=secret; Path=/"}))
    server.put("/two", Reply(body=b"2"))
    await desk.fetch(server.url + "/one")
    await desk.fetch(server.url + "/two")
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


async def test_a_tag_that_no_header_can_carry_is_not_asked_by(server, desk):
    server.put("/x", Reply(body=b"1", headers={"etag": '"é"'.encode().decode("latin-1")}))
    for _ in range(2):
        assert (await desk.fetch(server.url + "/x"))["size"] == 1
