"""Increments on their way to the store: in order, none left out, bounded."""

import pytest

from stoker_worker.deltas import BATCH_BYTES, BUFFER_BYTES, DeltaBuffer

pytestmark = pytest.mark.unit


def test_increments_leave_in_order_with_the_output_so_far():
    buffer = DeltaBuffer()
    assert not buffer
    buffer.add(b"1")
    buffer.add(b"2")
    buffer.set_partial(b'"12"')
    write = buffer.take()
    assert (write.first, write.last, write.deltas, write.partial) == (1, 2, (b"1", b"2"), b'"12"')
    buffer.add(b"3")
    write = buffer.take()
    assert (write.first, write.last, write.deltas, write.partial) == (3, 3, (b"3",), b"")
    assert not buffer


def test_a_write_is_bounded():
    buffer = DeltaBuffer()
    for _ in range(3):
        buffer.add(b"x" * (BATCH_BYTES // 2))
    assert buffer.full
    assert [len(buffer.take().deltas), len(buffer.take().deltas)] == [2, 1]


def test_what_is_lost_leaves_a_gap_in_the_numbers():
    buffer = DeltaBuffer()
    big = b"x" * (BUFFER_BYTES // 2)
    buffer.add(big)
    buffer.add(big)
    buffer.add(b"lost")
    first, second = buffer.take(), buffer.take()
    assert (first.first, first.last, second.first, second.last) == (1, 1, 2, 3)
    assert not buffer
    buffer.add(b"4")
    assert buffer.take().first == 4


def test_a_write_never_spans_a_gap():
    buffer = DeltaBuffer()
    for _ in range(2):
        buffer.add(b"x" * (BUFFER_BYTES // 2))
    buffer.add(b"lost")
    buffer.take()
    buffer.add(b"4")
    assert [(buffer.take().first, bool(buffer)), (buffer.take().first, bool(buffer))] == [
        (2, True),
        (4, False),
    ]
