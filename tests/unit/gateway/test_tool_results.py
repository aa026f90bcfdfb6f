"""What a caller's own program gives as the result of a tool."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker_gateway.routes.chats import result_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"result": "3"}', "3"),
        (b'{"a": 1}', '{"a":1}'),
        (b'{"result": {"a": 1}, "attachments": [{"uri": "http://f/1"}, 5]}', '{"a":1}\nhttp://f/1'),
        (b'{"result": "3", "attachments": 5}', "3"),
        (b'{"result": "3", "attachments": null}', "3"),
    ],
)
def test_the_model_reads_a_text(body, text):
    assert result_of(body) == text


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 5000])
def test_a_body_that_cannot_be_read_is_refused(body):
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        result_of(body)
