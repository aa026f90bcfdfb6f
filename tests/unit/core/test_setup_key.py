import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import InvalidRequest
from stoker.core.setup_key import fill_defaults, known_only, setup_key

pytestmark = pytest.mark.unit

SCHEMA = {
    "properties": {
        "model": {"$ref": "#/$defs/Model", "default": "small"},
        "threshold": {"type": "number", "default": 0.5},
        "options": {"$ref": "#/$defs/Options"},
        "name": {"type": "string"},
    },
    "$defs": {
        "Model": {"enum": ["small", "large"]},
        "Options": {"properties": {"fast": {"type": "boolean", "default": True}}},
    },
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_no_setup_and_spelled_out_defaults_are_one_key():
    spelled = {"threshold": 0.5, "model": "small"}
    assert setup_key("v", fill_defaults(SCHEMA, {})) == setup_key("v", fill_defaults(SCHEMA, spelled))


def test_defaults_are_filled_inside_given_objects_and_unknown_fields_stay():
    filled = fill_defaults(SCHEMA, {"options": {}, "extra": 1})
    assert filled == {"options": {"fast": True}, "extra": 1, "model": "small", "threshold": 0.5}


def test_the_given_setup_is_not_changed():
    given_setup = {"options": {}}
    fill_defaults(SCHEMA, given_setup)
    assert given_setup == {"options": {}}


def test_another_value_version_or_secret_is_another_key():
    keys = {
        setup_key("v", {"a": 1}),
        setup_key("v", {"a": 2}),
        setup_key("w", {"a": 1}),
        setup_key("v", {"a": 1}, "s"),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": 1.0}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"a": 0.0}, {"a": -0.0})],
)
def test_spellings_of_one_value_are_one_key(one, other):
    assert setup_key("v", one) == setup_key("v", other)


def test_unicode_is_compared_by_code_point():
    assert setup_key("v", {"a": "\u00e9"}) != setup_key("v", {"a": "e\u0301"})


@pytest.mark.parametrize("value", [2**53 + 1, math.nan, math.inf, -math.inf])
def test_what_json_cannot_carry_is_refused_with_advice(value):
    with pytest.raises(InvalidRequest, match=r"setup: .*2\^53 and finite"):
        setup_key("v", {"a": value})


@given(st.dictionaries(st.text(), json_values, max_size=4), st.randoms())
def test_key_order_never_matters(setup, random):
    items = list(setup.items())
    random.shuffle(items)
    assert setup_key("v", setup) == setup_key("v", dict(items))


def test_a_schema_that_refers_to_itself_ends():
    schema = {"properties": {"a": {"$ref": "#/properties/a"}}}
    assert fill_defaults(schema, {"a": {}}) == {"a": {}}


OPEN = {"type": "object", "properties": {"a": {}}, "additionalProperties": True}
DEEP = {
    "properties": {"model": {"$ref": "#/$defs/Model"}, "free": {"type": "object"}},
    "$defs": {"Model": {"type": "object", "properties": {"name": {}}}},
}


@pytest.mark.parametrize(
    ("schema", "value", "kept", "dropped"),
    [
        ({}, {"a": 1}, {}, ["a"]),
        ({"properties": {}}, {"a": 1}, {}, ["a"]),
        ({"properties": {"a": {}}}, {"a": 1, "b": 2}, {"a": 1}, ["b"]),
        (OPEN, {"a": 1, "b": 2}, {"a": 1, "b": 2}, []),
        (OPEN | {"additionalProperties": False}, {"b": 2}, {"b": 2}, []),  # the validator refuses it
        (OPEN | {"additionalProperties": {"type": "string"}}, {"b": "x"}, {"b": "x"}, []),
        ({"anyOf": [{"properties": {"a": {}}}]}, {"a": 1}, {"a": 1}, []),
        (
            DEEP,
            {"model": {"name": 1, "x": 2}, "free": {"y": 1}},
            {"model": {"name": 1}, "free": {"y": 1}},
            ["model.x"],
        ),
        (DEEP, {"model": 3}, {"model": 3}, []),
    ],
)
def test_values_that_the_schema_does_not_know_make_no_other_instance(schema, value, kept, dropped):
    assert known_only(schema, value) == (kept, dropped)
