"""Bytes of an app's streams as lines, and how its process ended."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_worker.procs import CUT_MARK, MAX_LINE_BYTES, Lines, ShortPath, clean_environment, describe_exit


def lines_of(data, size=None):
    lines = Lines()
    found = []
    for start in range(0, len(data), size or len(data) or 1):
        found += lines.feed(data[start : start + (size or len(data))])
    return found + lines.finish()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"10%\r20%\r\nend", ["10%", "20%", "end"]),
        (b"\xff\n", ["\ufffd"]),
        ("ä\n".encode(), ["ä"]),
    ],
)
def test_lines_end_with_a_line_feed_or_a_carriage_return(data, lines):
    assert lines_of(data) == lines


@given(st.text(alphabet="ab\r\nä", max_size=40), st.integers(1, 5))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text, size):
    assert lines_of(text.encode(), size) == lines_of(text.encode())


@pytest.mark.parametrize("size", [None, 1000, 65536])
def test_a_long_line_is_cut_once(size):
    data = b"x" * (3 * MAX_LINE_BYTES) + b"\nnext\n"
    assert lines_of(data, size) == ["x" * MAX_LINE_BYTES + CUT_MARK, "next"]


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "ended with SIGKILL (signal 9)"),
        (-11, "ended with SIGSEGV (signal 11)"),
        (-63, "ended with a signal (signal 63)"),
    ],
)
def test_an_end_is_named(returncode, text):
    assert describe_exit(returncode) == text


def test_short_paths_are_made_where_needed_and_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain = Path("/srv/work")
    assert ShortPath(plain).open() == plain
    folder = tmp_path / "a blank"
    folder.mkdir()
    used = ShortPath(folder)
    link = used.open()
    assert link.samefile(folder)
    used.close()
    used.close()
    assert not link.parent.exists()


def open_descriptors(folder):
    """This process' descriptors of a folder."""
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_dir() and path.samefile(folder)]
    return [int(path.name) for path in links]


def test_a_short_path_is_locked_against_cleaners_while_it_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "a blank"
    folder.mkdir()
    used = ShortPath(folder)
    made = used.open().parent
    [held] = open_descriptors(made)
    assert not os.get_inheritable(held)
    cleaner = os.open(made, os.O_RDONLY)  # systemd-tmpfiles leaves alone what it cannot lock for itself
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        used.close()
        fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(cleaner)


def test_the_end_of_a_short_path_that_somebody_removed_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "a blank"
    folder.mkdir()
    used = ShortPath(folder)
    shutil.rmtree(used.open().parent)
    used.close()
    assert folder.exists()


def test_short_paths_of_a_killed_daemon_are_swept_by_its_successor(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept, gone = tmp_path / "a blank", tmp_path / "another blank"
    kept.mkdir()
    gone.mkdir()
    to_kept, to_gone = ShortPath(kept).open(), ShortPath(gone).open()
    gone.rmdir()
    successor = ShortPath(kept).open()
    assert not to_kept.parent.exists()
    assert not to_gone.parent.exists()
    assert successor.samefile(kept)


def test_what_is_the_daemons_own_is_not_handed_on():
    own = {
        "STOKER_KEY": "x",
        "PYTHONPATH": "x",
        "PYTHONHOME": "x",
        "VIRTUAL_ENV": "x",
        "LISTEN_FDS": "3",
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "t",
        "UV_INDEX_PASSWORD": "p",
        "HTTPS_PROXY": "http://proxy",
        "LANG": "de_DE",
    }
    assert clean_environment(own, keep=("UV_",))["UV_INDEX_PASSWORD"] == "p"
    env = clean_environment(own)
    assert env == {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }
