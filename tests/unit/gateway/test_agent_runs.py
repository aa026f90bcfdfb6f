"""A chat that goes on with another agent."""

import pytest

from stoker.agents.chat import Chat
from stoker.agents.config import read_config
from stoker.agents.step import Said, Steps
from stoker.core.errors import Conflict
from stoker.core.messages import Owner
from stoker_gateway.agent_runs import Meant, with_agent


def config(*tools):
    return read_config({"core_app_ref": "a/b", "tools": list(tools)})


def call(name, url):
    return {"name": name, "type": "http", "require_approval": True, "http": {"url": url}}


READ, SEND = call("run", "https://a.example/read"), call("send", "https://a.example/send")
CHAT = Chat(
    id="c",
    owner=Owner(user_id="u", key_id="k"),
    config=config(READ, SEND),
    always_allowed=("run", "send"),
    sessions={"run": "s1"},
)


def test_what_was_always_allowed_stays_so_for_the_same_tool_alone():
    other = Meant(config=config(call("run", "https://b.example/delete"), SEND), digest="d")
    chat = with_agent(CHAT, other)
    assert (chat.always_allowed, chat.sessions) == (("send",), {})


def test_an_agent_at_work_is_not_replaced():
    busy = Steps(now_ms=1).say(CHAT, Said(text="Go"))
    with pytest.raises(Conflict, match="is at work"):
        with_agent(busy, Meant(config=CHAT.config, digest="d"))
