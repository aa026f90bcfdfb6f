"""A webhook is an http or https address; where it leads is judged when it is called."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.runs.submit import check_webhook


@pytest.mark.parametrize("url", ["", "https://a.example/hook", "http://10.0.0.1:80/x"])
def test_an_address_is_taken(url):
    assert check_webhook(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.example/", "file:///etc/passwd", "https://", "a.example/hook", "javascript:alert(1)"),
        *("http://[bad", "http://a.example:99999/", "http://a.example:x/", "http://a.example:0/"),
    ],
)
def test_anything_else_is_refused_by_name(url):
    with pytest.raises(InvalidRequest, match="webhook"):
        check_webhook(url)
