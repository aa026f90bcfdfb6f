"""Uploads over both file stores: what was announced binds, and what broke goes on."""

import asyncio
import os
import time
from types import SimpleNamespace

import pytest
from gateways import TUS, gateway_settings, running
from msgspec import structs

from stoker.core.errors import Conflict
from stoker.core.messages import StoredFile, TaskId
from stoker.core.states import TaskState as S
from stoker.files import open_files
from stoker.settings import DAY_S
from stoker_gateway.routes.uploads import complete
from stoker_jobs.file_sweep import remove_expired

CONTENT = os.urandom(3_000_000)


async def download(gateway, made):
    return await gateway.open.get(made["uri"])


async def patch(gateway, made, offset, content, **headers):
    return await gateway.open.patch(
        made["upload_url"], content=content, headers=TUS | {"upload-offset": str(offset)} | headers
    )


def problem(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["detail"]


async def test_a_file_comes_back_as_it_was_uploaded(gateway):
    made = await gateway.upload(CONTENT, "image/png", filename="a picture.png")
    answer = await download(gateway, made)
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "image/png"
    assert made["uploaded"] is True


async def test_an_empty_file_is_a_file(gateway):
    made = await gateway.upload(b"", filename="empty.txt")
    answer = await download(gateway, made)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_what_was_not_announced_is_taken_from_the_upload(gateway):
    made = await gateway.announce(filename="note.txt")
    answer = await gateway.open.put(
        made["upload_url"], content=b"coal", headers={"content-type": "text/markdown"}
    )
    record = answer.json()["data"]
    assert (record["size"], record["content_type"]) == (4, "text/markdown")


@pytest.mark.parametrize(
    ("announced", "sent"),
    [("image/png", "application/octet-stream"), ("application/octet-stream", "text/plain")],
    ids=["a page's file without a type", "data: without a type"],
)
async def test_who_knows_no_type_in_one_of_the_two_places_is_not_refused(gateway, announced, sent):
    made = await gateway.announce(filename="photo.png", content_type=announced)
    answer = await gateway.open.put(made["upload_url"], content=b"coal", headers={"content-type": sent})
    assert answer.json()["data"]["content_type"] == announced


@pytest.mark.parametrize(
    ("content", "content_type", "words"),
    [
        (b"coal", "image/png", "Content-Type is 'image/png', but 'text/plain' was announced"),
        (b"coals", "text/plain", "Content-Length is 5, but 4 bytes were announced"),
        (b"", "text/plain", "Content-Length is 0, but 4 bytes were announced"),
    ],
)
async def test_another_type_or_length_than_announced_is_refused(gateway, content, content_type, words):
    made = await gateway.announce(filename="a", size=4, content_type="text/plain")
    headers = {"content-type": content_type, "content-length": str(len(content))}
    answer = await gateway.open.put(made["upload_url"], content=content, headers=headers)
    assert answer.status_code == 400
    assert words in problem(answer)
    assert (await download(gateway, made)).status_code == 404
    right = await gateway.open.put(
        made["upload_url"], content=b"coal", headers={"content-type": "text/plain"}
    )
    assert right.status_code == 200


@pytest.mark.parametrize("sent", [b"coa", b"coals and more"])
async def test_a_stream_without_a_length_is_measured(gateway, sent):
    async def body():
        yield sent

    made = await gateway.announce(filename="a", size=4)
    answer = await gateway.open.put(made["upload_url"], content=body())
    assert answer.status_code == 400
    assert "were announced" in problem(answer) or "were announced" in answer.text
    assert await gateway.offset(made["upload_url"]) == 0


async def test_an_address_is_good_for_one_file_as_it_was_announced(gateway, store):
    made = await gateway.announce(filename="a", size=4)
    other = await gateway.announce(filename="b", size=4)
    path, _, query = made["upload_url"].partition("?")
    wrong = [
        f"{other['upload_url'].partition('?')[0]}?{query}",
        path,
        f"{path}?expires=99999999999&signature={query[-64:]}",
        f"{path}?expires=x&signature=é",
    ]
    for url in wrong:
        answer = await gateway.open.put(url, content=b"coal")
        assert answer.status_code == 403
        assert "not one of ours" in problem(answer)


async def test_an_expired_address_takes_nothing(tmp_path, s3_server, store, monkeypatch):
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        made = await gateway.announce(filename="a", size=4)
        later = time.time() + gateway.settings.upload_ttl_s + 1
        monkeypatch.setattr("stoker_gateway.routes.uploads.time.time", lambda: later)
        answer = await gateway.open.put(made["upload_url"], content=b"coal")
        assert answer.status_code == 403
        assert "has expired" in problem(answer)


async def test_a_file_whose_address_is_good_for_days_is_not_swept_before(tmp_path, s3_server, store):
    settings = gateway_settings("local", tmp_path, s3_server, store, upload_ttl_s=3 * DAY_S)
    async with running(settings) as gateway:
        made = await gateway.announce(filename="a", size=4)
        later_ms = round((time.time() + 3 * DAY_S) * 1000)
        assert await remove_expired(store, open_files(settings), later_ms) == 0
        assert (await gateway.open.put(made["upload_url"], content=b"coal")).status_code == 200


@pytest.mark.parametrize(
    ("state", "attempt", "expected"),
    [(S.UPLOADING, 1, 200), (S.QUEUED, 1, 403), (S.UPLOADING, 2, 403), (S.FAILED, 1, 403), (None, 1, 403)],
)
async def test_an_output_is_taken_for_as_long_as_its_attempt_goes_on(
    tmp_path, s3_server, store, monkeypatch, state, attempt, expected
):
    """All outputs of a task are announced at once, and the last of them may begin hours later."""
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        made = await gateway.announce(filename="a", size=4)
        record = await store.files.get(made["id"])
        await store.files.put(structs.replace(record, role="output", task_id="t", attempt=1))
        if state:
            task = store._keys.task(TaskId("t"))
            await store._connection.command("HSET", task, "state", int(state), "attempt", attempt)
        later = time.time() + gateway.settings.upload_ttl_s + 1
        monkeypatch.setattr("stoker_gateway.routes.uploads.time.time", lambda: later)
        asked = await gateway.open.head(made["upload_url"])
        sent = await gateway.open.put(made["upload_url"], content=b"coal")
        assert (asked.status_code, sent.status_code) == (expected, expected)


async def test_a_file_does_not_change_once_it_is_there(gateway):
    made = await gateway.announce(filename="a", size=4)
    assert (await gateway.open.put(made["upload_url"], content=b"coal")).status_code == 200
    again = await gateway.open.put(made["upload_url"], content=b"cola")
    assert again.status_code == 409
    assert (await patch(gateway, made, 0, b"cola")).status_code == 409
    assert (await download(gateway, made)).content == b"coal"
    assert await gateway.offset(made["upload_url"]) == 4


async def test_a_file_that_is_too_large_is_refused_before_and_while_it_comes(tmp_path, s3_server, store):
    settings = gateway_settings("local", tmp_path, s3_server, store, max_upload_bytes=1024)
    async with running(settings) as gateway:
        entry = {"files": [{"filename": "a", "size": 1025}]}
        assert (await gateway.client.post("/files", json=entry)).status_code == 413
        made = await gateway.announce(filename="a")
        assert (await gateway.open.put(made["upload_url"], content=b"x" * 1025)).status_code == 413

        async def body():
            yield b"x" * 1025

        assert (await gateway.open.put(made["upload_url"], content=body())).status_code == 413


async def test_a_broken_put_goes_on_where_it_broke_and_is_never_seen_before(gateway):
    made = await gateway.announce(filename="a", size=len(CONTENT), content_type="text/plain")
    head = ("PUT", {"content-length": len(CONTENT), "content-type": "text/plain"})
    await gateway.break_off(made["upload_url"], head, CONTENT[:2_000_000])
    await gateway.arrived(made["id"], 1_000_000)
    offset = await gateway.offset(made["upload_url"])
    assert 0 < offset <= 2_000_000
    assert (await download(gateway, made)).status_code == 404
    assert (await gateway.open.head(made["uri"])).status_code == 404
    answer = await patch(gateway, made, offset, CONTENT[offset : offset + 10])
    assert answer.status_code == 204
    assert answer.headers["upload-offset"] == str(offset + 10)
    assert (await download(gateway, made)).status_code == 404
    answer = await patch(gateway, made, offset + 10, CONTENT[offset + 10 :])
    assert answer.headers["upload-offset"] == str(len(CONTENT))
    assert (await download(gateway, made)).content == CONTENT
    assert not list((gateway.settings.files_dir / "uploads").iterdir())


async def test_bytes_go_nowhere_but_to_the_end_of_what_is_here(gateway):
    made = await gateway.announce(filename="a", size=10)
    assert (await patch(gateway, made, 0, b"01234")).status_code == 204
    for offset in (4, 6):
        answer = await patch(gateway, made, offset, b"x")
        assert answer.status_code == 409
        assert answer.json()["offset"] == 5
    assert (await patch(gateway, made, 5, b"56789x")).status_code == 400
    assert (await patch(gateway, made, 5, b"56789")).status_code == 204
    assert (await download(gateway, made)).content == b"0123456789"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content-type": "text/plain"}, 415), ({"tus-resumable": "0.2.2"}, 412), ({"upload-offset": "x"}, 400)],
)
async def test_what_is_not_tus_is_refused(gateway, headers, status):
    made = await gateway.announce(filename="a", size=10)
    answer = await patch(gateway, made, 0, b"01234", **headers)
    assert answer.status_code == status
    assert problem(answer)


