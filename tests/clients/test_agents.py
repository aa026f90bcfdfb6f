"""Agents through the official clients: the language model is the example app, on a worker; its server is a script.

The clients of two generations and the JavaScript one do the same, each in one process.
"""

import json

import pytest
from clients.sdks import HERE, Sdk, install_js, python_with, run_plan
from helpers import EXAMPLES
from scripted_llm import WAITS, ScriptedLLM, calls, says

pytestmark = pytest.mark.timeout(240)  # the first test of a client also installs and drives it

CLIENTS = [
    Sdk("python", "0.36.0"),
    pytest.param(Sdk("python", "0.36.0", "async"), marks=pytest.mark.long),
    pytest.param(Sdk("python", "0.6.0"), marks=pytest.mark.long),
    pytest.param(Sdk("js", "0.6.54"), marks=pytest.mark.long),
]
MULTIPLY = calls("calculator", '{"a": 42, ', '"b": 17}')
SCRIPT = {
    "talk": [MULTIPLY, says("It is ", "714."), says("Hello ", "again.")],
    "poll": [MULTIPLY, says("714")],
    "approve": [MULTIPLY, says("Allowed.")],
    "reject": [MULTIPLY, says("Then not.")],
    "failing": [MULTIPLY, says("It broke.")],
    "broken": [
        calls("calculator", '{"a": 4'),
        calls("calculator", '{"a": "four", "b": 2}'),
        calls("computer", "{}"),
        says("I give up."),
    ],
    "finish": [calls("finish", '{"answer": "many"}'), calls("finish", '{"answer": 714}')],
    "inside": [
        calls("plan", '{"steps": [{"description": "Multiply"}]}'),
        calls("memory", '{"set": {"name": "Ada"}}'),
        says("Noted."),
    ],
    "late": [says("Late ", "text.")],
    "picture": [says("A dot.")],
    "stop": [[*says("Well"), WAITS]],
    "afterwards": [says("Free again.")],
}
"""What the model answers in each step, in order."""
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
NOTHING = {"messages": [{"role": "", "content": ""}]}
DECIDE = {"approve": "invoke", "reject": "reject"}
MORE = {
    "finish": {
        "output_schema": {
            "type": "object",
            "properties": {"answer": {"type": "number"}},
            "required": ["answer"],
        },
        "internal_tools": {"finish": True},
    },
    "inside": {"internal_tools": {"plan": True, "memory": True, "widget": True, "finish": False}},
}
"""What the agent of a step has beside the others."""


@pytest.fixture(scope="module")
def system(system_with_apps):
    system_with_apps.deploy(EXAMPLES / "llm")
    return system_with_apps


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def facts(request, system):
    """All steps of one client; `requests` are those that the model was sent, by step."""
    sdk = request.param
    model = ScriptedLLM(*(turn for turns in SCRIPT.values() for turn in turns))
    name = f"infsh/claude-{str(sdk).replace('.', '-')}"
    system.cli("apps", "alias", name, "examples/llm", "--setup", f"base_url={model.url}", "--public")
    config = {"core_app_ref": f"{name}@1a2b3c4d", "system_prompt": "You help with math."}
    steps = [
        {
            "name": step,
            "do": step if step in ("poll", "finish", "late", "stop") else "talk",
            "config": config | MORE.get(step, {}),
            "calculator": True,
            "texts": ["What is 42 * 17?", "And hello?"] if step == "talk" else ["What is 42 * 17?"],
            "decide": DECIDE.get(step),
            "failing": step == "failing",
            "picture": PICTURE if step == "picture" else None,
        }
        for step in SCRIPT
    ]
    steps.append({"name": "refused", "do": "refused", "config": {"core_app_ref": "no/such"}, "texts": ["Hi"]})
    plan = {"mode": sdk.mode, "base_url": system.base_url, "key": system.bench_key, "steps": steps}
    if sdk.language == "js":
        install_js()
        command = ["node", "--import", "tsx", "agent_client.ts"]
    else:
        command = [str(python_with(sdk.version)), str(HERE / "drivers" / "agent_client.py")]
    try:
        seen = run_plan(command, plan, 200)
    finally:
        model.close()
    asked = iter(model.requests)
    # A step that a client did not get through asks less often: the tests of its facts are to say so.
    requests = {step: [next(asked, NOTHING)["messages"] for _ in turns] for step, turns in SCRIPT.items()}
    return seen | {"requests": requests, "client": sdk}


def told(facts, step, number):
    """The last message that the model was sent in a request of a step."""
    message = facts["requests"][step][number][-1]
    return message["role"], message["content"]


def last_text(facts, step):
    return facts[step]["messages"][-1][:3]


def test_no_step_fails(facts):
    assert {
        name: step["raised"] for name, step in facts.items() if isinstance(step, dict) and "raised" in step
    } == {}


def test_a_message_is_answered_at_once_with_the_empty_answer(facts):
    first = facts["talk"]["first"][0]
    assert (first["role"], first["status"], first["content"]) == ("assistant", "pending", [])
    assert first["chat_id"] == facts["talk"]["chat"]["id"]


