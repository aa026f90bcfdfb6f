import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.agents.chat import CALL_OVER, CallStatus, Chat, ChatStatus, MessageStatus, RunState
from stoker.agents.config import Limits, read_config
from stoker.agents.memory import MAX_BYTES
from stoker.agents.orders import AskModel, UseTool, decide_due_s, decide_orders
from stoker.agents.prompt import conversation, model_input
from stoker.agents.step import Said, Steps
from stoker.core.errors import Conflict, NotFound
from stoker.core.messages import Owner
from stoker.llm.contract import LlmOutput
from stoker.llm.contract import ToolCall as Asked

pytestmark = pytest.mark.unit

NUMBER = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
CONFIG = {
    "core_app_ref": "examples/llm",
    "tools": [
        {"name": "mine", "type": "client", "client": {"input_schema": NUMBER}},
        {"name": "asks", "type": "client", "require_approval": True, "client": {"input_schema": NUMBER}},
        {"name": "app", "type": "app", "app": {"ref": "a/b"}},
        {"name": "web", "type": "http", "require_approval": True, "http": {"url": "https://e.example/x"}},
    ],
    "internal_tools": {"plan": True, "memory": True, "finish": True},
}
STEPS = Steps(now_ms=1000)


def new(**config):
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config(CONFIG | config))
    return STEPS.say(chat, Said(text="Hello"))


def asks(*calls):
    return LlmOutput(
        tool_calls=tuple(
            Asked(id=f"m{number}", name=name, arguments=arguments)
            for number, (name, arguments) in enumerate(calls)
        )
    )


def called(*calls, **config):
    chat = new(**config)
    return STEPS.answered(chat, chat.turn.id, asks(*calls))


def statuses(chat):
    return [call.status for message in chat.messages for call in message.calls]


def test_a_chat_is_busy_from_the_first_word_on():
    chat = new()
    assert (chat.status, chat.polled_status, chat.run.state) == (
        ChatStatus.BUSY,
        ChatStatus.BUSY,
        RunState.SUBMITTED,
    )
    assert [(message.role, message.status) for message in chat.messages] == [
        ("user", MessageStatus.READY),
        ("assistant", MessageStatus.PENDING),
    ]
    assert decide_orders(chat) == (AskModel(answer_id="c-1"),)


def test_an_answer_without_calls_ends_the_run():
    chat = new()
    chat = STEPS.answered(STEPS.asked(chat, "c-1", "t1"), "c-1", LlmOutput(response="Hi"))
    assert (chat.status, chat.run.state, chat.output) == (ChatStatus.IDLE, RunState.COMPLETED, None)
    assert decide_orders(chat) == ()
    assert decide_due_s(chat, 0, 60) is None


@pytest.mark.parametrize(
    ("calls", "status", "polled", "state"),
    [
        ([("mine", '{"a":1}')], "busy", "awaiting_input", "working"),
        ([("asks", '{"a":1}')], "awaiting_input", "awaiting_input", "input_required"),
        ([("app", "{}")], "busy", "busy", "working"),
        ([("asks", '{"a":1}'), ("app", "{}")], "busy", "awaiting_input", "working"),
        ([("asks", '{"a":1}'), ("mine", '{"a":1}')], "busy", "awaiting_input", "working"),
        ([("plan", '{"steps":[]}')], "busy", "busy", "working"),
    ],
)
def test_what_a_chat_says_while_tools_work_or_wait(calls, status, polled, state):
    """The contract's table: who waits for a client tool must look busy, who waits for approval must not."""
    chat = called(*calls)
    assert (chat.status, chat.polled_status, chat.run.state) == (status, polled, state)


def test_parallel_calls_are_collected_before_the_model_goes_on():
    chat = called(("mine", '{"a":1}'), ("mine", '{"a":2}'), ("app", "{}"))
    chat = STEPS.give(chat, "c-1-1", "second")
    chat = STEPS.worked(chat, "c-1-2", "third")
    assert chat.turn.id == "c-1"
    chat = STEPS.give(chat, "c-1-0", "first")
    assert [(m.role, m.text, m.tool_call_id) for m in chat.messages[2:]] == [
        ("tool", "first", "m0"),
        ("tool", "second", "m1"),
        ("tool", "third", "m2"),
        ("assistant", "", ""),
    ]
    given = model_input(chat, chat.turn)
    assert (given["role"], given["text"], given["tool_call_id"]) == ("tool", "third", "m2")
    assert [turn["role"] for turn in given["context"]] == ["user", "assistant", "tool", "tool"]