async def test_who_goes_on_ends_the_request_that_hangs(gateway):
    """A connection that is dead on the client's side alone must not keep the client from going on."""
    made = await gateway.announce(filename="a", size=len(CONTENT))
    head = ("PATCH", TUS | {"content-length": len(CONTENT), "upload-offset": 0})
    reader, writer = await gateway.begin(made["upload_url"], head, CONTENT[:1_500_000])
    await gateway.arrived(made["id"], 1_000_000)
    offset = await gateway.offset(made["upload_url"])
    assert (await patch(gateway, made, offset, CONTENT[offset:])).status_code == 204
    writer.write(CONTENT[1_500_000:])
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)
    assert b" 409 " in answer
    writer.close()
    assert (await download(gateway, made)).content == CONTENT


async def test_a_gateway_that_is_started_again_goes_on(tmp_path, s3_server, store):
    settings = gateway_settings("s3", tmp_path, s3_server, store)
    async with running(settings) as gateway:
        made = await gateway.announce(filename="a", size=10)
        await patch(gateway, made, 0, b"01234")
    async with running(settings) as gateway:
        url = gateway.url + made["upload_url"][made["upload_url"].index("/upload/") :]
        assert await gateway.offset(url) == 5
        await patch(gateway, made | {"upload_url": url}, 5, b"56789")
        answer = await gateway.open.get(made["uri"][made["uri"].index("/files/") :])
        assert answer.content == b"0123456789"


