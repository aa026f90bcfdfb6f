from types import SimpleNamespace

import pytest
from litestar import Request
from structlog.testing import capture_logs

from stoker.core.errors import InvalidRequest
from stoker.core.events import Event
from stoker_gateway import app
from stoker_gateway.dialect import decide
from stoker_gateway.door import Caller


def request_of(method, path, template):
    services = SimpleNamespace(base_url="http://x")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "path_template": template,
        "headers": [],
        "query_string": b"",
        "litestar_app": SimpleNamespace(state=SimpleNamespace(services=services)),
        "stoker_caller": Caller(dialect=decide({}, prefix_v2=False, key_numbering=""), base_url="http://x"),
    }
    return Request(scope)


def test_a_body_that_is_nested_too_deeply_is_its_senders_mistake():
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        app.decode(b'{"a":' * 5000, dict)
    answer = app.on_error(request_of("POST", "/apps/run", "/apps/run"), RecursionError())
    assert answer.status_code == 400
    assert b"nested too deeply" in answer.content


def test_an_error_that_nobody_expected_is_logged_without_the_secret_of_an_address(monkeypatch):
    """The path of a download holds the secret of the file."""
    monkeypatch.setattr(app, "log", app.get_logger("gateway"))  # one that was used before keeps its outlet
    request = request_of("GET", "/files/f/the-secret/name", "/files/{file_id}/{secret}/{name}")
    with capture_logs() as logs:
        answer = app.on_error(request, RuntimeError("what nobody expected"))
    assert answer.status_code == 500
    [line] = [line for line in logs if line["event"] == Event.REQUEST_FAILED]
    assert line["path"] == "/files/{file_id}/{secret}/{name}"
    assert "the-secret" not in f"{line} {answer.content}"
    assert line["incident"] in answer.content.decode()
