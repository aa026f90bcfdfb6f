"""The order of events is a contract: a client that sees an idle chat too early leaves without the last text."""

import pytest

from stoker.agents.chat import Chat
from stoker.agents.config import read_config
from stoker.agents.step import Said, Steps
from stoker.core.messages import Owner
from stoker.llm.contract import LlmOutput, ToolCall
from stoker_gateway.chat_dto import message_dto, shortened
from stoker_gateway.chat_told import ChatTold
from stoker_gateway.dto import LINE_LIMIT_BYTES, ascii_json

pytestmark = pytest.mark.unit

TOOLS = [{"name": "mine", "type": "client", "client": {"input_schema": {"type": "object"}}}]
STEPS = Steps(now_ms=1000)


def chat():
    config = read_config({"core_app_ref": "a/b", "tools": TOOLS})
    return Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=config)


def names(events):
    return [
        f"{data['role']} {data['status']}" if name == "chat_messages" else f"chat {data['status']}"
        for name, data in events
    ]


def test_on_connect_the_last_turn_comes_first_and_the_chat_after_it():
    old = STEPS.answered(STEPS.say(chat(), Said(text="a")), "c-1", LlmOutput(response="b"))
    now = STEPS.answered(STEPS.say(old, Said(text="c")), "c-3", LlmOutput(response="d"))
    events = list(ChatTold().news(now))
    assert names(events) == ["user ready", "assistant ready", "chat idle"]
    assert events[1][1]["content"] == [{"type": "text", "text": "d"}]


def test_a_chat_that_becomes_busy_says_so_before_its_messages_and_idle_after_them():
    told = ChatTold()
    assert names(told.news(chat())) == ["chat idle"]
    busy = STEPS.say(chat(), Said(text="a"))
    assert names(told.news(busy)) == ["chat busy", "user ready", "assistant pending"]
    done = STEPS.answered(busy, "c-1", LlmOutput(response="b"))
    assert names(told.news(done)) == ["assistant ready", "chat idle"]


def test_nothing_new_is_nothing():
    told, busy = ChatTold(), STEPS.say(chat(), Said(text="a"))
    list(told.news(busy))
    assert list(told.news(busy)) == []


def test_a_chat_is_never_idle_between_two_steps_of_a_turn():
    told, busy = ChatTold(), STEPS.say(chat(), Said(text="a"))
    list(told.news(busy))
    asked = STEPS.answered(busy, "c-1", LlmOutput(tool_calls=(ToolCall(id="m", name="mine"),)))
    events = list(told.news(asked))
    assert names(events) == ["assistant ready", "chat busy"]
    [call] = events[0][1]["tool_invocations"]
    assert (call["status"], call["function"]["arguments"]) == ("awaiting_input", {})
    assert names(told.news(STEPS.give(asked, "c-1-0", "x"))) == [
        "assistant ready",
        "tool ready",
        "assistant pending",
    ]


def test_an_answer_that_was_over_before_it_was_followed_is_known_to_be_written():
    told, busy = ChatTold(), STEPS.say(chat(), Said(text="a"))
    done = STEPS.answered(busy, "c-1", LlmOutput(response="b"))
    assert told.written(done) == []  # on connect it is history
    list(told.news(busy))
    [answer] = told.written(done)
    assert told.delta(answer, {"response": "b"}) == (
        "delta",
        {"delta": {"response": "b"}, "seq": 1, "resource_id": "c-1"},
    )
    list(told.news(done))
    assert told.written(done) == []


def test_only_an_answer_with_a_task_is_followed():
    told, busy = ChatTold(), STEPS.say(chat(), Said(text="a"))
    list(told.news(busy))
    assert told.awaited() is None
    list(told.news(STEPS.asked(busy, "c-1", "t1")))
    assert told.awaited().task_id == "t1"


def test_a_long_result_is_cut_where_a_line_would_be_too_long():
    asked = STEPS.answered(
        STEPS.say(chat(), Said(text="a")), "c-1", LlmOutput(tool_calls=(ToolCall(id="m", name="mine"),))
    )
    done = STEPS.give(asked, "c-1-0", "x" * 200_000)
    for message in done.messages[1:3]:
        line = ascii_json(shortened(message_dto(done, message)))
        assert len(line) < LINE_LIMIT_BYTES
        assert b"200000 characters; the chat has them all" in line
    assert shortened(message_dto(done, done.messages[0])) == message_dto(done, done.messages[0])
