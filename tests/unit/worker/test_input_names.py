"""Names that any shell and any app can take, and files that come in their own address."""

import base64

import pytest

from stoker_worker.input_names import BadDataUri, plain_name, read_data_uri, safe_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.png", "photo.png"),
        ("my holiday photo.JPG", "my_holiday_photo.JPG"),
        ("a;rm -rf $HOME`x`'\"&|<>*?.png", "a_rm_-rf__HOME_x_________.png"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        ("", "file"),
        ("-rf.txt", "rf.txt"),
        (".hidden", "hidden"),
        ("archive.tar.gz", "archive.tar.gz"),
        ("ends.with.dots...", "ends.with.dots"),
        ("nul\x00l\nine.txt", "nul_l_ine.txt"),
        ("über großes Bild.png", "über_großes_Bild.png"),
    ],
)
def test_a_name_is_one_plain_word(name, expected):
    assert safe_name(name) == expected


def test_a_long_name_is_cut_and_keeps_its_extension():
    name = safe_name("ü" * 300 + ".jpeg")
    assert name.endswith("ü.jpeg")
    assert len(name.encode()) <= 120


def test_a_name_without_an_extension_gets_that_of_its_type():
    assert safe_name("download", "image/jpeg") == "download.jpg"
    assert safe_name("download", "application/octet-stream") == "download"
    assert safe_name("download.dat", "image/png") == "download.dat"
    assert safe_name("", "image/png") == "file.png"


def test_a_name_for_people_keeps_its_blanks():
    assert plain_name("/a/my photo (1).png") == "my photo (1).png"
    assert plain_name("..") == ""
    assert plain_name("a\x1bb\n") == "ab"


BYTES = bytes(range(256)) * 3 + b"\xfb\xff\xfe"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("data:image/png;base64," + base64.b64encode(BYTES).decode(), ("image/png", BYTES)),
        ("data:image/png;base64," + base64.urlsafe_b64encode(BYTES).decode(), ("image/png", BYTES)),
        ("data:;base64,SGVsbG8", ("text/plain", b"Hello")),
        ("data:;base64,SGVsbG8=", ("text/plain", b"Hello")),
        ("data:;base64,SGVs%0AbG8%3D", ("text/plain", b"Hello")),
        ("data:;base64,SGVs\n bG8=", ("text/plain", b"Hello")),
        ("DATA:Image/PNG;BASE64,SGVsbG8=", ("image/png", b"Hello")),
        ("data:,Hello%20World", ("text/plain", b"Hello World")),
        ("data:text/plain;charset=utf-8,gr%C3%BCn", ("text/plain", "grün".encode())),
        ("data:text/plain;charset=utf-8;base64,SGVsbG8=", ("text/plain", b"Hello")),
        ("data:,", ("text/plain", b"")),
        ("data:,a,b", ("text/plain", b"a,b")),
    ],
)
def test_every_form_of_a_data_address_is_read(uri, expected):
    assert read_data_uri(uri, 10_000) == expected


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/png;base64", "a comma is missing"),
        ("data:;base64,!!!!", "base64 cannot be decoded"),
        ("data:;base64,A", "base64 cannot be decoded"),
        ("data:," + "x" * 11, "11 bytes; at most 10"),
        ("data:," + "x" * 1000, "larger than 10 bytes"),
    ],
)
def test_a_data_address_that_cannot_be_read_says_why(uri, reason):
    with pytest.raises(BadDataUri, match=reason):
        read_data_uri(uri, 10)
