"""Secrets in tools: where they may stand, and that their values are in a request alone."""

import pytest

from stoker.agents.calls import tool_request
from stoker.agents.chat import CallStatus, Chat, ToolCall
from stoker.agents.config import read_config
from stoker.agents.secrets import filled
from stoker.agents.tools import ToolType
from stoker.core.errors import InvalidRequest
from stoker.core.messages import Owner
from stoker.core.webhooks import signature

pytestmark = pytest.mark.unit

CALL = ToolCall(
    id="c-1-0", call_id="m", name="t", type=ToolType.HTTP, status=CallStatus.IN_PROGRESS, arguments={"q": "x"}
)


def with_tool(kind, **own):
    tool = {"name": "t", "type": kind, kind: {"url": "https://e.example/x", **own}}
    config = read_config({"core_app_ref": "a/b", "tools": [tool]})
    owner = Owner(user_id="u", key_id="k")
    return Chat(id="c", owner=owner, config=config, context={"who": "Ada", "sly": "${{secrets.KEY}}"})


def request(chat, **secrets):
    return tool_request(chat, chat.config.tools[0], CALL, 7, secrets)


@pytest.mark.parametrize(
    ("kind", "own", "names"),
    [
        ("http", {"headers": {"A": "Bearer ${{secrets.ONE}}", "B": "${{ secrets.TWO }}"}}, {"ONE", "TWO"}),
        ("call", {"auth": {"type": "bearer", "secret": "${{secrets.ONE}}"}}, {"ONE"}),
        ("hook", {"secret": "${{secrets.ONE}}"}, {"ONE"}),
        ("http", {"headers": {"A": "secrets.ONE"}}, set()),
    ],
)
def test_a_tool_knows_which_secrets_it_refers_to(kind, own, names):
    assert with_tool(kind, **own).config.tools[0].secrets == names


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ({"type": "bearer", "secret": "${{secrets.KEY}}"}, ("Authorization", "Bearer s3cret")),
        ({"type": "api_key", "secret": "${{secrets.KEY}}"}, ("X-API-Key", "s3cret")),
    ],
)
def test_a_call_shows_the_value(auth, header):
    made = request(with_tool("http", auth=auth, headers={"X-Who": "{{context.who}}"}), KEY="s3cret\n")
    assert header in made.headers.items()
    assert made.headers["X-Who"] == "Ada"


def test_a_hook_is_signed_with_the_value_which_it_does_not_carry():
    made = request(with_tool("hook", secret="${{secrets.KEY}}"), KEY="s3cret")
    assert made.headers["X-Webhook-Signature"] == signature("s3cret", 7, made.body)
    assert "s3cret" not in str(made)


def test_what_a_caller_gives_is_no_reference():
    chat = with_tool("http", headers={"A": "{{context.sly}} ${{secrets.KEY}}"})
    assert request(chat, KEY="{{context.who}}").headers["A"] == "${{secrets.KEY}} {{context.who}}"
    assert filled("${{secrets.NONE}}.{{context.none}}", {}, {}) == "."


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "clé"])
def test_a_value_that_no_header_takes_is_refused_without_being_told(value):
    with pytest.raises(InvalidRequest, match="The header X-Key of this tool cannot be sent") as refusal:
        request(with_tool("http", headers={"X-Key": "${{secrets.KEY}}"}), KEY=value)
    assert value not in refusal.value.message
