import pytest

from stoker.core.errors import Forbidden, InvalidRequest, NotFound, TooLarge
from stoker.core.messages import StoredFile
from stoker_gateway.file_store import FileStore, download_url, parse_range, read_range

FILE = StoredFile(
    id="ab12", secret="s", owner_id="u", filename="a b.png", content_type="image/png", size=3, created_ms=0
)


@pytest.fixture
def files(tmp_path):
    return FileStore(tmp_path / "files", tmp_path / "secret", max_bytes=10)


async def chunks(*parts):
    for part in parts:
        yield part


def signed(files, file=FILE):
    query = dict(pair.split("=") for pair in files.upload_url("http://h", file).partition("?")[2].split("&"))
    return query["expires"], query["signature"]


async def test_bytes_come_back_as_they_were_stored(files):
    assert await files.save(FILE, chunks(b"a", b"bc")) == 3
    handle, size = files.open(FILE.id)
    assert b"".join([c async for c in read_range(handle, 0, size)]) == b"abc"


async def test_another_size_than_announced_leaves_nothing(files):
    with pytest.raises(InvalidRequest, match="4 bytes came, 3 were announced"):
        await files.save(FILE, chunks(b"abcd"))
    with pytest.raises(NotFound):
        files.open(FILE.id)


async def test_too_many_bytes_are_refused_while_they_come(files):
    with pytest.raises(TooLarge, match="at most 10"):
        await files.save(FILE, chunks(b"x" * 6, b"x" * 6))


def test_an_upload_address_is_good_for_its_file_alone(files):
    expires, signature = signed(files)
    files.check_upload(FILE, expires, signature)
    other = StoredFile(
        id="cd34", secret="s", owner_id="u", filename="", content_type="", size=3, created_ms=0
    )
    for file, when, what in (
        (other, expires, signature),
        (FILE, "1", signature),
        (FILE, expires, "x"),
        (FILE, "", ""),
    ):
        with pytest.raises(Forbidden):
            files.check_upload(file, when, what)


def test_the_secret_is_kept_and_private(tmp_path):
    first = FileStore(tmp_path / "f", tmp_path / "secret", 10)
    second = FileStore(tmp_path / "f", tmp_path / "secret", 10)
    second.check_upload(FILE, *signed(first))
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_names_are_encoded_in_addresses():
    assert download_url("http://h", FILE) == "http://h/files/ab12/s/a%20b.png"


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", None), ("bytes=0-3", (0, 4)), ("bytes=4-", (4, 6)), ("bytes=-2", (8, 2)), ("bytes=8-99", (8, 2)),
     ("bytes=0-1,3-4", None), ("items=1-2", None), ("bytes=-", None), ("bytes=a-b", None), ("bytes=-99", (0, 10))],
)  # fmt: skip
def test_ranges(header, expected):
    assert parse_range(header, 10) == expected


def test_a_range_outside_the_file_is_refused():
    with pytest.raises(InvalidRequest):
        parse_range("bytes=10-", 10)