def test_of_a_tool_with_a_session_one_call_opens_it_and_the_others_join():
    tool = {"name": "count", "type": "app", "app": {"ref": "a/counter", "session_enabled": True}}
    chat = called(("count", "{}"), ("count", "{}"), ("app", "{}"), tools=[*CONFIG["tools"], tool])
    assert [order.call.id for order in decide_orders(chat)] == ["c-1-0", "c-1-2"]
    failed = STEPS.worked(chat, "c-1-0", "no", failed=True)
    assert [order.call.id for order in decide_orders(failed)] == ["c-1-1", "c-1-2"]
    opened = STEPS.in_session(chat, chat.config.tools[-1], "s1")
    assert [order.call.id for order in decide_orders(opened)] == ["c-1-0", "c-1-1", "c-1-2"]
    assert decide_orders(STEPS.out_of_session(opened, {"c-1-0": "count"})) == decide_orders(chat)


def test_the_call_that_was_begun_opens_the_session_wherever_it_stands():
    """People allow calls in any order, and a session may be over for one call while another still works in it."""
    tool = {"name": "count", "type": "app", "require_approval": True}
    tool |= {"app": {"ref": "a/counter", "session_enabled": True}}
    chat = called(("count", "{}"), ("count", "{}"), tools=[tool])
    chat = STEPS.decide(chat, "c-1-1", allow=True)
    chat = STEPS.asked(chat, "c-1-1", "t1")
    chat = STEPS.decide(chat, "c-1-0", allow=True)
    assert [order.call.id for order in decide_orders(chat)] == ["c-1-1"]
    chat = STEPS.in_session(chat, chat.config.tools[0], "s1")
    chat = STEPS.asked(chat, "c-1-0", "t0")
    assert [order.call.id for order in decide_orders(chat)] == ["c-1-0", "c-1-1"]
    chat = STEPS.out_of_session(chat, {"c-1-0": "count"})
    assert [order.call.id for order in decide_orders(chat)] == ["c-1-1"]


def test_a_memory_that_would_be_too_large_stays_and_the_model_is_told():
    chat = called(("memory", '{"set":{"a":"1"}}'))
    assert chat.memory == {"a": "1"}
    full = called(("memory", f'{{"set":{{"a":"{"x" * MAX_BYTES}"}}}}'))
    assert (full.memory, statuses(full)) == ({}, [CallStatus.FAILED])
    assert "Forget something" in full.call("c-1-0").result


def test_the_first_result_wins():
    chat = STEPS.give(called(("mine", '{"a":1}')), "c-1-0", "one")
    with pytest.raises(Conflict, match="does not wait for a result: it is completed"):
        STEPS.give(chat, "c-1-0", "two")
    with pytest.raises(NotFound):
        STEPS.give(chat, "c-1-9", "two")
    assert chat.call("c-1-0").result == "one"


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("mine", '{"a"', "not valid JSON"),
        ("mine", "[1]", "not a JSON object"),
        ("mine", '{"a":"x"}', "do not fit the tool: a: "),
        ("mine", "{}", '"a" is a required property'),
        ("yours", "{}", "There is no tool 'yours'; there are: mine, asks, app, web, plan, memory, finish."),
    ],
)
def test_a_call_that_cannot_be_made_goes_back_to_the_model(name, arguments, told):
    chat = called((name, arguments))
    assert statuses(chat) == [CallStatus.FAILED]
    assert told in conversation(chat, 99)[-1]["text"]
    assert chat.turn.status is MessageStatus.PENDING


def test_arguments_that_are_no_json_are_not_sent_to_the_model_again():
    chat = called(("mine", '{"a"'))
    [call] = conversation(chat, 99)[1]["tool_calls"]
    assert call["function"]["arguments"] == "{}"


def test_an_approved_client_tool_is_handed_to_the_client_and_another_is_made():
    chat = called(("asks", '{"a":1}'), ("web", "{}"))
    assert decide_orders(chat) == ()
    chat = STEPS.decide(chat, "c-1-1", allow=True)
    assert [type(order) for order in decide_orders(chat)] == [UseTool]
    chat = STEPS.decide(chat, "c-1-0", allow=True)
    assert statuses(chat) == [CallStatus.AWAITING_INPUT, CallStatus.IN_PROGRESS]


def test_a_denied_call_is_told_with_the_reason():
    chat = STEPS.decide(called(("web", "{}")), "c-1-0", allow=False, reason="too dear")
    assert statuses(chat) == [CallStatus.CANCELLED]
    assert chat.messages[2].text == "The user did not allow this call: too dear"


def test_a_tool_that_was_allowed_for_ever_asks_no_more():
    chat = STEPS.allow_always(called(("web", "{}")), "c-1-0")
    chat = STEPS.worked(chat, "c-1-0", "done")
    chat = STEPS.answered(chat, chat.turn.id, asks(("web", "{}")))
    assert statuses(chat)[-1] is CallStatus.IN_PROGRESS


