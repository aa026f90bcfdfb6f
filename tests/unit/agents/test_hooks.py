"""Hooks: which there may be, what they are told and when, and what waits for their answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.agents.chat import CallStatus, Chat, MessageStatus, RunState
from stoker.agents.config import read_config
from stoker.agents.hooks import Decision, HookEvent, Verdict, read_verdict, verdict_of
from stoker.agents.orders import AskModel, UseTool, decide_due_s, decide_orders
from stoker.agents.step import Said, Steps
from stoker.agents.telling import hook_event, without
from stoker.core.errors import InvalidRequest
from stoker.core.messages import Owner
from stoker.llm.contract import LlmOutput
from stoker.llm.contract import ToolCall as Asked

pytestmark = pytest.mark.unit

STEPS = Steps(now_ms=1000)
URL = "https://hooks.example/x"
EVERY = [{"event": str(event), "type": "webhook", "handler": URL} for event in HookEvent]
BEHIND = [hook | {"async": True} for hook in EVERY]
TOOLS = [
    {"name": "mine", "type": "client", "client": {}},
    {"name": "web", "type": "http", "http": {"url": "https://e.example/x"}},
    {"name": "asks", "type": "http", "require_approval": True, "http": {"url": "https://e.example/x"}},
]
FINISH = {"internal_tools": {"finish": True}}


def config(hooks, **more):
    return read_config({"core_app_ref": "a/b", "tools": TOOLS, "hooks": hooks} | more)


def new(hooks, **more):
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=config(hooks, **more))
    return STEPS.say(chat, Said(text="Hello"))


def calling(*names, arguments="{}"):
    return LlmOutput(
        tool_calls=tuple(Asked(id=f"m{n}", name=name, arguments=arguments) for n, name in enumerate(names))
    )


def events(chat):
    return [one.event.value.removeprefix("agent.") for one in chat.hooks]


def open_ids(chat):
    return [one.id for one in chat.hooks]


def allowed(chat, decision=Decision.ALLOW, reason=""):
    """All hooks that are open now have answered so."""
    for hook_id in open_ids(chat):
        chat = STEPS.hooked(chat, hook_id, Verdict(decision=decision, reason=reason))
    return chat


def drained(chat):
    """The chat when its hooks were told, and what they were told."""
    told = [hook_event(chat, one.event, one.part, one.at_ms, one.detail) for one in chat.hooks]
    return without(chat, *open_ids(chat)), told


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (
            {"type": "gate"},
            "hooks.0.type: hooks of the type 'gate' are not done here; it may be webhook (and",
        ),
        ({"type": "task"}, "hooks.0.type: hooks of the type 'task' are not done here"),
        ({"type": "builtin"}, "hooks.0.type: hooks of the type 'builtin' are not done here"),
        (
            {"event": "agent.born"},
            "hooks.0.event: 'agent.born' is unknown; it may be agent.start, agent.turn",
        ),
        ({"handler": "belt:suggest"}, "hooks.0.handler: 'belt:suggest' is no http or https address"),
        ({"handler": None}, "hooks.0.handler: 'None' is no http or https address"),
        ({"timeout": 0}, "hooks.0.timeout: '0' is no number of seconds above 0 and up to 30"),
        ({"timeout": 5000}, "hooks.0.timeout: '5000' is no number of seconds"),
        ({"timeout": True}, "hooks.0.timeout: 'True' is no number of seconds"),
    ],
)
def test_a_hook_that_is_not_supported_is_refused_with_what_is(hook, says):
    with pytest.raises(InvalidRequest) as refusal:
        config([EVERY[0] | hook])
    assert says in refusal.value.message


def test_hooks_that_are_built_into_the_platform_are_left_out():
    hooks = config([{"event": "agent.idle", "type": "builtin", "handler": "belt:suggest"}, *EVERY]).hooks
    assert [hook.event for hook in hooks] == list(HookEvent)
    assert all(hook.waits for hook in hooks)
    assert not any(hook.waits for hook in config(BEHIND).hooks)


def test_an_agent_without_hooks_notes_nothing():
    chat = STEPS.answered(new([]), "c-1", LlmOutput(response="Hi"))
    assert chat.hooks == ()


def test_all_that_happens_is_told_in_order():
    chat = new(BEHIND)
    assert events(chat) == ["start", "turn_start"]
    assert [type(order) for order in decide_orders(chat)] == [AskModel]
    chat = STEPS.answered(chat, "c-1", calling("web", "unknown"))
    chat = STEPS.worked(chat, "c-1-0", "done")
    chat = STEPS.answered(chat, chat.turn.id, LlmOutput(response="Bye"))
    expected = "start turn_start tool_call tool_result turn_complete turn_start turn_complete complete idle"
    assert events(chat) == expected.split()
    assert len(set(open_ids(chat))) == len(open_ids(chat))
    assert decide_due_s(chat, 1000, 60) is not None
    _, told = drained(chat)
    assert {one["run_id"] for one in told} == {"c-r1"}
    assert told[0]["message"] == "Hello"
    assert told[1] == told[1] | {"event": "agent.turn_start", "message_id": "c-1", "turn": 1}
    assert told[3] == told[3] | {
        "tool_invocation_id": "c-1-0", "tool": "web", "type": "http", "arguments": {},
        "status": "completed", "result": "done",
    }  # fmt: skip
    assert told[4]["tools"] == ["web", "unknown"]
    assert (told[7]["text"], told[7]["output"]) == ("Bye", None)
    assert told[8]["state"] == "completed"


def test_an_error_a_stop_and_an_output_are_told():
    chat = STEPS.failed(new(BEHIND), "c-1", "out of memory")
    _, told = drained(chat)
    assert events(chat)[-2:] == ["error", "idle"]
    assert (told[-2]["error"], told[-1]["state"]) == ("out of memory", "failed")
    chat = STEPS.stop(STEPS.answered(new(BEHIND), "c-1", calling("web")))
    assert events(chat)[-2:] == ["tool_result", "idle"]
    assert drained(chat)[1][-1]["state"] == "canceled"
    chat = STEPS.answered(new(BEHIND, **FINISH), "c-1", calling("finish", arguments='{"result":"x"}'))
    assert events(chat)[-3:] == ["turn_complete", "complete", "idle"]
    assert drained(chat)[1][-2]["output"] == {"result": "x"}


def test_what_was_told_of_a_run_stays_the_same_when_the_next_one_has_begun():
    chat = STEPS.answered(new(BEHIND), "c-1", LlmOutput(response="One"))
    [first] = [one for one in chat.hooks if one.event is HookEvent.COMPLETE]
    again = STEPS.answered(STEPS.say(chat, Said(text="And?")), "c-3", LlmOutput(response="Two"))
    assert hook_event(again, first.event, first.part, 0, "") == hook_event(
        chat, first.event, first.part, 0, ""
    )


def test_the_model_waits_for_hooks_and_is_asked_then():
    chat = new(EVERY)
    assert decide_orders(chat) == ()
    assert decide_due_s(chat, 1000, 60) is not None
    first, second = open_ids(chat)
    chat = STEPS.hooked(chat, first, Verdict())
    assert decide_orders(chat) == ()
    chat = STEPS.hooked(chat, second, Verdict())
    assert [type(order) for order in decide_orders(chat)] == [AskModel]
    assert STEPS.hooked(chat, second, Verdict(decision=Decision.STOP)) == chat


def test_a_call_waits_for_its_hook():
    chat = STEPS.answered(allowed(new(EVERY)), "c-1", calling("web", "mine", "asks"))
    assert {call.status for call in chat.turn.calls} == {CallStatus.PENDING}
    assert chat.run.state is RunState.WORKING
    assert decide_orders(chat) == ()
    chat = allowed(chat)
    statuses = [call.status for call in chat.turn.calls]
    assert statuses == [CallStatus.IN_PROGRESS, CallStatus.AWAITING_INPUT, CallStatus.AWAITING_APPROVAL]
    assert [type(order) for order in decide_orders(chat)] == [UseTool]


def test_a_call_is_made_when_all_its_hooks_allow_it():
    call_hook = next(hook for hook in EVERY if hook["event"] == "agent.tool_call")
    chat = STEPS.answered(new([call_hook, call_hook]), "c-1", calling("web"))
    first, second = open_ids(chat)
    suspended = STEPS.hooked(chat, first, Verdict(decision=Decision.SUSPEND))
    assert suspended.call("c-1-0").status is CallStatus.PENDING
    assert STEPS.hooked(suspended, second, Verdict()).call("c-1-0").status is CallStatus.AWAITING_APPROVAL
    denied = STEPS.hooked(chat, first, Verdict(decision=Decision.DENY, reason="no web"))
    assert denied.messages[2].text == "The hook of agent.tool_call did not allow it: no web"
    assert STEPS.hooked(denied, second, Verdict()).call("c-1-0").status is CallStatus.CANCELLED


def test_a_hook_may_end_the_run():
    chat = STEPS.hooked(new(EVERY), "c-r1-start-0", Verdict(decision=Decision.DENY, reason="closed"))
    assert (chat.run.state, chat.turn.status) == (RunState.FAILED, MessageStatus.FAILED)
    assert chat.run.error == "The hook of agent.start did not allow it: closed"
    working = STEPS.answered(allowed(new(EVERY)), "c-1", calling("web"))
    chat = allowed(working, Decision.STOP)
    assert (chat.run.state, chat.run.error) == (
        RunState.CANCELED,
        "The hook of agent.tool_call stopped the run.",
    )
    assert [call.status for call in chat.turn.calls] == [CallStatus.CANCELLED]


def test_an_answer_for_a_run_that_is_over_changes_nothing_of_the_next():
    chat = STEPS.say(STEPS.stop(new(EVERY)), Said(text="Again"))
    for hook_id in [one for one in open_ids(chat) if "-r2-" not in one and not one.startswith("c-3")]:
        chat = STEPS.hooked(chat, hook_id, Verdict(decision=Decision.STOP))
    assert chat.run.id == "c-r2"
    assert chat.busy


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ('{"decision": "deny", "reason": "x"}', Decision.DENY),
        ('{"decision": "suspend"}', Decision.SUSPEND),
        ('{"decision": "maybe"}', Decision.ALLOW),
        ('{"decision": ["deny"]}', Decision.ALLOW),
        ("(an empty answer)", Decision.ALLOW),
        ("[]", Decision.ALLOW),
    ],
)
def test_an_answer_that_decides_nothing_allows(text, decision):
    assert read_verdict(text).decision is decision


@pytest.mark.parametrize("event", list(HookEvent))
def test_a_hook_that_cannot_be_asked_keeps_a_tool_from_working_and_nothing_else(event):
    said = verdict_of(event, "no answer within 10 s")
    assert (said.decision is Decision.DENY) == (event is HookEvent.TOOL_CALL)


STEPS_OF_A_CHAT = st.lists(
    st.sampled_from(["say", "stop", "text", "web", "mine", "asks", "fail", "tools", *Decision]), max_size=25
)


def happen(chat, step):
    """One event, whatever the chat is doing; what does not fit changes nothing."""
    if step == "say":
        return STEPS.say(chat, Said(text="more"))
    if step == "stop":
        return STEPS.stop(chat)
    if step in {one.value for one in Decision}:
        return allowed(chat, Decision(step))
    asked = any(isinstance(order, AskModel) for order in decide_orders(chat))
    if step == "fail":
        return STEPS.failed(chat, chat.turn.id, "broken") if asked else chat
    if step == "tools":
        for call in chat.open_calls:
            if call.status is CallStatus.AWAITING_APPROVAL:
                chat = STEPS.decide(chat, call.id, allow=True)
            elif call.status is CallStatus.AWAITING_INPUT:
                chat = STEPS.give(chat, call.id, "done")
            else:
                chat = STEPS.worked(chat, call.id, "done")
        return chat
    output = LlmOutput(response="x") if step == "text" else calling(step)
    return STEPS.answered(chat, chat.turn.id, output) if asked else chat


@settings(max_examples=50)
@given(STEPS_OF_A_CHAT)
def test_a_chat_with_hooks_never_hangs(steps):
    chat = new(EVERY)
    for step in steps:
        chat = happen(chat, step)
        asks = chat.open_calls and {call.status for call in chat.open_calls} == {CallStatus.AWAITING_APPROVAL}
        if chat.busy:
            assert decide_orders(chat) or chat.hooks or chat.open_calls
            assert asks or decide_due_s(chat, 1000, 60) is not None
        else:
            assert chat.turn.status is not MessageStatus.PENDING
        for call in chat.open_calls:
            assert call.status is not CallStatus.PENDING or any(one.part == call.id for one in chat.hooks)
