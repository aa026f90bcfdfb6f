import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.llm.growth import Growth

pytestmark = pytest.mark.unit

PIECES = st.lists(st.text(max_size=5), max_size=8)


def summed(deltas):
    total = {"response": "", "reasoning": "", "calls": {}}
    for delta in deltas:
        total["response"] += delta.get("response", "")
        total["reasoning"] += delta.get("reasoning", "")
        for call in delta.get("tool_calls", ()):
            whole = total["calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
            whole["id"] = call.get("id", whole["id"])
            whole["name"] = call["function"].get("name", whole["name"])
            whole["arguments"] += call["function"].get("arguments", "")
    return total


@given(PIECES, PIECES, st.integers(0, 8))
def test_increments_and_whole_outputs_add_up_to_the_answer(pieces, arguments, cut):
    """A reader may be told the first increments, and the rest by whole outputs."""
    growth = Growth()
    told = [growth.add({"response": piece}) for piece in pieces[:cut]]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    told.append(growth.add({"tool_calls": [{"index": 0, **call}]}))
    told += [
        growth.add({"tool_calls": [{"index": 0, "function": {"arguments": a}}]}) for a in arguments[:cut]
    ]
    text = "".join(arguments) if "".join(arguments).strip() else '{"a":1}'
    if not text.startswith("".join(arguments[:cut])):
        return
    call["function"]["arguments"] = text
    whole = {"response": "".join(pieces), "tool_calls": [call]}
    told.append(growth.catch_up(json.dumps(whole).encode()))
    found = summed(told)
    assert found["response"] == "".join(pieces)
    assert found["calls"][0] == {"id": "c", "name": "f", "arguments": text}
    assert not growth.broken


def test_a_field_that_did_not_grow_by_appending_is_left_out():
    growth = Growth()
    growth.add({"response": "Hello"})
    assert growth.catch_up(b'{"response":"Goodbye","reasoning":"why"}') == {"reasoning": "why"}
    assert growth.broken


def test_what_is_no_increment_of_a_chat_is_left_out():
    assert Growth().add({"response": "", "picture": 1, "tool_calls": ["x"], "usage": {"a": 1}}) == {
        "usage": {"a": 1}
    }


def test_an_output_that_goes_on_from_the_sum_again_mends_it():
    growth = Growth()
    growth.add({"response": "Hello"})
    growth.catch_up(b'{"response":"Goodbye"}')
    assert growth.catch_up(b'{"response":"Hello!"}') == {"response": "!"}
    assert not growth.broken


@pytest.mark.parametrize(
    ("arguments", "same"),
    [({"b": 2, "a": [1]}, True), ({"a": [1]}, False), ({"a": [True], "b": 2}, False), ("[" * 5000, False)],
)
def test_arguments_that_are_spelled_otherwise_are_the_same_when_their_values_are(arguments, same):
    growth = Growth()
    function = {"name": "f", "arguments": '{"a": [1], "b": 2}'}
    growth.add({"tool_calls": [{"index": 0, "id": "c", "function": function}]})
    whole = {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}
    assert growth.catch_up(json.dumps(whole).encode()) == {}
    assert growth.broken is not same
