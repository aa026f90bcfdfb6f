"""The key and the errors of the command line's connection."""

import json

import httpx
import pytest

from stoker.settings import ClientSettings
from stoker_cli.api import Api, find_key
from stoker_cli.output import CommandFailed, ExitCode

KEY = "inf_k1.secret"


@pytest.mark.parametrize("given", [KEY, f"{KEY}\n", f" {KEY}\r\n"])
def test_a_key_is_taken_without_what_stands_around_it(tmp_path, given):
    assert find_key(ClientSettings(data_dir=tmp_path, api_key=given)) == KEY


@pytest.mark.parametrize("given", ["inf_k\u00e9y", "inf_\nkey"])
def test_what_can_be_no_key_is_refused_and_not_shown(tmp_path, given):
    with pytest.raises(CommandFailed) as refused:
        find_key(ClientSettings(data_dir=tmp_path, api_key=given))
    assert refused.value.exit_code == ExitCode.DENIED
    assert "inf_" not in refused.value.message


async def test_a_header_that_cannot_be_sent_is_not_shown():
    async with Api("http://127.0.0.1:9", KEY) as api:
        with pytest.raises(CommandFailed) as refused, api._explained():
            raise httpx.LocalProtocolError(f"Illegal header value b'Bearer {KEY}\\n'")
    assert KEY not in refused.value.message


def answering(api, monkeypatch, status, **answer):
    def respond(_request):
        return httpx.Response(status, **answer)

    monkeypatch.setattr(
        api, "_http", httpx.AsyncClient(base_url=api.url, transport=httpx.MockTransport(respond))
    )


async def delete(api, _folder):
    await api.delete("/keys/k1")


async def follow(api, _folder):
    _ = [event async for event in api.events("/keys/k1")]


async def download(api, folder):
    await api.download("/keys/k1", folder / "new")


@pytest.mark.parametrize("ask", [delete, follow, download])
@pytest.mark.parametrize(("status", "content"), [(308, b""), (301, b"<html>moved</html>"), (304, b"")])
async def test_a_redirect_is_no_success_and_its_target_is_told(tmp_path, monkeypatch, ask, status, content):
    api = Api("http://gw:8/stoker", KEY)
    headers = {"Location": "https://gw/stoker/keys/k1"}
    answering(api, monkeypatch, status, content=content, headers=headers)
    async with api:
        with pytest.raises(CommandFailed) as refused:
            await ask(api, tmp_path)
    assert refused.value.message == "http://gw:8/stoker redirects to https://gw/stoker"
    assert refused.value.exit_code is ExitCode.UNREACHABLE
    assert "STOKER_URL" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_a_redirect_to_nowhere_is_no_success(monkeypatch):
    api = Api("http://gw", KEY)
    answering(api, monkeypatch, 302)
    async with api:
        with pytest.raises(CommandFailed, match="http://gw redirects to no address"):
            await api.get("/apps")


@pytest.mark.parametrize(
    ("ask", "content"),
    [(delete, b"<html>please log in</html>"), (delete, b'"\xff"'), (follow, b"<html>please log in</html>")],
)
async def test_a_page_instead_of_json_is_no_gateway(tmp_path, monkeypatch, ask, content):
    api = Api("http://gw", KEY)
    answering(api, monkeypatch, 200, content=content)
    async with api:
        with pytest.raises(CommandFailed, match="what answers at http://gw is no Stoker gateway") as refused:
            await ask(api, tmp_path)
    assert refused.value.exit_code is ExitCode.UNREACHABLE


@pytest.mark.parametrize("url", ["http://host:abc", "http://[::1", "http://127.0.0.1:99999"])
async def test_an_address_that_is_none_is_a_usage_error(url):
    with pytest.raises(CommandFailed, match="is no address of a gateway") as refused:
        async with Api(url, KEY) as api:
            await api.get("/apps")
    assert refused.value.exit_code is ExitCode.USAGE
    assert "STOKER_URL" in refused.value.hint


@pytest.mark.parametrize("ask", [lambda api, path: api.get(path), lambda api, path: anext(api.events(path))])
@pytest.mark.parametrize("given", ["\udcff", "\n"])
async def test_a_name_that_cannot_be_sent_is_a_usage_error(monkeypatch, given, ask):
    api = Api("http://gw", KEY)
    answering(api, monkeypatch, 200)
    async with api:
        with pytest.raises(CommandFailed, match="cannot be sent") as refused:
            await ask(api, f"/tasks/{given}")
    assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("method", "limit", "asked"),
    [
        ("GET", None, [(100, ""), (100, "c1"), (100, "c2")]),
        ("POST", 250, [(100, ""), (100, "c1"), (50, "c2")]),
        ("POST", 100, [(100, "")]),
    ],
)
async def test_a_list_is_read_page_by_page(monkeypatch, method, limit, asked):
    pages = iter(["c1", "c2", None])
    seen = []

    def respond(request):
        query = dict(request.url.params) or json.loads(request.content)
        assert query["state"] == "dead"
        seen.append((int(query["limit"]), query["cursor"]))
        items = [{"id": n} for n in range(int(query["limit"]))]
        return httpx.Response(200, json={"items": items, "next_cursor": next(pages)})

    api = Api("http://gw", KEY)
    monkeypatch.setattr(
        api, "_http", httpx.AsyncClient(base_url=api.url, transport=httpx.MockTransport(respond))
    )
    async with api:
        found = [each async for each in api.entries(method, "/list", {"state": "dead"}, limit=limit)]
    assert seen == asked
    assert len(found) == sum(size for size, _ in asked)


async def test_a_list_whose_cursor_stands_still_ends(monkeypatch):
    api = Api("http://gw", KEY)
    answering(api, monkeypatch, 200, json={"items": [{"id": 1}], "next_cursor": "c"})
    async with api:
        assert len([each async for each in api.entries("GET", "/list", {})]) == 2
