"""The frames between daemon and runner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_worker.runner.frames import MAX_FRAME_BYTES, Decoder, FrameTooLarge, pack


def payloads(decoder):
    found = []
    while (payload := decoder.next()) is not None:
        found.append(payload)
    return found


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(1, 20))
def test_frames_survive_any_cut(messages, size):
    stream = b"".join(pack(message) for message in messages)
    decoder = Decoder()
    found = []
    for start in range(0, len(stream), size):
        decoder.feed(stream[start : start + size])
        found += payloads(decoder)
    assert found == messages


def test_half_a_frame_is_none():
    decoder = Decoder()
    decoder.feed(pack(b"abc")[:-1])
    assert decoder.next() is None


def test_a_frame_above_the_limit_is_refused_at_both_ends():
    decoder = Decoder()
    decoder.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(FrameTooLarge):
        decoder.next()
    with pytest.raises(FrameTooLarge):
        pack(bytes(MAX_FRAME_BYTES + 1))