async def test_a_file_that_was_whole_when_the_gateway_died_is_completed_by_the_question(gateway):
    made = await gateway.announce(filename="a", size=10)
    (gateway.settings.files_dir / "uploads" / made["id"]).write_bytes(b"0123456789")
    assert (await download(gateway, made)).status_code == 404
    assert await gateway.offset(made["upload_url"]) == 10
    assert (await download(gateway, made)).content == b"0123456789"


async def test_a_store_that_is_away_keeps_the_upload_in_the_spool(tmp_path, s3_server, store):
    settings = gateway_settings("s3", tmp_path, s3_server, store)
    name = settings.files_url.removeprefix("s3://").partition("/")[0]
    s3 = s3_server().client
    async with running(settings) as gateway:
        made = await gateway.announce(filename="a", size=4)
        s3.delete_bucket(Bucket=name)
        answer = await gateway.open.put(made["upload_url"], content=b"coal")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "files_unavailable")
        s3.create_bucket(Bucket=name)
        assert await gateway.offset(made["upload_url"]) == 4
        assert (await download(gateway, made)).content == b"coal"


async def test_a_file_that_is_deleted_while_it_comes_leaves_nothing(gateway):
    made = await gateway.announce(filename="a", size=10)
    await patch(gateway, made, 0, b"01234")
    assert (await gateway.client.delete(f"/files/{made['id']}")).status_code == 200
    assert (await patch(gateway, made, 5, b"56789")).status_code == 404
    assert not list((gateway.settings.files_dir / "uploads").iterdir())


async def test_stale_uploads_are_swept_and_fresh_ones_stay(tmp_path, file_store):
    from stoker_gateway.uploads import Uploads

    uploads = Uploads(file_store, tmp_path / "spool", max_bytes=100, ttl_s=3600)
    for name, age_s in (("old", 3700), ("fresh", 3500)):
        path = tmp_path / "spool" / name
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)
    assert uploads.sweep(time.time()) == 1
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["fresh"]


async def test_a_type_that_no_header_can_carry_is_refused(gateway):
    body = {"files": [{"uri": "", "content_type": "a/b\nx: y", "size": 1}]}
    answer = await gateway.client.post("/files", json=body)
    assert answer.status_code == 400
    assert "content_type" in answer.json()["detail"]


async def test_a_file_that_another_request_completed_meanwhile_does_not_change(store):
    """Both began before either had ended; the second one's bytes must not replace what was served already."""
    file = StoredFile(
        id="f1", secret="s", owner_id="u", filename="a", content_type="text/plain", size=3, created_ms=0
    )
    await store.files.put(structs.replace(file, uploaded=True))
    dropped = []
    services = SimpleNamespace(store=store, uploads=SimpleNamespace(drop=dropped.append))
    with pytest.raises(Conflict, match="uploaded already"):
        await complete(services, file, 3)
    assert dropped == ["f1"]
