import httpx
import pytest

from stoker.agents.calls import ToolRequest
from stoker.core.errors import Conflict, StoreUnavailable
from stoker.outbound import checked_client
from stoker.settings import JobsSettings
from stoker_jobs import tool_calls
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


WANTED = ToolRequest(method="GET", url="https://tools.example/x", headers={})


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("text/plain; charset=latin-1", b"gr\xfc\xdfe", "gr\u00fc\u00dfe"),
        ("text/plain; charset=hex", b"plain", "plain"),
        ("text/plain; charset=idna", b"plain", "plain"),
        ("text/plain", b"\xff", "\ufffd"),
    ],
)
async def test_an_answer_is_read_whatever_it_says_of_its_encoding(kind, content, text, ask_for):
    answer = httpx.Response(200, headers={"content-type": kind}, content=content)
    assert await ask_for(WANTED, httpx.MockTransport(lambda _: answer)) == (text, False)


async def test_a_call_has_an_outcome_also_when_what_happens_was_not_expected(ask_for):
    """Raised, it would be made again each minute, and the chat would wait for ever."""

    def break_off(_request):
        raise OverflowError("a port of twenty digits")

    text, failed = await ask_for(WANTED, httpx.MockTransport(break_off))
    assert failed
    assert "nobody expected" in text


@pytest.mark.parametrize("hindrance", [Conflict("it changes all the time"), StoreUnavailable("away")])
async def test_what_a_call_gave_is_told_again_when_the_chat_could_not_be_changed(monkeypatch, hindrance):
    tries = []

    async def change_chat(_desk, chat_id, _step):
        tries.append(chat_id)
        if len(tries) == 1:
            raise hindrance

    monkeypatch.setattr(tool_calls, "change_chat", change_chat)
    monkeypatch.setattr(tool_calls, "TELL_PAUSES_S", (0, 0))
    await tool_calls.tell_chat(None, "c", None)
    assert tries == ["c", "c"]


@pytest.mark.parametrize(
    ("error", "tries"), [(httpx.ConnectError, 3), (httpx.ConnectTimeout, 3), (httpx.ReadTimeout, 1)]
)
async def test_a_call_of_which_nothing_was_sent_is_tried_again(monkeypatch, ask_for, error, tries):
    requests = []

    def fail(request):
        requests.append(request)
        raise error("it said nothing")

    monkeypatch.setattr(tool_calls, "PAUSES_S", (0, 0))
    text, failed = await ask_for(WANTED, httpx.MockTransport(fail))
    assert failed
    assert "it said nothing" in text
    assert len(requests) == tries
