from types import SimpleNamespace

from litestar import Request
from structlog.testing import capture_logs

from stoker.core.events import Event
from stoker_gateway import app
from stoker_gateway.dialect import decide
from stoker_gateway.door import Caller


def test_an_error_that_nobody_expected_is_logged_without_the_secret_of_an_address(monkeypatch):
    """The path of a download holds the secret of the file."""
    monkeypatch.setattr(app, "log", app.get_logger("gateway"))  # one that was used before keeps its outlet
    services = SimpleNamespace(base_url="http://x")
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/files/f/the-secret/name",
        "path_template": "/files/{file_id}/{secret}/{name}",
        "headers": [],
        "query_string": b"",
        "litestar_app": SimpleNamespace(state=SimpleNamespace(services=services)),
        "stoker_caller": Caller(dialect=decide({}, prefix_v2=False, key_numbering=""), base_url="http://x"),
    }
    with capture_logs() as logs:
        answer = app.on_error(Request(scope), RuntimeError("what nobody expected"))
    assert answer.status_code == 500
    [line] = [line for line in logs if line["event"] == Event.REQUEST_FAILED]
    assert line["path"] == "/files/{file_id}/{secret}/{name}"
    assert "the-secret" not in f"{line} {answer.content}"
    assert line["incident"] in answer.content.decode()