def test_finish_ends_the_run_with_its_arguments_and_drops_other_calls():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    chat = called(("finish", '{"n":3}'), ("mine", '{"a":1}'), output_schema=schema)
    assert (chat.output, chat.run.output, chat.run.state) == ({"n": 3}, {"n": 3}, RunState.COMPLETED)
    assert statuses(chat) == [CallStatus.COMPLETED, CallStatus.CANCELLED]


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"turns": 1}, "The run has used its 1 turns"),
        ({"tool_calls": 2}, "The run has used its 2 tool calls"),
        ({"tokens": 5}, "The run has used its 5 tokens"),
    ],
)
def test_a_run_ends_at_its_limits(limits, why):
    chat = new(limits=limits)
    calls = asks(("plan", '{"steps":[]}'), ("memory", "{}")).tool_calls
    for usage in ({"total_tokens": 5}, {"prompt_tokens": 3, "completion_tokens": 2}):
        ended = STEPS.answered(chat, chat.turn.id, LlmOutput(tool_calls=calls, usage=usage))
        assert ended.run.state is RunState.FAILED
        assert ended.run.error.startswith(why)
        assert ended.turn.status is MessageStatus.FAILED


def test_of_the_calls_of_one_answer_only_those_within_the_limit_are_made():
    chat = called(("web", "{}"), ("web", "{}"), ("web", "{}"), limits={"tool_calls": 2})
    assert [call.status is CallStatus.FAILED for call in chat.turn.calls] == [False, False, True]
    assert chat.turn.calls[2].result.startswith("The run has used its 2 tool calls")


def test_the_systems_bound_holds_where_the_agent_says_nothing():
    chat = new()
    chat = Steps(now_ms=1, bounds=Limits(turns=1)).answered(
        chat, chat.turn.id, asks(("plan", '{"steps":[]}'))
    )
    assert "1 turns" in chat.run.error


def test_what_is_said_while_the_model_works_has_its_turn_afterwards():
    chat = STEPS.say(new(), Said(text="And this"))
    assert chat.messages[-1].status is MessageStatus.QUEUED
    chat = STEPS.answered(chat, "c-1", LlmOutput(response="ok"))
    assert chat.busy
    assert chat.run.user_message_id == "c-2"
    assert [turn["text"] for turn in conversation(chat, 99)] == ["Hello", "ok", "And this"]


def test_a_message_that_waited_is_asked_after_all_that_came_of_the_one_before():
    """It was said before the tool's result and the answer to it, and has its turn after both."""
    chat = STEPS.say(new(), Said(text="And this"))
    chat = STEPS.say(chat, Said(text="And that"))
    chat = STEPS.answered(chat, "c-1", asks(("plan", '{"steps":[]}')))
    chat = STEPS.answered(chat, chat.turn.id, LlmOutput(response="planned"))
    texts = [turn["text"] for turn in conversation(chat, chat.turn.order)]
    assert texts == ["Hello", "", "ok", "planned", "And this"]
    chat = STEPS.answered(chat, chat.turn.id, LlmOutput(response="this it is"))
    texts = [turn["text"] for turn in conversation(chat, chat.turn.order)]
    assert texts[3:] == ["planned", "And this", "this it is", "And that"]


def test_what_waits_has_its_turn_before_what_gives_up_a_call():
    chat = STEPS.say(new(), Said(text="first"))
    chat = STEPS.answered(chat, "c-1", asks(("mine", '{"a":1}')))
    chat = STEPS.say(chat, Said(text="second"))
    assert chat.message(chat.run.user_message_id).text == "first"
    assert [m.text for m in chat.messages if m.status is MessageStatus.QUEUED] == ["second"]


def test_a_queued_message_can_be_taken_back():
    chat = STEPS.unqueue(STEPS.say(new(), Said(text="And this")), "c-2")
    chat = STEPS.answered(chat, "c-1", LlmOutput(response="ok"))
    assert not chat.busy
    with pytest.raises(Conflict):
        STEPS.unqueue(chat, "c-2")


def test_a_new_message_gives_up_what_waits_for_people():
    chat = STEPS.say(called(("mine", '{"a":1}')), Said(text="Never mind"))
    assert statuses(chat) == [CallStatus.CANCELLED]
    assert (chat.run.state, chat.run.user_message_id) == (RunState.SUBMITTED, "c-2")
    roles = [turn["role"] for turn in conversation(chat, 99)]
    assert roles == ["user", "assistant", "tool", "user"]


