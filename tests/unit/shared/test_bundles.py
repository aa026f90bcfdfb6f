"""Reading bundles: whatever could do harm is refused, by the gateway and by the worker alike."""

import gzip
import io
import tarfile
import tempfile
import zlib
from pathlib import Path

import pytest

from stoker import bundles
from stoker.bundles import DEFAULT_LIMITS, BadBundle, Limits, inspect, unpack


def entry(name, data=b"x", kind=tarfile.REGTYPE, link="", **fields):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = len(data) if kind == tarfile.REGTYPE else 0
    for field, value in fields.items():
        setattr(member, field, value)
    return member, data


def bundle(path, *entries, format_=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w:gz", format=format_) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data) if member.size else None)
    return path


def refused(tmp_path, path, words, limits=DEFAULT_LIMITS):
    """Both ways of reading refuse it, and nothing leaves the folder."""
    with pytest.raises(BadBundle, match=words):
        inspect(path, limits)
    with pytest.raises(BadBundle, match=words):
        unpack(path, Path(tempfile.mkdtemp(dir=tmp_path)) / "deep" / "out", limits)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("name", "kind", "link", "words"),
    [
        ("../evil", tarfile.REGTYPE, "", "out of its folder"),
        ("/evil", tarfile.REGTYPE, "", "out of its folder"),
        ("a/../../evil", tarfile.REGTYPE, "", "out of its folder"),
        (".", tarfile.REGTYPE, "", "out of its folder"),
        ("../evil", tarfile.DIRTYPE, "", "out of its folder"),
        ("evil", tarfile.SYMTYPE, "/etc/passwd", "neither a plain file"),
        ("evil", tarfile.SYMTYPE, "inside", "neither a plain file"),
        ("evil", tarfile.LNKTYPE, "/etc/passwd", "neither a plain file"),
        ("evil", tarfile.FIFOTYPE, "", "neither a plain file"),
        ("evil", tarfile.CHRTYPE, "", "neither a plain file"),
        ("evil", tarfile.BLKTYPE, "", "neither a plain file"),
        ("evil", tarfile.CONTTYPE, "", "neither a plain file"),
        ("n" * 1025, tarfile.REGTYPE, "", "at most 1024"),
    ],
)
def test_what_no_bundle_may_hold_is_refused(tmp_path, name, kind, link, words):
    refused(tmp_path, bundle(tmp_path / "b", entry("good"), entry(name, kind=kind, link=link)), words)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    bad = entry("bad\udcff")
    refused(tmp_path, bundle(tmp_path / "b", bad, format_=tarfile.GNU_FORMAT), "not UTF-8")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "a"), "'a' twice"),
        (("a/b", "./a/b"), "'a/b' twice"),
        (("a", "a/b"), "as a file and as a folder"),
        (("a/b/c", "a/b"), "as a file and as a folder"),
    ],
)
def test_one_name_cannot_be_two_files(tmp_path, names, words):
    refused(tmp_path, bundle(tmp_path / "b", *(entry(name) for name in names)), words)


def test_too_many_and_too_large_are_refused(tmp_path):
    many = bundle(tmp_path / "many", *(entry(f"f{n}") for n in range(4)))
    refused(tmp_path, many, "more than 3 files", Limits(max_files=3))
    refused(tmp_path, many, "more than 3 bytes", Limits(max_bytes=3))
    assert inspect(many, Limits(max_files=4, max_bytes=4)).size == 4


def test_folders_count_and_are_no_content(tmp_path):
    folders = [entry(f"d{n}", kind=tarfile.DIRTYPE) for n in range(3)]
    path = bundle(tmp_path / "b", *folders, entry("d0/x"))
    assert [e.name for e in inspect(path).entries] == ["d0/x"]
    assert inspect(path).version_id == inspect(bundle(tmp_path / "c", entry("d0/x"))).version_id
    refused(tmp_path, path, "more than 3 files", Limits(max_files=3))


