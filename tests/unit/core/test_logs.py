"""Blocks of the complete log, and how chunks and tail become one log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.logs import (
    BadChunk,
    Chunk,
    Joiner,
    blocks,
    check_chunk,
    encode_gap,
    encode_lines,
    tail_gap_text,
    whole_bytes,
)
from stoker.core.messages import LogLine, LogType

RUN = LogType.RUN


def line(number, text="", attempt=1):
    return LogLine(number=number, at_ms=5, type=RUN, text=text or f"line {number}", attempt=attempt)


def block_of(first, last):
    return encode_lines(first, RUN, "\n".join(f"line {n}" for n in range(first, last + 1)), 5)


def joined(chunks=(), tail=(), pos=0, last=0):
    joiner = Joiner(1, pos)
    found = [line for chunk in chunks for line in joiner.chunk(blocks(chunk))]
    found += joiner.tail(tail)
    return [(line.number, line.text) for line in [*found, *joiner.end(last, 9)]]


def plain(*numbers):
    return [(n, f"line {n}") for n in numbers]


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), min_size=1))
def test_lines_come_out_of_a_block_as_they_went_in(texts):
    data = encode_lines(7, LogType.BUILD, "\n".join(texts), 12)
    found = list(Joiner(2, 6).chunk(blocks(data)))
    assert [(one.number, one.at_ms, one.type, one.text, one.attempt) for one in found] == [
        (number, 12, LogType.BUILD, text, 2) for number, text in enumerate(texts, 7)
    ]
    assert check_chunk(data, 7) == Chunk(first=7, last=6 + len(texts), size=len(data))


def test_a_gap_counts_lines_and_bytes():
    data = block_of(1, 2) + encode_gap(3, 40, 4000, 5)
    assert check_chunk(data, 1) == Chunk(first=1, last=42, dropped=40, size=len(data))
    [*lines, (number, text)] = joined([data], last=42)
    assert lines == plain(1, 2)
    assert number == 42
    assert text.startswith("... 40 lines (4000 bytes) were dropped here")


def test_gaps_that_follow_each_other_are_told_as_one():
    chunks = [block_of(1, 1), encode_gap(2, 9, 90, 5), encode_gap(11, 10, 100, 5)]
    assert [text[:30] for _, text in joined(chunks)[1:]] == ["... 19 lines (190 bytes) were "]


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (b"", 1),
        (b"nonsense\n", 1),
        (b"1 1 5 9 2\na\n", 1),
        (b"1 1 5 1 200\na\n", 1),
        (b"1 2 5 1 2\na\n", 1),
        (block_of(2, 3), 1),
        (block_of(1, 2) + block_of(4, 4), 1),
        (block_of(1, 2) + block_of(2, 4), 1),
        (b"1 0 5 - 2\n", 1),
        (b"-1 1 5 1 2\na\n", 1),
    ],
)
def test_a_damaged_chunk_is_refused(data, first):
    with pytest.raises(BadChunk):
        check_chunk(data, first)


@given(st.integers(0, 200))
def test_a_write_that_broke_off_leaves_whole_blocks(length):
    data = block_of(1, 3) + encode_gap(4, 2, 9, 5) + block_of(6, 8)
    cut = data[: min(length, len(data))]
    whole = whole_bytes(cut)
    assert whole in {0, len(block_of(1, 3)), len(data) - len(block_of(6, 8)), len(data)}
    assert whole <= len(cut)


def test_chunks_and_tail_overlap_without_doubling():
    chunks = [block_of(1, 4), block_of(3, 6)]
    assert joined(chunks, [line(n) for n in range(2, 9)]) == plain(*range(1, 9))


def test_lines_go_on_after_a_position():
    assert joined([block_of(1, 4), block_of(5, 9)], [line(10)], pos=6) == plain(7, 8, 9, 10)


def test_the_tails_own_mark_gives_way_to_the_lines_that_it_stands_for():
    tail = [line(1), line(9, tail_gap_text(8)), line(10)]
    assert joined([block_of(1, 9)], tail) == plain(*range(1, 11))


def test_lines_that_nobody_has_are_counted():
    [first, (number, text), last] = joined([block_of(1, 1)], [line(9, tail_gap_text(3)), line(10)])
    assert (first, last) == ((1, "line 1"), (10, "line 10"))
    assert number == 9
    assert text.startswith("... 8 lines are missing here")


def test_what_was_dropped_stays_dropped_while_the_tail_has_it():
    chunks = [block_of(1, 1), encode_gap(2, 8, 80, 5)]
    assert [number for number, _ in joined(chunks, [line(8), line(9)])] == [1, 9]
    assert [number for number, _ in joined(chunks, [line(8), line(10)])] == [1, 9, 10]


def test_a_hole_and_a_gap_are_told_as_one():
    chunks = [block_of(1, 1), encode_gap(4, 2, 20, 5), block_of(6, 6)]
    assert [text[:15] for _, text in joined(chunks)] == ["line 1", "... 4 lines are", "line 6"]


def test_the_end_is_known_before_its_lines_are_there():
    assert [number for number, _ in joined([block_of(1, 2)], last=7)] == [1, 2, 7]


@given(st.lists(st.tuples(st.sampled_from(["kept", "gap", "lost", "tail", "both"]), st.integers(1, 5))))
def test_every_number_is_out_once_or_in_one_hole(parts):
    """Whatever is stored where: lines and holes lie end to end."""
    number, chunks, tail = 1, [], []
    for kind, count in parts:
        last = number + count - 1
        numbers = range(number, last + 1)
        if kind in {"kept", "both"}:
            chunks.append(block_of(number, last))
        if kind == "gap":
            chunks.append(encode_gap(number, count, count, 5))
        if kind in {"tail", "both"}:
            tail += [line(n) for n in numbers]
        number = last + 1
    joiner, out = Joiner(1), []
    for chunk in chunks:
        first = next(iter(blocks(chunk))).first
        out += joiner.tail([one for one in tail if one.number < first])
        out += joiner.chunk(blocks(chunk))
    out += joiner.tail(tail)
    out += joiner.end(number - 1, 9)
    before = 0
    for one in out:
        if one.text.startswith("... "):
            assert one.text.startswith(f"... {one.number - before} lines ")
        else:
            assert one.number == before + 1
        before = one.number
    assert before == number - 1
