"""The graph of a chat's steps: what follows what, where each one stands, and when it was."""

import pytest

from stoker.agents.chat import Chat
from stoker.agents.config import read_config
from stoker.agents.step import Said, Steps
from stoker.core.messages import Owner
from stoker.core.states import TaskState
from stoker.llm.contract import LlmOutput, ToolCall
from stoker_gateway.chat_trace import task_ids, trace_dto
from stoker_gateway.dto import iso

pytestmark = pytest.mark.unit

CONFIG = {
    "core_app_ref": "a/b",
    "tools": [
        {"name": "mine", "type": "client", "client": {"input_schema": {"type": "object"}}},
        {"name": "app", "type": "app", "app": {"ref": "a/b"}},
        {"name": "asks", "type": "app", "require_approval": True, "app": {"ref": "a/b"}},
        {"name": "helper", "type": "agent", "agent": {"ref": "a/c"}},
    ],
}


def at(now_ms):
    return Steps(now_ms=now_ms)


def begun():
    """Said at 1000; the answer is asked of the task t1."""
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config(CONFIG))
    return at(1000).asked(at(1000).say(chat, Said(text="Do  it")), "c-1", "t1")


def called(*names):
    """At 2000 the model has called tools."""
    calls = tuple(ToolCall(id=f"m{number}", name=name) for number, name in enumerate(names))
    return at(2000).answered(begun(), "c-1", LlmOutput(tool_calls=calls, usage={"total_tokens": 7}))


def arrows(trace, kind=None):
    return [(e["from_node"], e["to_node"]) for e in trace["edges"] if kind is None or e["type"] == kind]


def node(trace, own_id):
    [found] = [one for one in trace["nodes"] if one["id"] == own_id]
    return found


def times(shown):
    return [shown[name] for name in ("ready_at", "started_at", "completed_at", "duration_ms")]


def test_what_was_said_leads_to_the_answer_which_is_a_task():
    trace = trace_dto(begun(), {})
    assert [(n["id"], n["type"], n["status"]) for n in trace["nodes"]] == [
        ("c-0", "trigger", "completed"),
        ("c-1", "execution", "running"),
    ]
    assert arrows(trace) == [("c-0", "c-1")]
    said, answer = trace["nodes"]
    assert (said["label"], said["resource_type"], said["resource_id"]) == ("Do it", "chat_message", "c-0")
    assert (answer["resource_type"], answer["resource_id"]) == ("task", "t1")
    assert {name: trace[name] for name in trace if name.endswith("_steps")} == {
        "total_steps": 2,
        "completed_steps": 1,
        "running_steps": 1,
        "failed_steps": 0,
    }


def test_calls_of_one_answer_lie_beside_each_other_and_before_the_next_answer():
    chat = at(2500).asked(called("mine", "app"), "c-1-1", "t2")
    assert task_ids(chat) == ["t1", "t2"]
    chat = at(3000).worked(at(4000).give(chat, "c-1-0", "x"), "c-1-1", "y")
    trace = trace_dto(chat, {})
    assert arrows(trace) == [
        ("c-0", "c-1"),
        ("c-1", "c-1-0"),
        ("c-1", "c-1-1"),
        ("c-1-0", "c-4"),
        ("c-1-1", "c-4"),
    ]
    mine, app = node(trace, "c-1-0"), node(trace, "c-1-1")
    assert (mine["resource_type"], mine["resource_id"], mine["label"]) == ("tool_invocation", "c-1-0", "mine")
    assert (app["resource_type"], app["resource_id"]) == ("task", "t2")
    assert times(mine) == [iso(2000), iso(2000), iso(4000), 2000]
    assert app["metadata"] == {
        "chat_message_id": "c-1",
        "agent_run_id": "c-r1",
        "tool_invocation_id": "c-1-1",
        "tool_call_id": "m1",
        "tool_name": "app",
        "tool_type": "app",
        "task_id": "t2",
    }
    assert node(trace, "c-1")["metadata"]["usage"] == {"total_tokens": 7}
    assert node(trace, "c-4")["status"] == "ready"