def test_stop_cancels_the_models_task_and_what_waits():
    chat = STEPS.stop(STEPS.asked(new(), "c-1", "t1"))
    assert (chat.status, chat.run.state, chat.to_cancel) == (ChatStatus.IDLE, RunState.CANCELED, ("t1",))
    assert chat.turn.status is MessageStatus.CANCELLED
    assert statuses(STEPS.stop(called(("mine", '{"a":1}')))) == [CallStatus.CANCELLED]


def test_what_is_to_end_and_is_not_there_yet_is_looked_for_once_more():
    stopped = STEPS.stop(STEPS.asked(new(), "c-1", "t1"))
    assert STEPS.tidied(stopped, ["t1"]).to_cancel == ("t1",)
    assert STEPS.tidied(stopped).to_cancel == ()
    later = Steps(now_ms=STEPS.now_ms + 60_000)
    assert later.tidied(stopped, ["t1"]).to_cancel == ()


def test_a_late_answer_of_a_stopped_run_changes_nothing():
    chat = STEPS.stop(STEPS.asked(new(), "c-1", "t1"))
    assert STEPS.answered(chat, "c-1", LlmOutput(response="late")) == chat
    assert STEPS.failed(chat, "c-1", "late") == chat


def test_a_client_that_stays_silent_is_not_waited_for_for_ever():
    chat = called(("mine", '{"a":1}'))
    assert decide_due_s(chat, 1000, 30) == 30
    assert STEPS.expire(chat, 30) == chat
    late = Steps(now_ms=31_000).expire(chat, 30)
    assert late.messages[2].text == "No result came within 30 seconds."
    assert late.turn.status is MessageStatus.PENDING


def test_a_failed_model_fails_the_run():
    chat = STEPS.failed(new(), "c-1", "out of memory")
    assert (chat.run.state, chat.run.error, chat.turn.error) == (
        RunState.FAILED,
        "out of memory",
        "out of memory",
    )


TOOLS = ["mine", "asks", "app", "web", "plan", "memory", "unknown"]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.none()),
        st.tuples(st.just("stop"), st.none()),
        st.tuples(st.just("answer"), st.lists(st.sampled_from([*TOOLS, "finish"]), max_size=3)),
        st.tuples(st.just("fail"), st.none()),
        st.tuples(st.just("tools"), st.booleans()),
        st.tuples(st.just("deny"), st.none()),
    ),
    max_size=25,
)


def happen(chat, event, detail):
    """One event, whatever the chat is doing; what does not fit changes nothing."""
    turn = chat.turn
    if event == "say":
        return STEPS.say(chat, Said(text="more"))
    if event == "stop":
        return STEPS.stop(chat)
    if event == "answer":
        arguments = {"mine": '{"a":1}', "asks": '{"a":1}', "plan": '{"steps":[]}', "finish": '{"result":"x"}'}
        return STEPS.answered(chat, turn.id, asks(*((name, arguments.get(name, "{}")) for name in detail)))
    if event == "fail":
        return STEPS.failed(chat, turn.id, "broken")
    for call in chat.open_calls:
        if call.status is CallStatus.AWAITING_APPROVAL:
            chat = STEPS.decide(chat, call.id, allow=event == "tools")
        elif call.status is CallStatus.AWAITING_INPUT:
            chat = STEPS.give(chat, call.id, "done")
        else:
            chat = STEPS.worked(chat, call.id, "done", failed=detail is False)
    return chat


@given(EVENTS)
def test_a_chat_never_hangs_and_never_works_when_it_is_idle(events):
    chat = new()
    for event, detail in events:
        chat = happen(chat, event, detail)
        turn, open_calls = chat.turn, chat.open_calls
        assert [message.order for message in chat.messages] == list(range(len(chat.messages)))
        assert len({call.id for m in chat.messages for call in m.calls}) == sum(
            len(m.calls) for m in chat.messages
        )
        if chat.busy:  # somebody is waited for
            assert turn.status is MessageStatus.PENDING or open_calls
            waits = {call.status for call in open_calls}
            due = decide_due_s(chat, 1000, 60)
            assert (due is None) == (waits == {CallStatus.AWAITING_APPROVAL})  # people may take days
        else:
            assert turn.status is not MessageStatus.PENDING
            assert not any(m.status is MessageStatus.QUEUED for m in chat.messages)
            assert all(call.status in CALL_OVER for m in chat.messages for call in m.calls)
        for before in chat.messages:
            if before.id != turn.id:
                assert before.status is not MessageStatus.PENDING
                assert all(call.result is not None for call in before.calls)


@given(EVENTS)
def test_an_event_that_comes_twice_has_its_effect_once(events):
    chat = new()
    for event, detail in events:
        turn = chat.turn
        after = happen(chat, event, detail)
        if event == "answer":
            output = asks(*((name, "{}") for name in detail))
            assert STEPS.answered(after, turn.id, output) == after
        chat = after
