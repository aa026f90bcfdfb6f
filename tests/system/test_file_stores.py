"""What holds for every file store."""

import asyncio
import os

import pytest
from stores import SECRET_KEY, chunks, files_settings, read

from stoker.core.errors import Bug, FilesUnavailable, NotFound
from stoker.core.ids import new_id
from stoker.files import file_key, open_files
from stoker.files.s3 import MAX_PARTS, PART_BYTES, WINDOW_BYTES, part_bytes

KEY = "data/01/some-file"


async def keys(store, prefix="data/"):
    return {held.key async for held in store.list(prefix)}


async def test_bytes_come_back_as_they_were_stored(file_store):
    assert await file_store.put(KEY, chunks(b"a", b"", b"bc")) == 3
    assert await file_store.size(KEY) == 3
    assert await read(file_store, KEY) == b"abc"
    [held] = [held async for held in file_store.list("data/")]
    assert (held.key, held.size) == (KEY, 3)
    assert held.modified_s > 1_000_000_000


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 3, b"012"), (3, None, b"3456789"), (8, 99, b"89"), (10, None, b""), (99, 1, b""), (4, 0, b"")],
)
async def test_a_part_of_a_file_is_read_alone(file_store, start, length, expected):
    await file_store.put(KEY, chunks(b"0123456789"))
    assert await read(file_store, KEY, start, length) == expected


async def test_a_file_larger_than_a_window_and_a_part_is_whole(file_store):
    content = os.urandom(PART_BYTES + WINDOW_BYTES + 12345)
    await file_store.put(KEY, chunks(content[:1000], content[1000:]))
    assert await read(file_store, KEY) == content
    assert await read(file_store, KEY, WINDOW_BYTES - 1, 3) == content[WINDOW_BYTES - 1 : WINDOW_BYTES + 2]


@pytest.mark.parametrize("size", [0, 5, PART_BYTES + 1])
async def test_a_file_is_moved_in_whole(file_store, tmp_path, size):
    path = tmp_path / "spooled"
    path.write_bytes(b"x" * size)
    await file_store.take(KEY, path)
    assert not path.exists()
    assert await file_store.size(KEY) == size
    assert await read(file_store, KEY) == b"x" * size


async def test_a_file_of_the_same_key_is_replaced(file_store):
    await file_store.put(KEY, chunks(b"the first one"))
    await file_store.put(KEY, chunks(b"second"))
    assert await read(file_store, KEY) == b"second"


async def test_a_stream_that_breaks_leaves_nothing(file_store):
    async def broken():
        yield b"x" * (PART_BYTES + 1)
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError, match="the client went away"):
        await file_store.put(KEY, broken())
    with pytest.raises(NotFound):
        await file_store.size(KEY)
    assert await keys(file_store) == set()


async def test_nothing_can_be_read_before_the_stream_ends(file_store):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        yield b"first"
        begun.set()
        await asyncio.wait_for(go_on.wait(), 30)
        yield b"second"

    writing = asyncio.create_task(file_store.put(KEY, slow()))
    await asyncio.wait_for(begun.wait(), 30)
    with pytest.raises(NotFound):
        await read(file_store, KEY)
    go_on.set()
    await writing
    assert await read(file_store, KEY) == b"firstsecond"


async def test_a_deleted_file_is_gone_and_deleting_it_again_is_no_error(file_store):
    await file_store.put(KEY, chunks(b"x"))
    await file_store.delete(KEY)
    await file_store.delete(KEY)
    with pytest.raises(NotFound, match="nothing was uploaded to it, or it was deleted"):
        await file_store.size(KEY)
    with pytest.raises(NotFound):
        await read(file_store, KEY)


async def test_a_list_holds_what_lies_below_its_folder_alone(file_store):
    for key in ("data/01/a", "data/02/b", "logs/01/c"):
        await file_store.put(key, chunks(b"x"))
    assert await keys(file_store) == {"data/01/a", "data/02/b"}
    assert await keys(file_store, "logs/") == {"logs/01/c"}
    assert await keys(file_store, "nothing/") == set()


async def test_each_pool_has_its_own_part_of_a_place(file_store_settings):
    default, one, other = (
        open_files(file_store_settings.model_copy(update={"pool": pool}))
        for pool in ("default", "gpu", "gpu-2")
    )
    await default.put(KEY, chunks(b"default"))
    await one.put(KEY, chunks(b"one"))
    assert (await read(default, KEY), await read(one, KEY)) == (b"default", b"one")
    assert (await keys(default), await keys(one), await keys(other)) == ({KEY}, {KEY}, set())
    assert await keys(default, "pools/") == {f"pools/gpu/{KEY}"}


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", ".hidden", "a/", "a\\b", "a b/\n", "é"])
async def test_what_is_no_key_never_reaches_a_store(file_store, key):
    for call in (file_store.size(key), file_store.delete(key), file_store.put(key, chunks(b"x"))):
        with pytest.raises(Bug):
            await call


def test_no_file_has_too_many_parts_and_no_part_is_too_small():
    for size in (0, 1, PART_BYTES * MAX_PARTS, PART_BYTES * MAX_PARTS + 1, 1024**4):
        assert part_bytes(size) >= PART_BYTES
        assert part_bytes(size) * MAX_PARTS >= size


def test_files_are_spread_over_folders():
    assert len({file_key(new_id()).rsplit("/", 1)[0] for _ in range(200)}) > 100


async def test_a_store_that_is_not_there_says_so_without_the_credentials(tmp_path, s3_server):
    settings = files_settings("s3", tmp_path, s3_server)
    broken = settings.model_copy(update={"files_url": "s3://no-such-bucket/x"})
    with pytest.raises(FilesUnavailable, match="s3://no-such-bucket/x") as caught:
        await open_files(broken).put(KEY, chunks(b"x"))
    told = f"{caught.value} {caught.value.__cause__} {broken!r} {broken.model_dump()}"
    assert SECRET_KEY not in told
