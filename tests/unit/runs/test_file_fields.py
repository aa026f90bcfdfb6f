"""Where files stand in an input."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.runs import file_fields
from stoker.runs.file_fields import MAX_DEPTH, MAX_FILES, FileFields, compile_files, find_files
from stoker.runs.registry import compiled

FILE = {"type": "string", "format": "file"}
OLDER = {
    "$id": "/schemas/File",
    "oneOf": [{"type": "object", "properties": {"uri": {"type": "string"}}}, {"type": "string"}],
}
TEXT = {"type": "string"}
NULL = {"type": "null"}
URL = "https://example.com/a.png"


def found(schema, value):
    shape = compile_files(schema)
    return () if shape is None else find_files(shape, value)


def model(**properties):
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (model(a=FILE), {"a": URL}, ("/a",)),
        (model(a=OLDER), {"a": URL}, ("/a",)),
        (model(a={"$ref": "/schemas/File"}), {"a": URL}, ("/a",)),
        (model(a={"anyOf": [FILE, NULL], "default": None}), {"a": URL}, ("/a",)),
        (model(a={"allOf": [FILE]}), {"a": {"uri": URL}}, ("/a",)),
        (model(a={"type": "array", "items": FILE}), {"a": [URL, URL]}, ("/a/0", "/a/1")),
        (model(a={"prefixItems": [TEXT, FILE]}), {"a": [URL, URL]}, ("/a/1",)),
        (model(a={"additionalProperties": FILE}), {"a": {"x": URL, "y": URL}}, ("/a/x", "/a/y")),
        (model(a={"patternProperties": {"^x": FILE}}), {"a": {"x": URL}}, ("/a/x",)),
        ({"$ref": "#/$defs/In", "$defs": {"In": model(a=FILE)}}, {"a": URL}, ("/a",)),
        (model(**{"a/b~c": FILE}), {"a/b~c": URL}, ("/a~1b~0c",)),
        (FILE, URL, ("",)),
        (model(a=TEXT, b=FILE), {"a": URL, "b": URL, "c": URL}, ("/b",)),
    ],
)
def test_a_file_is_found_wherever_a_schema_can_have_it(schema, value, expected):
    assert found(schema, value) == expected


@pytest.mark.parametrize("empty", [None, "", {}])
def test_an_empty_value_is_no_file(empty):
    assert found(model(a=FILE), {"a": empty}) == ()


@pytest.mark.parametrize("other", [1, True, ["x"]])
def test_a_value_that_no_file_can_be_is_left_to_the_app(other):
    assert found(model(a=FILE), {"a": other}) == ()


def test_a_map_with_a_path_is_a_file_whatever_else_it_has():
    given = {"path": "/etc/passwd", "extra": 1}
    assert found(model(a=FILE), {"a": given}) == ("/a",)
    assert found(model(a={"anyOf": [model(b=TEXT), FILE]}), {"a": given}) == ("/a",)


def test_beside_a_file_an_alternative_model_is_looked_into():
    schema = model(a={"anyOf": [FILE, model(inner=FILE)]})
    assert found(schema, {"a": {"inner": URL}}) == ("/a/inner",)
    assert found(schema, {"a": {"uri": URL}}) == ("/a",)


def test_a_name_of_one_alternative_is_any_name_of_another():
    schema = model(a={"anyOf": [model(x=model(y=FILE)), {"additionalProperties": FILE}]})
    assert found(schema, {"a": {"x": URL, "z": URL}}) == ("/a/x", "/a/z")


def test_a_string_is_text_where_the_model_tries_text_first():
    assert found(model(a={"anyOf": [TEXT, FILE]}), {"a": URL}) == ()
    assert found(model(a={"anyOf": [TEXT, FILE]}), {"a": {"uri": URL}}) == ("/a",)
    assert found(model(a={"anyOf": [FILE, TEXT]}), {"a": URL}) == ("/a",)


def test_a_recursive_schema_ends_with_its_input():
    tree = model(file=FILE, below={"type": "array", "items": {"$ref": "#"}})
    value = {"below": [{"file": URL}, {"below": [{"file": URL, "below": []}]}]}
    assert found(tree, value) == ("/below/0/file", "/below/1/below/0/file")


def test_a_schema_without_files_is_no_shape():
    assert compile_files({}) is None
    assert compile_files(model(a=TEXT, b=model(c={"type": "array", "items": {"$ref": "#"}}))) is None
    assert compile_files({"$ref": "#/nowhere", "properties": []}) is None


def test_parts_without_files_are_not_walked():
    shape = compile_files(model(a=FILE, context={"type": "array", "items": model(text=TEXT)}))
    assert list(shape.properties) == ["a"]


def test_a_version_is_compiled_once(monkeypatch):
    calls = []
    monkeypatch.setattr(file_fields, "compile_files", calls.append)
    fields = FileFields()
    for _ in range(3):
        assert fields.find("v", "run", model(), {"a": URL}) == ()
    assert len(calls) == 1


def test_too_many_files_are_refused():
    schema = model(a={"type": "array", "items": FILE})
    assert len(found(schema, {"a": [URL] * MAX_FILES})) == MAX_FILES
    with pytest.raises(InvalidRequest, match="more than 1000 files"):
        found(schema, {"a": [URL] * (MAX_FILES + 1)})


def test_an_input_nested_beyond_the_bound_is_refused():
    value = {"file": URL}
    for _ in range(MAX_DEPTH + 1):
        value = {"below": value}
    with pytest.raises(InvalidRequest, match="nested deeper than 64"):
        found(model(file=FILE, below={"$ref": "#"}), value)


def test_a_schema_nested_beyond_reason_is_refused():
    schema = FILE
    for _ in range(5000):
        schema = model(a=schema)
    with pytest.raises(InvalidRequest, match="Simplify"):
        compile_files(schema)


def test_a_schema_with_endless_alternatives_is_bounded(monkeypatch):
    monkeypatch.setattr(file_fields, "MAX_SHAPES", 3)
    with pytest.raises(InvalidRequest, match="too many alternatives"):
        compile_files(model(a=model(b=model(c=FILE))))


@pytest.mark.parametrize("value", [URL, {"uri": URL, "filename": "a.png"}, None])
def test_validation_takes_a_file_in_every_form_of_the_sdk(value):
    validator = compiled(model(a=FILE, b={"type": "array", "items": FILE}))
    assert validator.is_valid({"a": value, "b": [value]})


def test_validation_still_refuses_what_no_file_can_be():
    assert not compiled(model(a=FILE)).is_valid({"a": 3})
    assert not compiled(model(a=TEXT)).is_valid({"a": {"uri": URL}})
