"""Examples from schemas: they fit the schema that they were made from."""

import jsonschema_rs
import pytest

from stoker_cli.sample import sample, type_of

NESTED = {
    "type": "object",
    "properties": {
        "size": {"$ref": "#/$defs/Size"},
        "inner": {"$ref": "#/$defs/Inner"},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3}]},
        "left_out": {"type": "string"},
        "shown": {"type": "string", "examples": ["this"]},
    },
    "required": ["size", "inner", "maybe"],
    "$defs": {
        "Size": {"enum": ["small", "large"], "type": "string"},
        "Inner": {"type": "object", "properties": {"again": {"$ref": "#/$defs/Inner"}}},
    },
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, None),
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 6}, "text.."),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "default": "d"}, "d"),
        ({"type": "string", "default": "d", "examples": ["e"]}, "e"),
        ({"type": "string", "format": "file"}, "https://example.com/file"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "number"}, 1.0),
        ({"type": ["string", "null"]}, "text"),
        ({"const": 3}, 3),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        (NESTED, {"size": "small", "inner": {}, "maybe": 3, "shown": "this"}),
    ],
)
def test_a_sample_fits_its_schema(schema, expected):
    assert sample(schema) == expected
    assert jsonschema_rs.is_valid(schema, expected)


def test_a_schema_that_needs_itself_ends():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]}
    assert sample({"$ref": "#/$defs/Node", "$defs": {"Node": node}})


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string"}, "string"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"$ref": "#/$defs/Size"}, "Size"),
        ({}, "any"),
    ],
)
def test_the_type_of_a_field_is_told_in_words(schema, said):
    assert type_of(schema) == said
