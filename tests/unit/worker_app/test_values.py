"""Outputs as JSON, and the files in them."""

import dataclasses
import datetime as dt
import enum
import json
import pathlib
import uuid
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel

from stoker_worker.runner import values


class File:
    def __init__(self, path=None, uri=None, **more):
        self.path, self.uri = path, uri
        self.content_type = more.get("content_type")
        self.size, self.filename = more.get("size"), more.get("filename")


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Inner(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")
    picture: Any = None


class Outer(BaseModel):
    before: int = 1
    inner: Inner = Inner()
    named: dict[str, Any] = {}
    after: dt.date = dt.date(2026, 1, 2)
    hidden: Any = Field(default=None, exclude=True)


class Listed(RootModel[list[Any]]):
    pass


@dataclasses.dataclass
class Record:
    colour: Colour
    file: Any = None


class Array:
    def tolist(self):
        return [1, 2.5]


def json_of(value):
    return json.loads(values.encode(values.dump(value)[0]))


def pointers(value):
    return [file["pointer"] for file in values.dump(value)[1]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("ä\ud800", "ä?"),
        (2**70, 2**70),
        ((1, {2}), [1, [2]]),
        ({1: "a", None: "b", False: "c", Colour.RED: "d"}, {"1": "a", "null": "b", "false": "c", "red": "d"}),
        (Colour.RED, "red"),
        (Number.ONE, 1),
        (Record(Colour.RED), {"colour": "red", "file": None}),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        ({"x": Array()}, {"x": [1, 2.5]}),
        (Listed([1, 2]), [1, 2]),
        (b"text", "text"),
    ],
)
def test_values_become_json(value, expected):
    assert json_of(value) == expected


def test_a_model_decides_how_it_is_written():
    assert json_of(Outer(hidden=File(path="/x"))) == {
        "before": 1,
        "inner": {"picture": None},
        "named": {},
        "after": "2026-01-02",
    }


def test_files_are_found_wherever_they_are(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1234")
    file = File(path=str(path))
    output = Outer(inner=Inner(picture=file, more=[file]), named={"a/b~": file}, hidden=file)
    document, files = values.dump(output)
    assert [entry["pointer"] for entry in files] == ["/inner/picture", "/inner/more/0", "/named/a~1b~0"]
    shown = {"content_type": "image/png", "size": 4, "filename": "a.png"}
    assert document["inner"] == {"picture": shown, "more": [shown]}
    assert list(document) == ["before", "inner", "named", "after"]
    assert pointers(Listed([0, file])) == ["/1"]
    assert pointers(Record(Colour.RED, (file,))) == ["/file/0"]
    assert pointers(file) == [""]


def test_a_file_on_the_web_is_left_there():
    assert values.dump(File(path="/tmp/cached", uri="https://x/a.png", filename="a.png")) == (  # noqa: S108
        {"uri": "https://x/a.png", "filename": "a.png"},
        [],
    )


def test_a_file_that_is_nowhere_is_told():
    with pytest.raises(values.BadOutput, match=r"'image' is a File that is neither"):
        values.dump({"image": File(uri="s3://bucket/x")})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [float("nan")]}, r"'a\.0' is nan"),
        (float("inf"), "itself is inf"),
        ({"f": test_values_become_json}, "'f' is"),
        ({"o": object()}, "'o' is"),
        (Outer(named={"x": object()}), "cannot be written as JSON"),
    ],
)
def test_what_is_no_json_is_named(value, words):
    with pytest.raises(values.BadOutput, match=words):
        json_of(value)


def test_inputs_fit_or_the_fields_are_named():
    assert values.build(None, {"any": 1}, "input") == {"any": 1}
    assert values.build(dict, [1], "input") == [1]
    assert values.build(Record, {"colour": "red", "file": 2}, "input") == Record(Colour.RED, 2)
    with pytest.raises(values.BadInput) as caught:
        values.build(Outer, {"before": "x", "inner": {"picture": 1}}, "input")
    assert [field["loc"] for field in caught.value.fields] == ["before"]
    with pytest.raises(values.BadInput, match="The setup is not valid: setup: "):
        values.build(Outer, [1], "setup")


def test_what_an_sdk_raises_while_it_takes_a_file_is_the_inputs_fault():
    class Fetching(BaseModel):
        def __init__(self, **fields):
            raise RuntimeError("Failed to download https://x: 404")

    with pytest.raises(values.BadInput, match="404"):
        values.build(Fetching, {}, "input")
