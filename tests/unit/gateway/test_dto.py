import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.messages import LogLine, LogType, TaskRequest, TaskView
from stoker.core.states import TaskState as S
from stoker_gateway.dialect import Dialect, Numbering
from stoker_gateway.dto import (
    LINE_LIMIT_BYTES,
    EncodedLogs,
    ascii_json,
    iso,
    stream_lines,
    task_dto,
    timings_dto,
)

NEW = Dialect(numbering=Numbering.NEW, ndjson=True)
RECONCILES = Dialect(numbering=Numbering.NEW, ndjson=True, reconciles=True)


def view(state=S.RUNNING, **changes):
    request = TaskRequest(
        id="abcdefghijk", app_id="a", app="infsh/echo", version_id="v", function="run",
        input=changes.pop("input", {"message": "hi"}), setup={}, setup_key="s", env_key="e",
    )  # fmt: skip
    base = {
        "created_ms": 1000,
        "updated_ms": 5000,
        "attempt": 1,
        "history": ((0, 1, 1000), (0, 2, 1000), (1, 7, 3000)),
    }
    return TaskView(request=request, state=state, **(base | changes))


def logs(count, size):
    return tuple(LogLine(number=n, at_ms=0, type=LogType.TASK, text="x" * size) for n in range(1, count + 1))


def decoded(line):
    return json.loads(line)


def test_lines_that_are_encoded_once_read_the_same():
    encoded, given = EncodedLogs(), logs(5, 10)
    encoded.add("abcdefghijk", given[:2])
    encoded.add("abcdefghijk", given[2:])
    whole = stream_lines(view(logs=given), NEW)
    assert stream_lines(view(), NEW, logs=encoded.fitting()) == whole


def test_of_encoded_lines_the_newest_are_kept_as_far_as_an_event_could_hold_them():
    encoded = EncodedLogs()
    encoded.add("abcdefghijk", logs(1000, 1000))
    kept = [decoded(bytes(raw))["id"] for raw in encoded.fitting()]
    assert kept[-1].endswith("-1000")
    assert 50 < len(kept) * 1000 / 1024 <= LINE_LIMIT_BYTES / 1024


def test_a_task_has_the_seven_fields_that_clients_keep():
    dto = task_dto(view(output=msgspec.Raw(b'{"a":1}')), NEW)
    line = decoded(ascii_json(dto))
    assert {k: line[k] for k in ("id", "status", "input", "output", "created_at")} == {
        "id": "abcdefghijk",
        "status": 7,
        "input": {"message": "hi"},
        "output": {"a": 1},
        "created_at": "1970-01-01T00:00:01.000Z",
    }
    assert line["logs"] == []
    assert "data" not in line


@given(st.text())
def test_lines_are_ascii_and_say_the_same(text):
    line = ascii_json({"a": text})
    assert line.isascii()
    assert b"\n" not in line
    assert decoded(line) == {"a": text}


def test_line_breaks_between_the_tokens_of_raw_output_go():
    line = ascii_json({"o": msgspec.Raw(b'{\n "a": 1}')})
    assert (b"\n" in line, decoded(line)) == (False, {"o": {"a": 1}})


def test_a_long_line_loses_its_input_first_and_then_old_log_lines():
    [line] = stream_lines(view(logs=logs(40, 5000), input={"m": "i" * 1000}), NEW)
    dto = decoded(line)
    assert len(line) <= LINE_LIMIT_BYTES
    assert dto["input"] is None
    assert dto["logs"][-1]["id"].endswith("-40")


def test_a_long_partial_output_waits_for_the_end():
    [line] = stream_lines(view(output=msgspec.Raw(json.dumps("o" * 200_000).encode())), NEW)
    assert decoded(line)["output"] is None


def test_a_long_ending_closes_the_stream_for_clients_that_read_again():
    output = msgspec.Raw(json.dumps("o" * 200_000).encode())
    assert stream_lines(view(S.COMPLETED, output=output), RECONCILES) is None
    [line] = stream_lines(view(S.COMPLETED, output=output), NEW)
    assert len(decoded(line)["output"]) == 200_000


def test_the_double_ending_repeats_the_whole_task():
    first, second = stream_lines(view(S.COMPLETED, output=msgspec.Raw(b"1")), Dialect(double_ending=True))
    assert [decoded(first)["status"], decoded(second)["status"]] == [9, 10]
    assert decoded(first) | {"status": 10} == decoded(second)


@given(st.integers() | st.sampled_from([10**400, -(10**400)]))
def test_every_number_is_shown_as_a_time(at_ms):
    assert "0001-01-01T00:00:00.000Z" <= iso(at_ms) <= "9999-12-31T23:59:59.999Z"


def test_a_task_whose_worker_wrote_no_times_can_be_read():
    line = LogLine(number=1, at_ms=99_999_999_999_999_999, type=LogType.TASK, text="x")
    spoiled = view(history=((1, 5, 99_999_999_999_999_999),), logs=(line,))
    dto = task_dto(spoiled, NEW)
    assert dto["events"][0]["event_time"] == dto["logs"][0]["created_at"] == "9999-12-31T23:59:59.999Z"
    assert timings_dto(spoiled, NEW, now_ms=0)["events"][0]["timestamp"] == "9999-12-31T23:59:59.999Z"


def test_timings_add_up():
    ended = view(S.COMPLETED, history=((0, 1, 1000), (0, 2, 1000), (1, 3, 2000), (1, 7, 3000), (1, 9, 5000)))
    timings = timings_dto(ended, NEW, now_ms=99_000)
    assert {g["label"]: g["duration_ms"] for g in timings["groups"]} == {
        "received": 0,
        "queued": 1000,
        "scheduled": 1000,
        "running": 2000,
    }
    assert timings["total_duration_ms"] == 4000
