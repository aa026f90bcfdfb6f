"""The buffer between an app's lines and the store."""

from hypothesis import given
from hypothesis import strategies as st

from stoker.core.messages import LogLine, LogType
from stoker_worker.logs import BATCH_BYTES, BUFFER_BYTES, LINE_CHARS, LogBuffer

RUN = LogType.RUN


def drain(buffer):
    batches = []
    while buffer:
        batches.append(buffer.take(9))
    return batches


def test_lines_are_numbered_from_one_and_keep_their_order():
    buffer = LogBuffer(attempt=2)
    buffer.add(LogType.SETUP, "a", 1)
    buffer.add(RUN, "b", 2)
    assert buffer.take(3).lines == (
        LogLine(number=1, at_ms=1, type=LogType.SETUP, text="a", attempt=2),
        LogLine(number=2, at_ms=2, type=RUN, text="b", attempt=2),
    )
    assert not buffer


def test_numbers_go_on_over_batches():
    buffer = LogBuffer()
    buffer.add(RUN, "a", 1)
    buffer.take(1)
    buffer.add(RUN, "b", 2)
    assert [line.number for line in buffer.take(2).lines] == [2]


def test_the_newest_partial_output_wins_and_is_taken_once():
    buffer = LogBuffer()
    buffer.set_partial(b"1")
    buffer.set_partial(b"2")
    assert buffer.take(0).partial == b"2"
    assert not buffer
    assert buffer.take(0).partial == b""


def test_a_batch_is_bounded():
    buffer = LogBuffer()
    for _ in range(30):
        buffer.add(RUN, "x" * 8000, 0)
    batches = drain(buffer)
    assert len(batches) > 3
    assert all(sum(len(line.text) for line in batch.lines) <= BATCH_BYTES for batch in batches)


def test_a_long_line_is_cut_and_says_so():
    buffer = LogBuffer()
    buffer.add(RUN, "x" * (LINE_CHARS + 5), 0)
    assert buffer.take(0).lines[0].text.endswith("x ... (5 more characters)")


def test_a_flood_is_bounded_and_the_gap_is_in_the_log():
    buffer = LogBuffer()
    for number in range(200):
        buffer.add(RUN, f"{number:04}" * 1000, 0)
    batches = drain(buffer)
    lines = [line for batch in batches for line in batch.lines]
    kept = BUFFER_BYTES // 4040
    assert [line.number for line in lines] == [*range(1, kept + 1), 200]
    assert lines[-1].text.startswith(f"... {200 - kept} lines are missing here")
    assert sum(batch.dropped for batch in batches) == 200 - kept


def test_a_gap_in_the_middle_comes_before_the_lines_after_it():
    buffer = LogBuffer()
    for _ in range(BUFFER_BYTES // 4000 + 1):
        buffer.add(RUN, "x" * 4000, 0)
        if not buffer.whole:
            break
    first = buffer.take(0)
    buffer.add(RUN, "after", 1)
    texts = [line.text for batch in drain(buffer) for line in batch.lines]
    assert first.dropped == 0
    assert texts[-1] == "after"
    assert texts[-2].startswith("... 1 lines are missing here")


@given(
    st.lists(st.one_of(st.integers(0, 9000), st.just("take"), st.just("partial")), max_size=200),
)
def test_no_line_is_lost_uncounted_and_numbers_only_grow(steps):
    buffer, batches, added = LogBuffer(), [], 0
    for step in steps:
        if step == "take":
            batches.append(buffer.take(0))
        elif step == "partial":
            buffer.set_partial(b"{}")
        else:
            buffer.add(RUN, "x" * step, 0)
            added += 1
    batches += drain(buffer)
    lines = [line for batch in batches for line in batch.lines]
    markers = [line for line in lines if line.text.startswith("... ")]
    numbers = [line.number for line in lines]
    assert numbers == sorted(set(numbers))
    assert len(lines) - len(markers) + sum(batch.dropped for batch in batches) == added
