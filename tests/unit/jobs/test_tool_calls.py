import pytest

from stoker.agents.calls import ToolRequest
from stoker.settings import JobsSettings
from stoker_jobs.tool_calls import ask

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "http://127.0.0.1:9/x",
            "127.0.0.1 is not public, and the operator's setting webhook_allow does not name it.",
        ),
        ("http://[::1]/x", "is not public"),
        ("http://169.254.169.254/latest", "is not public"),
    ],
)
async def test_a_tool_may_not_call_what_is_not_public(url, says, tmp_path):
    wanted = ToolRequest(method="POST", url=url, headers={}, body=b"{}")
    text, failed = await ask(JobsSettings(data_dir=tmp_path), wanted)
    assert failed
    assert says in text
