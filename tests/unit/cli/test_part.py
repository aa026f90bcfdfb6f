"""A supervised part: its back-off and its log."""

import asyncio

import pytest

from stoker_cli.up.part import LONGEST_DELAY_S, decide_delay, describe_status
from stoker_cli.up.part_log import FILE_MAX_BYTES, LINE_MAX_BYTES, PartLog, parse_event


def test_the_delay_doubles_up_to_a_bound():
    delays = [decide_delay(failures) for failures in range(12)]
    assert delays[:5] == [0.2, 0.2, 0.4, 0.8, 1.6]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "status 0"), (1, "status 1"), (-9, "SIGKILL"), (-99, "signal 99"), (None, "not started")],
)
def test_an_exit_status_is_told_in_words(status, words):
    assert describe_status(status) == words


async def test_lines_of_any_length_and_any_bytes_are_taken(tmp_path):
    output = PartLog("x", tmp_path / "x.log", lambda _name, _fields: None)
    stream = asyncio.StreamReader()
    stream.feed_data(b"a\xff\x00b\n\n" + b"y" * (3 * LINE_MAX_BYTES) + b"\nlast")
    stream.feed_eof()
    await output.pump(stream)
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert lines[-1] == "last"
    assert max(map(len, lines)) <= LINE_MAX_BYTES


def test_the_log_of_a_part_is_bounded(tmp_path):
    output = PartLog("x", tmp_path / "x.log", lambda _name, _fields: None)
    for _ in range(4 * FILE_MAX_BYTES // LINE_MAX_BYTES):
        output.add(b"z" * LINE_MAX_BYTES)
    files = list(tmp_path.glob("x.log*"))
    assert len(files) == 3
    assert all(file.stat().st_size <= FILE_MAX_BYTES for file in files)


def test_only_warnings_reach_the_terminal(tmp_path):
    heard = []
    output = PartLog("x", tmp_path / "x.log", lambda name, fields: heard.append((name, fields["event"])))
    output.add(b'{"event": "lease.lost", "level": "warning"}')
    output.add(b'{"event": "part.started", "level": "info"}')
    output.add(b"Traceback (most recent call last):")
    assert heard == [("x", "lease.lost")]
    assert output.last_words() == "Traceback (most recent call last):"
    assert output.last_words() == ""


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"text", b"{", b"[1]", b'{"a": 1}', b'"event"'),
        pytest.param(b'{"event":"\xff"}', id="no UTF-8"),
        pytest.param(b'{"event":' * 10_000, id="too deep"),
    ],
)
def test_what_is_no_event_is_text(line):
    assert parse_event(line) is None