def test_a_stream_that_grows_out_of_proportion_is_refused(tmp_path):
    zeros = bundle(tmp_path / "zeros", entry("zeros", bytes(bundles.RATIO_FREE_BYTES * 2)))
    assert zeros.stat().st_size < 100_000
    refused(tmp_path, zeros, "200 times its size")
    small = bundle(tmp_path / "small", entry("zeros", bytes(bundles.RATIO_FREE_BYTES // 2)))
    assert inspect(small).size == bundles.RATIO_FREE_BYTES // 2


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_cannot_be_large(tmp_path, kind):
    """They would be held in memory whole, before anybody looks at a name."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 8 * 1024**2
    raw = header.tobuf(tarfile.USTAR_FORMAT) + b"1" * header.size
    (tmp_path / "b").write_bytes(gzip.compress(raw, 1))
    refused(tmp_path, tmp_path / "b", "headers are larger")


def test_a_chain_of_headers_ends(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 10
    one = header.tobuf(tarfile.USTAR_FORMAT) + b"10 a=bcde\n".ljust(512, b"\0")
    (tmp_path / "b").write_bytes(gzip.compress(one * 5000, 1))
    refused(tmp_path, tmp_path / "b", "headers are larger|cannot be unpacked")


def test_sparse_files_are_refused(tmp_path):
    member, data = entry("evil", b"x")
    member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**15), "GNU.sparse.name": "evil"}
    refused(tmp_path, bundle(tmp_path / "b", (member, data)), "neither a plain file|cannot be unpacked")


def test_time_is_bounded(tmp_path):
    refused(tmp_path, bundle(tmp_path / "b", entry("a")), "took longer than 0 s", Limits(max_seconds=0))


def test_a_stream_of_nothing_ends_in_time_too(tmp_path):
    """Empty gzip members one after another, and a name in the gzip header that does not end."""
    (tmp_path / "members").write_bytes(gzip.compress(b"") * 1000)
    refused(tmp_path, tmp_path / "members", "after its end|cannot be unpacked")
    (tmp_path / "name").write_bytes(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 100_000)
    refused(tmp_path, tmp_path / "name", "cannot be unpacked")


def test_damage_is_told(tmp_path):
    good = bundle(tmp_path / "good", entry("a", b"x" * 1000)).read_bytes()
    broken = bytearray(good)
    broken[-5] ^= 1  # the checksum
    for number, data in enumerate(
        (b"", b"no gzip", good[:-20], good[:-4], bytes(broken), zlib.compress(b"x"))
    ):
        (tmp_path / str(number)).write_bytes(data)
        with pytest.raises(BadBundle, match="cannot be unpacked"):
            unpack(tmp_path / str(number), tmp_path / f"out{number}")


@pytest.mark.parametrize("extra", [b"more", gzip.compress(b"more")], ids=["text", "archive"])
def test_nothing_may_follow(tmp_path, extra):
    path = bundle(tmp_path / "b", entry("a"))
    path.write_bytes(path.read_bytes() + extra)
    refused(tmp_path, path, "after its end")


def test_nothing_may_hide_behind_the_end_of_the_archive(tmp_path):
    raw = gzip.decompress(bundle(tmp_path / "b", entry("a")).read_bytes())
    (tmp_path / "b").write_bytes(gzip.compress(raw + b"hidden"))
    refused(tmp_path, tmp_path / "b", "after its end")


def test_the_id_is_that_of_the_content(tmp_path):
    first = inspect(bundle(tmp_path / "1", entry("a", b"1", mtime=5, uid=7), entry("b", b"2", mode=0o600)))
    second = inspect(bundle(tmp_path / "2", entry("./b", b"2", mode=0o666), entry("a", b"1", uname="me")))
    assert first.version_id == second.version_id
    for other in (entry("a", b"2"), entry("c", b"1"), entry("a", b"1", mode=0o755)):
        assert inspect(bundle(tmp_path / "3", other, entry("b", b"2"))).version_id != first.version_id


def test_only_small_texts_are_kept(tmp_path):
    path = bundle(tmp_path / "b", entry("inf.yml", b"1" * 100))
    assert inspect(path, texts=("inf.yml",), max_text=100).texts == {"inf.yml": b"1" * 100}
    with pytest.raises(BadBundle, match="has 100 bytes; at most 99"):
        inspect(path, texts=("inf.yml",), max_text=99)
