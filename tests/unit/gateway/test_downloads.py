import pytest

from stoker.core.messages import StoredFile
from stoker_gateway.downloads import decide_download, disposition, download_url, parse_range

FILE = StoredFile(
    id="ab12", secret="s", owner_id="u", filename="a b.png", content_type="image/png", size=10, created_ms=0
)
ETAG = '"ab12"'


def plan(**sent):
    return decide_download(
        FILE, 10, {name.replace("_", "-"): value for name, value in sent.items()}, attachment=False
    )


@pytest.mark.parametrize(
    ("header", "status", "start", "length"),
    [
        ("", 200, 0, 10), ("bytes=0-3", 206, 0, 4), ("bytes=4-", 206, 4, 6), ("bytes=-2", 206, 8, 2),
        ("bytes=8-99", 206, 8, 2), ("bytes=-99", 206, 0, 10), ("BYTES = 0-0", 206, 0, 1), ("bytes=9-9", 206, 9, 1),
        ("bytes=10-", 416, 0, 0), ("bytes=10-12", 416, 0, 0), ("bytes=-0", 416, 0, 0),
        ("bytes=0-1,3-4", 200, 0, 10), ("items=1-2", 200, 0, 10), ("bytes=-", 200, 0, 10),
        ("bytes=a-b", 200, 0, 10), ("bytes=5-3", 200, 0, 10), ("bytes=²-", 200, 0, 10),
    ],
)  # fmt: skip
def test_a_range_is_answered_ignored_or_refused(header, status, start, length):
    made = plan(range=header)
    assert (made.status, made.start, made.length) == (status, start, length)
    if status == 206:
        assert made.headers["content-range"] == f"bytes {start}-{start + length - 1}/10"
    if status == 416:
        assert made.headers["content-range"] == "bytes */10"
    if status in {200, 206}:
        assert made.headers["content-length"] == str(length)


@pytest.mark.parametrize("size", [0])
def test_an_empty_file_has_no_range(size):
    assert decide_download(FILE, size, {"range": "bytes=0-"}, attachment=False).status == 416
    assert decide_download(FILE, size, {}, attachment=False).length == 0


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (ETAG, 304),
        (f'"x", {ETAG}', 304),
        (f"W/{ETAG}", 304),
        ("*", 304),
        ('"x"', 200),
        ("", 200),
        ("ab12", 200),
    ],
)
def test_who_has_the_file_is_told_so(header, status):
    assert plan(if_none_match=header).status == status
    assert plan(if_none_match=header).headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("header", "status"),
    [(ETAG, 206), ('"x"', 200), (f"W/{ETAG}", 200), ("Mon, 23 Nov 2026 00:00:00 GMT", 200)],
)
def test_a_range_of_another_file_is_the_whole_one(header, status):
    assert plan(range="bytes=0-3", if_range=header).status == status


def test_a_public_file_may_be_kept_by_caches_that_people_share():
    assert plan().headers["cache-control"].startswith("private")
    public = StoredFile(**{name: getattr(FILE, name) for name in FILE.__struct_fields__} | {"public": True})
    assert decide_download(public, 10, {}, attachment=False).headers["cache-control"].startswith("public")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b.png", "inline; filename=\"a b.png\"; filename*=UTF-8''a%20b.png"),
        ("Bär.png", "inline; filename=\"B_r.png\"; filename*=UTF-8''B%C3%A4r.png"),
        ('a"\r\nx: y', "inline; filename=\"a___x: y\"; filename*=UTF-8''a%22%0D%0Ax%3A%20y"),
    ],
)
def test_a_name_is_told_in_utf8_and_cannot_end_its_header(name, expected):
    assert disposition(name, attachment=False) == expected
    assert disposition(name, attachment=True) == expected.replace("inline", "attachment")


def test_names_are_encoded_in_addresses():
    assert download_url("http://h", FILE) == "http://h/files/ab12/s/a%20b.png"


@pytest.mark.parametrize(
    "header",
    ["bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000, "bytes=٣-"],
    ids=["first", "last", "digits"],
)
def test_a_range_of_absurd_numbers_is_none(header):
    assert parse_range(header, 10) is None
