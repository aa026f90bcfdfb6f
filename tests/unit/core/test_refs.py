import pytest

from stoker.core.errors import InvalidRequest
from stoker.core.refs import AppRef, parse_ref

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo", AppRef(name="echo")),
        ("infsh/echo", AppRef(namespace="infsh", name="echo")),
        ("infsh/echo@latest", AppRef(namespace="infsh", name="echo")),
        ("infsh/echo@ab12cd34", AppRef(namespace="infsh", name="echo", version="ab12cd34")),
        ("infsh/echo@ab12:talk", AppRef(namespace="infsh", name="echo", version="ab12", function="talk")),
        ("echo:talk", AppRef(name="echo", function="talk")),
        ("o/flux-2.dev_x", AppRef(namespace="o", name="flux-2.dev_x")),
    ],
)
def test_references_are_parsed(text, expected):
    assert parse_ref(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "/echo", "a/b/c", "echo@", "echo:", "echo:2x", "é", "a b", "infsh/echo@v 1", "../x", "echo\n"],
)
def test_what_is_no_reference_is_refused_with_the_form(text):
    with pytest.raises(InvalidRequest, match="namespace/name@version"):
        parse_ref(text)


def test_a_reference_prints_as_it_was_written():
    assert str(parse_ref("infsh/echo@ab12:talk")) == "infsh/echo@ab12:talk"
