import asyncio

import httpx
import pytest
from virtual_time import in_virtual_time

from stoker.agents.calls import ToolRequest
from stoker.settings import JobsSettings
from stoker_jobs import tool_calls
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


async def test_a_header_that_cannot_be_sent_is_told_to_the_model(tmp_path):
    """It may hold a value of the chat's context. Raised, it would leave the chat waiting for a call that never ends."""
    wanted = ToolRequest(method="GET", url="https://tools.example/x", headers={"X-Who": "J\u00fcrgen"})
    text, failed = await ask(JobsSettings(data_dir=tmp_path), wanted)
    assert failed
    assert "header" in text


async def test_a_key_that_cannot_be_sent_is_not_told(tmp_path, monkeypatch):
    """With a line's end behind it, for instance; the text of the error would be in the chat, and go to the model."""

    def refuse(_request):
        raise httpx.LocalProtocolError(r"Illegal header value b'Bearer sk-key\n'")

    client = tool_calls.checked_client
    monkeypatch.setattr(
        tool_calls, "checked_client", lambda limit: client(limit, httpx.MockTransport(refuse))
    )
    wanted = ToolRequest(
        method="GET", url="https://tools.example/x", headers={"Authorization": "Bearer sk-key"}
    )
    text, failed = await ask(JobsSettings(data_dir=tmp_path), wanted)
    assert failed
    assert "sk-key" not in text


def test_a_call_has_the_time_for_all_its_tries(tmp_path, monkeypatch):
    """A receiver that says slowly that it is busy was called anew by each try of the job, and the chat never told."""

    async def busy(_request):
        await asyncio.sleep(tool_calls.CALL_TIMEOUT_S - 0.1)
        return httpx.Response(503, text="busy")

    took_s = 0.0

    @in_virtual_time
    async def tried():
        nonlocal took_s
        began_s = asyncio.get_running_loop().time()
        wanted = ToolRequest(method="GET", url="https://tools.example/x", headers={})
        text, failed = await ask(JobsSettings(data_dir=tmp_path), wanted)
        assert failed
        assert "503" in text
        took_s = asyncio.get_running_loop().time() - began_s

    client = tool_calls.checked_client
    monkeypatch.setattr(tool_calls, "checked_client", lambda limit: client(limit, httpx.MockTransport(busy)))
    tried()
    limits_s = []
    monkeypatch.setattr(tool_calls, "at_desk", lambda _work, limit_s: limits_s.append(limit_s))
    tool_calls.call_tool("chat", "call")
    assert took_s > 60
    assert limits_s[0] > took_s
