"""How increments add up, by the tags of their classes."""

import importlib
import sys
from typing import ClassVar
from unittest import mock

import pytest
from pydantic import BaseModel

from stoker_worker.runner import values

with mock.patch.dict(sys.modules, {"values": values}):  # the runner's folder is on its path, not on ours
    yields = importlib.import_module("stoker_worker.runner.yields")

pytestmark = pytest.mark.unit
StreamDelta = type("StreamDelta", (BaseModel,), {"__module__": "inferencesh.llm_types_gen"})


class Function(BaseModel):
    name: str = ""
    arguments: str = ""
    _field_tags: ClassVar[dict] = {"name": {"merge": "replace"}, "arguments": {"merge": "concat"}}


class Call(BaseModel):
    index: int = 0
    id: str | None = None
    function: Function | None = None
    _field_tags: ClassVar[dict] = {"function": {"merge": "nested"}}


class Delta(StreamDelta):
    response: str = ""
    calls: list[Call] | None = None
    usage: dict | None = None
    _field_tags: ClassVar[dict] = {"response": {"merge": "concat"}, "calls": {"merge": "indexed"}}


class Child(Delta):
    note: str = ""


def total(*deltas):
    state = {}
    for delta in deltas:
        yields.merge(state, delta)
    return state


def test_an_increment_is_known_by_the_sdks_marker():
    assert yields.is_delta(Delta(response="a"))
    assert yields.is_delta(Child())
    assert not yields.is_delta(Function())
    assert not yields.is_delta({"response": "a"})
    assert not yields.is_delta(type("StreamDelta", (), {})())


def test_text_is_appended_and_fields_without_a_tag_are_replaced():
    assert total(Delta(response="a", usage={"n": 1}), Delta(response="b"), Delta(usage={"n": 2})) == {
        "response": "ab",
        "usage": {"n": 2},
    }


def test_a_derived_class_keeps_the_tags():
    assert total(Child(response="a", note="x"), Child(response="b", note="y")) == {
        "response": "ab",
        "note": "y",
    }


def test_items_with_an_index_are_merged_into_each_other():
    state = total(
        Delta(calls=[Call(index=1, id="b", function=Function(name="g", arguments="{"))]),
        Delta(calls=[Call(index=0, id="a", function=Function(name="f"))]),
        Delta(calls=[Call(index=1, function=Function(arguments="}"))]),
    )
    assert state == {
        "calls": [
            {"index": 0, "id": "a", "function": {"name": "f"}},
            {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
        ]
    }


def test_what_was_not_set_is_no_part_of_an_increment():
    assert yields.plain(Delta(calls=[Call(index=0, function=Function(arguments="x"))])) == {
        "calls": [{"index": 0, "function": {"arguments": "x"}}]
    }


async def drained(*items):
    partials, deltas = [], []

    async def generate():
        for item in items:
            yield item

    sink = yields.Sink(partials.append, lambda seq, delta: deltas.append((seq, delta)))
    return await yields.drain_async(generate(), sink), partials, deltas


async def test_every_increment_goes_out_with_its_number():
    result, partials, deltas = await drained(*[Delta(response=str(n)) for n in range(3)], {"response": "end"})
    assert deltas == [(1, {"response": "0"}), (2, {"response": "1"}), (3, {"response": "2"})]
    assert partials[0] == {"response": "0"}
    assert result == {"response": "end"}


async def test_increments_alone_add_up_to_the_result():
    result, _, _ = await drained(Delta(response="a"), Delta(response="b"))
    assert result == {"response": "ab"}


async def test_increments_go_on_from_a_whole_output():
    result, _, deltas = await drained({"response": "a", "kept": 1}, Delta(response="b"))
    assert result == {"response": "ab", "kept": 1}
    assert deltas == [(1, {"response": "b"})]


async def test_partial_outputs_do_not_hold_what_is_said_about_them():
    _, partials, _ = await drained({"text": "a", "output_meta": {"outputs": []}})
    assert partials == [{"text": "a"}]


async def test_an_increment_that_is_no_json_is_the_apps_error():
    class Odd(StreamDelta):
        thing: object = None

    with pytest.raises(values.BadOutput, match="cannot be written as JSON"):
        await drained(Odd(thing=sys))
