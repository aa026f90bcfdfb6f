"""The complete log of an attempt: kept and dropped is always what was written."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorders import log_spool, order

from stoker.core.logs import CHUNK_BYTES, Joiner, blocks, check_chunk
from stoker.core.messages import LogType
from stoker_worker.attempt_log import LAST_SEAL_S, MEMORY_BYTES, MEMORY_LINES, MEMORY_S, LogSpool

RUN = LogType.RUN


def stored(spool):
    """The chunks that are ready, checked; they leave the disk."""
    found = []
    for segment in spool.take_ready(1000):
        data = segment.read()
        check_chunk(data, segment.owned.first)
        found.append(data)
        spool.done(segment)
    return found


def texts(chunks):
    joiner = Joiner(1)
    found = [line.text for chunk in chunks for line in joiner.chunk(blocks(chunk))]
    return found + [line.text for line in joiner.end(joiner.pos, 0)]


def counted(chunks):
    """Lines that are there and lines that are gaps."""
    all_blocks = [block for chunk in chunks for block in blocks(chunk)]
    return tuple(sum(b.count for b in all_blocks if (b.type is None) is gap) for gap in (False, True))


@pytest.fixture
def spool(tmp_path):
    return log_spool(tmp_path)


def test_a_short_log_stays_in_memory_until_somebody_wants_it(spool, tmp_path):
    log = spool.open(order())
    log.add(RUN, "a\nb", 1)
    assert not (tmp_path / "logs").exists()
    log.seal()
    assert texts(stored(spool)) == ["a", "b"]
    assert (log.written, log.kept, log.dropped, spool.bytes) == (2, 2, 0, 0)


def test_a_log_that_is_elsewhere_is_forgotten_and_may_go_on(spool):
    log = spool.open(order())
    log.add(RUN, "a", 1)
    assert log.forget()
    log.add(RUN, "late", 2)
    log.seal()
    [segment] = spool.take_ready(9)
    assert segment.owned.first == 2
    assert [block.data for block in blocks(segment.read())] == [b"late\n"]


@pytest.mark.parametrize("text", ["x" * MEMORY_BYTES, "\n" * MEMORY_LINES])
def test_a_log_that_the_tail_cannot_hold_is_not_forgotten(spool, text):
    log = spool.open(order())
    log.add(RUN, text, 1)
    assert not log.forget()


def test_what_waits_goes_to_disk_and_then_to_the_gateway_by_age(spool, tmp_path):
    log = spool.open(order())
    log.add(RUN, "a", 1)
    spool.tick(time.monotonic())
    assert not (tmp_path / "logs").exists()
    spool.tick(time.monotonic() + MEMORY_S)
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert not spool.due.is_set()
    spool.tick(time.monotonic() + LAST_SEAL_S)
    assert spool.due.is_set()
    assert texts(stored(spool)) == ["a"]


def test_a_large_segment_is_closed_at_once(tmp_path):
    spool = log_spool(tmp_path, attempt_bytes=2 * CHUNK_BYTES)
    log = spool.open(order())
    for _ in range(CHUNK_BYTES // 1000 + 1):
        if not spool.waiting:
            log.add(RUN, "x" * 1000, 1)
    [chunk] = stored(spool)
    assert CHUNK_BYTES <= len(chunk) < CHUNK_BYTES + 2000


def test_over_the_limit_lines_are_counted_and_the_last_one_says_so(tmp_path):
    spool = log_spool(tmp_path, attempt_bytes=4000)
    log = spool.open(order())
    for number in range(100):
        log.add(RUN, f"{number:03}" + "x" * 96, 1)
    log.add(RUN, "short", 1)
    log.seal()
    [*kept, last] = texts(stored(spool))
    assert [text[:3] for text in kept] == [f"{n:03}" for n in range(log.kept)]
    assert last.startswith(
        f"... {101 - log.kept} lines ({(100 - log.kept) * 100 + 6} bytes) were dropped here"
    )
    assert log.kept + log.dropped == log.written == 101


def test_of_a_block_that_is_too_large_the_first_lines_are_kept(tmp_path):
    spool = log_spool(tmp_path, attempt_bytes=300)
    log = spool.open(order())
    log.add(RUN, "\n".join("ä" * 9 + str(n) for n in range(100)), 1)
    log.seal()
    chunks = stored(spool)
    assert counted(chunks) == (log.kept, log.dropped)
    assert 5 < log.kept < 20
    assert texts(chunks)[: log.kept] == ["ä" * 9 + str(n) for n in range(log.kept)]


def test_all_attempts_together_are_bounded_until_room_is_made(tmp_path):
    spool = log_spool(tmp_path, total_bytes=100_000)
    logs = [spool.open(order(f"t{n}")) for n in range(4)]
    for log in logs:
        for _ in range(2):
            log.add(RUN, "x" * 40_000, 1)
        log.seal()
    assert spool.bytes <= 100_500  # the heads of segments and the gaps are small
    assert [log.kept for log in logs] == [2, 0, 0, 0]
    stored(spool)
    logs[3].add(RUN, "again", 1)
    logs[3].seal()
    assert texts(stored(spool))[-1] == "again"


def test_a_disk_that_fails_makes_a_gap_in_its_place(spool, monkeypatch):
    log = spool.open(order())
    log.add(RUN, "x" * MEMORY_BYTES, 1)
    real, failing = os.write, [True]

    def write(fd, data):
        if failing[0] and data.startswith(b"2 "):
            return real(fd, data[:3])  # what a full disk does
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    log.add(RUN, "lost", 2)
    log.add(RUN, "lost too", 3)
    failing[0] = False
    log.add(RUN, "there", 4)
    log.seal()
    chunks = stored(spool)
    assert counted(chunks) == (log.kept, log.dropped) == (2, 2)
    assert texts(chunks)[1].startswith("... 2 lines ")
    assert texts(chunks)[2] == "there"


def test_no_disk_at_all_loses_lines_and_no_count(tmp_path):
    (tmp_path / "logs").write_text("no folder")
    spool = log_spool(tmp_path)
    log = spool.open(order())
    log.add(RUN, "x" * MEMORY_BYTES, 1)
    log.add(RUN, "b", 1)
    log.seal()
    (tmp_path / "logs").unlink()
    log.seal()
    chunks = stored(spool)
    assert counted(chunks) == (log.kept, log.dropped) == (0, 2)


def test_the_next_daemon_takes_up_what_a_killed_one_left(spool, tmp_path):
    log = spool.open(order("t1", 3))
    log.add(RUN, "x" * MEMORY_BYTES, 1)
    log.add(RUN, "whole", 1)
    [path] = (tmp_path / "logs").iterdir()
    with path.open("ab") as file:
        file.write(b"3 1 5 1 200\nbroken off")
    (tmp_path / "logs" / "x.log").write_text("nonsense")
    later = log_spool(tmp_path)
    later.recover()
    [segment] = later.take_ready(9)
    owned = segment.owned
    assert (owned.task_id, owned.attempt, owned.token, owned.first) == ("t1", 3, "secret3", 1)
    assert texts([segment.read()])[1:] == ["whole"]
    later.done(segment)
    assert list((tmp_path / "logs").iterdir()) == []
    assert later.bytes == 0


def test_tokens_on_disk_are_the_users_alone(spool, tmp_path):
    log = spool.open(order())
    log.add(RUN, "x" * MEMORY_BYTES, 1)
    [path] = (tmp_path / "logs").iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@settings(max_examples=60)
@given(
    st.lists(st.one_of(st.integers(0, 60_000), st.sampled_from(["seal", "tick", "later", "fail", "mend"]))),
    st.integers(1_000, 400_000),
)
def test_kept_and_dropped_is_what_was_written(tmp_path_factory, steps, limit):
    spool = LogSpool(tmp_path_factory.mktemp("s") / "logs", attempt_bytes=limit, total_bytes=300_000)
    log, chunks, real = spool.open(order()), [], spool.create

    def fail(owned):
        raise OSError("no space")

    for step in steps:
        if step == "seal":
            log.seal()
        elif step == "tick":
            spool.tick(time.monotonic() + MEMORY_S)
        elif step == "later":
            chunks += stored(spool)
        elif step in {"fail", "mend"}:
            spool.create = fail if step == "fail" else real
        else:
            log.add(RUN, "\n".join(["y" * 50] * (step // 50 + 1)), 1)
    spool.create = real
    log.seal()
    log.seal()
    chunks += stored(spool)
    assert counted(chunks) == (log.kept, log.dropped)
    assert log.kept + log.dropped == log.written
    number = 1
    for chunk in chunks:
        number = check_chunk(chunk, number).last + 1
    assert number == log.written + 1
    assert spool.bytes == 0
