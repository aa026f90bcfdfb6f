"""Uploads of one file by several requests: none records bytes that are not there."""

import asyncio
import hashlib

import pytest
from recorders import until

from stoker.core.errors import Conflict
from stoker.core.messages import StoredFile
from stoker_gateway.uploads import Uploads

FILE = StoredFile(id="f", secret="s", owner_id="u", filename="a", content_type="", size=4, created_ms=0)


class Taken:
    """A file store that remembers what was moved into it."""

    def __init__(self):
        self.files = []

    async def take(self, _key, path):
        self.files.append(path.read_bytes())
        path.unlink()


@pytest.fixture
def taken():
    return Taken()


@pytest.fixture
def uploads(taken, tmp_path):
    return Uploads(taken, tmp_path / "spool", max_bytes=100, ttl_s=60)


async def sent(content, after=None):
    if after is not None:
        await after.wait()
    yield content


async def test_a_request_that_begins_anew_is_not_cut_short_by_the_one_before(uploads, taken):
    await uploads.write(FILE, 0, sent(b"coal"), limit=4)
    go_on = asyncio.Event()
    anew = asyncio.ensure_future(uploads.write(FILE, 0, sent(b"cola", go_on), limit=4))
    await until(lambda: uploads._spooled(FILE.id) == 0)
    with pytest.raises(Conflict, match="Another request goes on"):
        await uploads.finish(FILE, 4)
    go_on.set()
    assert await anew == 4
    assert await uploads.finish(FILE, 4) == hashlib.sha256(b"cola").hexdigest()
    assert taken.files == [b"cola"]


@pytest.mark.parametrize("size", [4, 0])
async def test_what_was_dropped_meanwhile_is_no_file(uploads, taken, size):
    await uploads.write(FILE, 0, sent(b"coal"[:size]), limit=4)
    uploads.drop(FILE.id)
    with pytest.raises(Conflict):
        await uploads.finish(FILE, size)
    assert not taken.files


async def test_a_file_is_moved_once(uploads, taken):
    await uploads.write(FILE, 0, sent(b"coal"), limit=4)
    await uploads.finish(FILE, 4)
    with pytest.raises(Conflict):
        await uploads.finish(FILE, 4)
    assert taken.files == [b"coal"]
