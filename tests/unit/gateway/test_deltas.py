"""Who gets increments, and what becomes of a reader that misses one."""

import json

import msgspec
import pytest

from stoker.core.messages import DeltaBatch, TaskRequest, TaskView
from stoker.core.states import TaskState
from stoker_gateway.deltas import DeltaReader
from stoker_gateway.dialect import Deltas, Dialect
from stoker_gateway.dto import LINE_LIMIT_BYTES

pytestmark = pytest.mark.unit
REQUEST = TaskRequest(
    id="t",
    app_id="a",
    app="x/y",
    version_id="v",
    function="run",
    input={},
    setup={},
    setup_key="s",
    env_key="e",
)


def view(last, attempt=1):
    return TaskView(
        request=REQUEST,
        state=TaskState.RUNNING,
        attempt=attempt,
        created_ms=0,
        updated_ms=0,
        delta_last=last,
    )


def batch(first, *deltas, attempt=1):
    raws = tuple(msgspec.Raw(json.dumps(delta).encode()) for delta in deltas)
    return DeltaBatch(id=f"{attempt}-{first}", attempt=attempt, first=first, deltas=raws)


def reader(kind=Deltas.CHAT, *, ndjson=True):
    return DeltaReader("t", Dialect(deltas=kind, ndjson=ndjson))


def text(word):
    return {"response": word}


def test_increments_come_in_order_and_once():
    mine = reader()
    assert mine.wants(view(3))
    lines = mine.take([batch(1, text("a"), text("b")), batch(3, text("c"))])
    events = [json.loads(line) for line in lines]
    assert [(e["event"], e["data"]["seq"], e["data"]["delta"]["response"]) for e in events] == [
        ("delta", 1, "a"),
        ("delta", 2, "b"),
        ("delta", 3, "c"),
    ]
    assert all(line.endswith(b"\n") for line in lines)
    assert mine.take([batch(3, text("c"))]) == []
    assert not mine.wants(view(3))
    assert mine.after == "1-3"


def test_events_are_ascii_and_named_for_readers_of_events():
    (event,) = reader(Deltas.ASKED, ndjson=False).take([batch(1, text("é\u2028"))])
    assert event.startswith(b"event: delta\ndata: {")
    assert event.endswith(b"\n\n")
    assert event.isascii()


@pytest.mark.parametrize(
    ("kind", "broken"), [(Deltas.CHAT, True), (Deltas.BESIDE, False), (Deltas.ASKED, False)]
)
def test_a_gap_turns_a_reader_to_whole_outputs(kind, broken):
    mine = reader(kind)
    assert len(mine.take([batch(1, text("a")), batch(3, text("c"))])) == 1
    assert not mine.wants(view(9))
    assert not mine.replaces_output(view(9))
    assert mine.broken is broken


def test_a_reader_that_comes_too_late_gets_whole_outputs_and_stays():
    mine = reader()
    assert mine.take([batch(7, text("late"))]) == []
    assert not mine.broken
    assert not mine.wants(view(9))


def test_a_client_that_knows_chats_alone_gets_no_other_increments():
    mine = reader()
    assert mine.take([batch(1, {"width": 3})]) == []
    assert not mine.broken
    assert len(reader(Deltas.ASKED).take([batch(1, {"width": 3})])) == 1


def test_half_a_call_is_kept_from_the_client_that_raises_at_it():
    mine = reader()
    calls = {"tool_calls": [{"index": 0}]}
    (event,) = mine.take([batch(1, calls, {"response": "a", **calls})])
    assert json.loads(event)["data"] == {"delta": {"response": "a"}, "seq": 2, "resource_id": "t"}
    assert not mine.wants(view(2))


def test_another_attempt_starts_anew_or_closes_the_stream():
    asked, chat = reader(Deltas.ASKED), reader(Deltas.CHAT)
    for mine in (asked, chat):
        mine.take([batch(1, text("a"))])
        assert mine.wants(view(1, attempt=2))
    assert json.loads(asked.take([batch(1, text("b"), attempt=2)])[0])["data"]["seq"] == 1
    assert chat.take([batch(1, text("b"), attempt=2)]) == []
    assert chat.broken


def test_a_line_that_clients_refuse_is_a_gap():
    assert reader().take([batch(1, text("x" * LINE_LIMIT_BYTES))]) == []


def test_who_adds_up_needs_no_whole_outputs():
    chat, beside = reader(Deltas.CHAT), reader(Deltas.BESIDE)
    assert not chat.replaces_output(view(1))
    for mine in (chat, beside):
        mine.take([batch(1, text("a"))])
    assert chat.replaces_output(view(1))
    assert not beside.replaces_output(view(1))
    assert not reader(Deltas.NONE).wants(view(1))