def test_a_step_that_is_a_task_has_the_times_of_the_task_as_long_as_it_is_kept():
    chat = at(9000).answered(begun(), "c-1", LlmOutput(response="ok"))
    assert times(node(trace_dto(chat, {}), "c-1")) == [iso(1000), iso(1000), iso(9000), 8000]
    moves = [
        (0, TaskState.QUEUED, 1001),
        (1, TaskState.RUNNING, 2000),
        (1, TaskState.QUEUED, 3000),
        (2, TaskState.RUNNING, 5000),
        (2, TaskState.COMPLETED, 8000),
    ]
    assert times(node(trace_dto(chat, {"t1": moves}), "c-1")) == [iso(1001), iso(5000), iso(8000), 3000]
    assert times(node(trace_dto(begun(), {"t1": moves[:1]}), "c-1")) == [iso(1001), None, None, None]
    nonsense = [(0, TaskState.QUEUED, 10**18)]
    assert times(node(trace_dto(chat, {"t1": nonsense}), "c-1")) == [iso(1000), iso(1000), iso(9000), 8000]


@pytest.mark.parametrize(("allow", "status"), [(True, "running"), (False, "cancelled")])
def test_a_question_to_people_lies_between_the_answer_and_the_call(allow, status):
    waiting = called("asks")
    trace = trace_dto(waiting, {})
    assert arrows(trace) == [("c-0", "c-1"), ("c-1", "c-1-0-ask"), ("c-1-0-ask", "c-1-0")]
    asked = node(trace, "c-1-0-ask")
    assert (asked["type"], asked["status"], asked["resource_type"]) == ("approval", "running", "interrupt")
    assert (node(trace, "c-1-0")["status"], times(node(trace, "c-1-0"))) == ("pending", [None] * 4)
    trace = trace_dto(at(5000).decide(waiting, "c-1-0", allow=allow), {})
    asked = node(trace, "c-1-0-ask")
    assert (asked["status"], asked["metadata"]["resolution"]) == ("completed", "allow" if allow else "deny")
    assert times(asked) == [iso(2000), iso(2000), iso(5000), 3000]
    assert node(trace, "c-1-0")["status"] == status
    assert arrows(trace, "conditional") == [("c-1-0-ask", "c-1-0")]


def test_a_sub_agents_call_names_its_chat():
    chat = at(2500).asked(called("helper"), "c-1-0", "chat:d")
    shown = node(trace_dto(chat, {}), "c-1-0")
    assert (shown["resource_type"], shown["resource_id"], shown["metadata"]["chat_id"]) == ("chat", "d", "d")


def test_what_failed_says_why():
    trace = trace_dto(at(3000).failed(begun(), "c-1", "no model"), {})
    assert (trace["failed_steps"], node(trace, "c-1")["metadata"]["error"]) == (1, "no model")
    unknown = trace_dto(called("nonsense"), {})
    call = node(unknown, "c-1-0")
    assert (call["status"], call["completed_at"]) == ("failed", iso(2000))
    assert "There is no tool 'nonsense'" in call["metadata"]["error"]


def test_runs_follow_each_other_and_what_waits_for_its_turn_is_pending():
    chat = at(1500).say(begun(), Said(text="Then that"))
    trace = trace_dto(chat, {})
    assert (node(trace, "c-2")["status"], arrows(trace)) == ("pending", [("c-0", "c-1")])
    chat = at(2000).answered(chat, "c-1", LlmOutput(response="ok"))
    trace = trace_dto(chat, {})
    assert node(trace, "c-2")["status"] == "completed"
    assert arrows(trace, "flow") == [("c-1", "c-2")]
    assert arrows(trace, "execution") == [("c-0", "c-1"), ("c-2", "c-3")]


def test_a_chat_without_a_message_has_no_steps():
    empty = trace_dto(Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config(CONFIG)), {})
    assert (empty["graph_id"], empty["nodes"], empty["edges"], empty["total_steps"]) == ("c", [], [], 0)
