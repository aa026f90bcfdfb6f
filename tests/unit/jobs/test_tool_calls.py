import httpx
import pytest

from stoker.agents.calls import ToolRequest
from stoker.outbound import checked_client
from stoker.settings import JobsSettings
from stoker_jobs.tool_calls import ask

pytestmark = pytest.mark.unit


@pytest.fixture
def ask_for(tmp_path):
    """A function that asks for an address, over the real connections or a transport."""

    async def ask_for(wanted, transport=None):
        async with checked_client(httpx.Timeout(5), transport) as client:
            return await ask(client, JobsSettings(data_dir=tmp_path), wanted)

    return ask_for


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
async def test_a_tool_may_not_call_what_is_not_public(url, says, ask_for):
    wanted = ToolRequest(method="POST", url=url, headers={}, body=b"{}")
    text, failed = await ask_for(wanted)
    assert failed
    assert says in text


async def test_a_header_that_cannot_be_sent_is_told_to_the_model(ask_for):
    """It may hold a value of the chat's context. Raised, it would leave the chat waiting for a call that never ends."""
    wanted = ToolRequest(method="GET", url="https://tools.example/x", headers={"X-Who": "J\u00fcrgen"})
    text, failed = await ask_for(wanted)
    assert failed
    assert "header" in text


async def test_a_key_that_cannot_be_sent_is_not_told(ask_for):
    """With a line's end behind it, for instance; the text of the error would be in the chat, and go to the model."""

    def refuse(_request):
        raise httpx.LocalProtocolError(r"Illegal header value b'Bearer sk-key\n'")

    wanted = ToolRequest(
        method="GET", url="https://tools.example/x", headers={"Authorization": "Bearer sk-key"}
    )
    text, failed = await ask_for(wanted, httpx.MockTransport(refuse))
    assert failed
    assert "sk-key" not in text