def test_the_clients_own_tool_is_called_with_an_object_and_its_result_goes_to_the_model(facts):
    assert facts["talk"]["calls"] == [["calculator", {"a": 42, "b": 17}]]
    assert told(facts, "talk", 1) == ("tool", "714")
    texts = [
        text
        for role, status, text, _ in facts["talk"]["messages"]
        if (role, status) == ("assistant", "ready")
    ]
    assert texts[-2:] == ["It is 714.", "Hello again."]


def test_a_chat_goes_on(facts):
    chat = facts["talk"]["chat"]
    assert [message["role"] for message in chat["chat_messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    assert (chat["status"], chat["active_run"]["state"], chat["output"]) == ("idle", "completed", None)
    assert [message["role"] for message in facts["requests"]["talk"][2]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert facts["requests"]["talk"][0][0]["content"] == "You help with math."


def test_the_steps_of_a_chat_are_a_graph_to_the_client_that_can_read_it(facts):
    if facts["client"].language != "js":
        return
    trace = facts["talk"]["trace"]
    steps = [(node["type"], node["label"]) for node in trace["nodes"]]
    answer, call = ("execution", "answer"), ("execution", "calculator")
    said = [("trigger", text) for text in ("What is 42 * 17?", "And hello?")]
    assert steps == [said[0], answer, call, answer, said[1], answer]
    assert (trace["total_steps"], trace["completed_steps"], len(trace["edges"])) == (6, 6, 5)


def test_newer_clients_get_the_answer_word_by_word(facts):
    if facts["client"].version == "0.6.0":
        return
    text = "".join(delta.get("response") or "" for delta in facts["talk"]["deltas"])
    # Python opens its stream after the message is sent: an answer that is whole by then comes as a message alone.
    may_be_whole = facts["client"].language == "python"
    assert text in {"It is 714.Hello again.", *(["It is 714."] if may_be_whole else [])}


def test_without_a_callback_the_call_waits_for_whoever_gives_its_result(facts):
    waiting = facts["poll"]["waiting"]
    assert (waiting["status"], waiting["active_run"]["state"]) == ("busy", "working")
    assert told(facts, "poll", 1) == ("tool", "714")
    assert facts["poll"]["chat"]["chat_messages"][-1]["content"] == [{"type": "text", "text": "714"}]
    assert "does not wait for a result: it is completed" in facts["poll"]["twice"]


def test_a_call_that_needs_approval_is_made_when_it_is_given(facts):
    assert len(facts["approve"]["approved"]) == 1
    assert facts["approve"]["calls"] == [["calculator", {"a": 42, "b": 17}]]
    assert last_text(facts, "approve") == ["assistant", "ready", "Allowed."]


def test_a_refused_call_is_not_made_and_the_model_is_told(facts):
    assert facts["reject"]["calls"] == []
    assert told(facts, "reject", 1) == ("tool", "The user did not allow this call.")
    assert last_text(facts, "reject") == ["assistant", "ready", "Then not."]


def test_a_tool_that_fails_says_so_to_the_model(facts):
    role, text = told(facts, "failing", 1)
    assert (role, json.loads(text)) == ("tool", {"error": "the tool broke"})
    assert last_text(facts, "failing") == ["assistant", "ready", "It broke."]


def test_broken_arguments_go_back_to_the_model_and_to_nobody_else(facts):
    assert facts["broken"]["calls"] == []
    wrong = [told(facts, "broken", number)[1] for number in (1, 2, 3)]
    assert "not valid JSON" in wrong[0]
    assert "do not fit the tool: a: " in wrong[1]
    assert "There is no tool 'computer'; there are: calculator." in wrong[2]
    assert last_text(facts, "broken") == ["assistant", "ready", "I give up."]


def test_the_finish_tool_ends_a_run_with_an_output_that_fits_the_schema(facts):
    assert "answer: " in told(facts, "finish", 1)[1]
    assert facts["finish"]["result"] == {"answer": 714}
    assert facts["finish"]["chat"]["active_run"]["output"] == {"answer": 714}


def test_plan_and_memory_are_the_chats_own(facts):
    data = facts["inside"]["chat"]["agent_data"]
    assert data["plan_steps"] == [{"index": 0, "status": "pending", "description": "Multiply"}]
    assert data["memory"] == {"name": "Ada"}
    assert "- name: Ada" in facts["requests"]["inside"][2][0]["content"]
    assert told(facts, "inside", 2) == ("tool", '{"name":"Ada"}')


def test_who_comes_late_is_told_the_last_text_before_the_end(facts):
    assert last_text(facts, "late") == ["assistant", "ready", "Late text."]


def test_a_picture_reaches_the_model(facts):
    if facts["client"].mode == "async":
        return  # it takes no files
    assert last_text(facts, "picture") == ["assistant", "ready", "A dot."]
    text, picture = facts["requests"]["picture"][0][-1]["content"]
    assert (text["type"], picture["type"]) == ("text", "image_url")
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_stopped_chat_is_idle_and_its_answer_cancelled(facts):
    chat = facts["stop"]["chat"]
    assert (chat["status"], chat["active_run"]["state"]) == ("idle", "canceled")
    assert chat["chat_messages"][-1]["status"] == "cancelled"
    assert last_text(facts, "afterwards") == ["assistant", "ready", "Free again."]


def test_what_is_refused_says_why(facts):
    assert "App not found" in facts["refused"]["error"]
