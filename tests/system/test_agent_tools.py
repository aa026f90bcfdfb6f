"""The tools that the system itself works with, stored agents, and what a chat survives: over plain HTTP, on real parts."""

import hashlib
import hmac
import itertools
import json
import tempfile
from pathlib import Path

import httpx
import pytest
from clients import raw
from helpers import EXAMPLES, kill, running_system, wait_until
from scripted_llm import ScriptedLLM, calls, says

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]  # builds environments

ANY = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


@pytest.fixture(scope="module")
def system():
    with tempfile.TemporaryDirectory(prefix="stoker agents ", ignore_cleanup_errors=True) as folder:
        allowed = {f"STOKER_{what}_ALLOW": "127.0.0.1" for what in ("WEBHOOK", "SKILL")}
        with running_system(Path(folder) / "data", "--workers", "2", **allowed) as running:
            running.deploy(EXAMPLES / "llm")
            running.deploy(EXAMPLES / "text")
            yield running


@pytest.fixture
def http(system):
    with raw.client(system, raw.CURL) as made:
        yield made


@pytest.fixture
def model():
    served = ScriptedLLM()
    yield served
    served.close()


def config(model, *tools, **more):
    core = {"ref": "examples/llm", "setup": {"base_url": model.url, "model": "m"}}
    return {"core_app": core, "tools": list(tools)} | more


def say(http, text="Go", **body):
    """The id of the chat."""
    made = raw.data_of(http.post("/agents/run", json={"input": {"text": text}, **body}))
    return made["assistant_message"]["chat_id"]


def ended(http, chat_id):
    def idle():
        chat = raw.data_of(http.get(f"/chats/{chat_id}"))
        return chat if chat["status"] == "idle" else None

    return wait_until(idle, f"the end of the run of chat {chat_id}")


def results(chat):
    return [(c["status"], c["result"]) for m in chat["chat_messages"] for c in m["tool_invocations"]]


def test_an_app_as_a_tool_is_a_task_of_the_chat(http, model):
    model.script = [calls("split", '{"text": "a b"}'), says("Two.")]
    split = {"name": "split", "type": "app", "app": {"ref": "examples/text:split", "input": {"by": "words"}}}
    chat = ended(http, say(http, agent_config=config(model, split)))
    assert results(chat) == [("completed", '{"parts":["a","b"]}')]
    [told] = model.requests[0]["tools"]
    assert set(told["function"]["parameters"]["properties"]) == {"text", "by"}
    call = chat["chat_messages"][1]["tool_invocations"][0]
    task = raw.data_of(http.get(f"/tasks/{call['execution_id']}"))
    assert (task["chat_id"], task["app_ref"]) == (chat["id"], "examples/text")
    answer = raw.data_of(http.get(f"/tasks/{chat['chat_messages'][-1]['task_id']}"))
    assert answer["chat_message_id"] == chat["chat_messages"][-1]["id"]
    trace = raw.data_of(http.get(f"/chats/{chat['id']}/trace"))
    said, asked, tool, last = trace["nodes"]
    assert [said["type"], *(node["resource_id"] for node in (asked, tool, last))] == [
        "trigger",
        chat["chat_messages"][1]["task_id"],
        call["execution_id"],
        answer["id"],
    ]
    chain = [said["id"], asked["id"], call["id"], last["id"]]
    assert [(e["from_node"], e["to_node"]) for e in trace["edges"]] == list(itertools.pairwise(chain))
    assert (trace["total_steps"], trace["completed_steps"]) == (4, 4)
    assert http.get("/chats/none/trace").status_code == 404
    assert all(n["ready_at"] <= n["started_at"] <= n["completed_at"] for n in (asked, tool, last))


def test_the_calls_of_a_tool_with_a_session_find_what_those_before_left(system, http, model):
    system.deploy(EXAMPLES / "counter")
    step, both = (
        '{"step": 2}',
        calls("count", '{"step": 1}') + calls("count", '{"step": 2}', call_id="b", index=1),
    )
    model.script = [both, says("3"), calls("count", step), says("5"), calls("count", step), says("again")]
    tool = {"name": "count", "type": "app", "app": {"ref": "examples/counter", "session_enabled": True}}
    agent = config(model, tool)

    def counts(chat):
        return [(json.loads(result)["count"], status) for status, result in results(chat)]

    chat_id = say(http, agent_config=agent)
    done = counts(ended(http, chat_id))
    say(http, chat_id=chat_id, agent_config=agent)
    done = counts(ended(http, chat_id))
    assert done == [(1, "completed"), (3, "completed"), (5, "completed")]
    [session] = raw.data_of(http.get("/sessions"))
    assert http.delete(f"/sessions/{session['id']}").status_code in {200, 204}
    say(http, chat_id=chat_id, agent_config=agent)
    assert counts(ended(http, chat_id)) == [*done, (2, "completed")]


def test_an_address_as_a_tool_gets_the_arguments_and_the_chats_context(http, model, receiver):
    model.script = [calls("search", '{"q": "x"}'), says("ok"), calls("search", '{"q": "y"}'), says("no")]
    http.post("/secrets", json={"key": "TOOL_KEY", "value": "s3-from-the-vault"}).raise_for_status()
    search = {
        "name": "search",
        "type": "call",
        "call": {
            "url": receiver.url + "/of/{{context.user}}",
            "auth": {"type": "api_key", "secret": "${{secrets.TOOL_KEY}}", "header": "X-Key"},
            "headers": {"X-Who": "{{context.user}}"},
            "input_schema": ANY,
        },
    }
    agent = config(model, search, context=[{"name": "user", "required": True}])
    chat_id = say(http, agent_config=agent, context={"user": "a/b"})
    chat = ended(http, chat_id)
    assert results(chat) == [("completed", "fine")]
    path, headers, body = receiver.requests[0]
    assert (path, json.loads(body)) == ("/of/a%2Fb", {"q": "x"})
    assert (headers["X-Key"], headers["X-Who"]) == ("s3-from-the-vault", "a/b")
    receiver.answer = (400, "bad q")
    say(http, chat_id=chat_id)
    assert results(ended(http, chat_id))[1] == ("failed", "127.0.0.1 answered with status 400: bad q")


def test_a_hook_is_signed(http, model, receiver):
    model.script = [calls("hook", '{"q": "x"}'), says("ok")]
    receiver.answer = (200, '{"found": 1}')
    hook = {
        "name": "hook",
        "type": "hook",
        "hook": {"url": receiver.url, "secret": "key", "input_schema": ANY},
    }
    chat = ended(http, say(http, agent_config=config(model, hook)))
    assert results(chat) == [("completed", '{"found": 1}')]
    [(_, headers, body)] = receiver.requests
    signed = headers["X-Webhook-Timestamp"].encode() + b"." + body
    assert headers["X-Webhook-Signature"] == "sha256=" + hmac.new(b"key", signed, hashlib.sha256).hexdigest()
    assert json.loads(body)["arguments"] == {"q": "x"}


def test_hooks_are_told_and_one_that_is_waited_for_may_refuse_a_call(http, model, receiver):
    model.script = [calls("hook", '{"q": "x"}'), says("ok")]
    receiver.answer = (200, '{"decision": "deny", "reason": "not now"}')
    tool = {"name": "hook", "type": "hook", "hook": {"url": receiver.url + "/tool", "input_schema": ANY}}
    asks = {"event": "agent.tool_call", "type": "webhook", "handler": receiver.url + "/ask"}
    told = {"event": "agent.complete", "type": "webhook", "handler": receiver.url + "/told", "async": True}
    chat = ended(http, say(http, agent_config=config(model, tool, hooks=[asks, told])))
    assert results(chat) == [("cancelled", "The hook of agent.tool_call did not allow it: not now")]
    wait_until(lambda: len(receiver.requests) == 2, "the delivery of the end")
    bodies = {path: json.loads(body) for path, _, body in receiver.requests}
    assert set(bodies) == {"/ask", "/told"}
    assert bodies["/ask"]["arguments"] == {"q": "x"}
    assert (bodies["/told"]["event"], bodies["/told"]["text"]) == ("agent.complete", "ok")


def test_a_skill_is_fetched_once_for_a_chat(http, model, receiver):
    model.script = [says("a"), calls("skills", '{"name": "taxes"}'), says("b")]
    receiver.answer = (200, "Be kind.")
    skills = [
        {"name": "tone", "url": receiver.url + "/tone.md", "preload": True},
        {"name": "taxes", "url": receiver.url + "/taxes.md"},
    ]
    agent = config(model, skills=skills)
    chat_id = say(http, agent_config=agent)
    ended(http, chat_id)
    say(http, chat_id=chat_id, agent_config=agent)
    assert results(ended(http, chat_id)) == [("completed", "Be kind.")]
    assert sorted(path for path, _, _ in receiver.requests) == ["/taxes.md", "/tone.md"]
    assert "# Skill tone\nBe kind." in model.requests[0]["messages"][0]["content"]
    receiver.answer = (404, "")
    again = http.post("/agents/run", json={"input": {"text": "x"}, "agent_config": agent})
    assert again.status_code == 400
    assert "cannot be had: the answer has status 404" in again.json()["detail"]


def test_an_agent_asks_a_stored_agent(http, model):
    inner = ScriptedLLM(says("Inner answer."))
    try:
        stored = {"name": "helper", "namespace": "team", "version": config(inner, description="Helps")}
        made = raw.data_of(http.post("/agents", json=stored))
        model.script = [calls("helper", '{"message": "Help me"}'), says("Done.")]
        helper = {"name": "helper", "type": "agent", "agent": {"ref": "team/helper"}}
        chat = ended(http, say(http, agent_config=config(model, helper)))
        assert results(chat) == [("completed", "Inner answer.")]
        child_id = chat["chat_messages"][1]["tool_invocations"][0]["execution_id"]
        child = raw.data_of(http.get(f"/chats/{child_id}"))
        assert (child["parent_id"], child["agent_id"]) == (chat["id"], made["id"])
        assert inner.requests[0]["messages"][-1]["content"] == "Help me"
    finally:
        inner.close()


def test_a_stored_agent_has_versions_and_hides_its_secrets(http, model, receiver):
    search = {
        "name": "search",
        "type": "http",
        "http": {"url": receiver.url, "auth": {"type": "bearer", "secret": "s3cret"}},
    }
    body = {"name": "versioned", "namespace": "team", "version": config(model, search, system_prompt="one")}
    first = raw.data_of(http.post("/agents", json=body))
    second = raw.data_of(http.post("/agents", json=body | {"version": config(model, system_prompt="two")}))
    assert first["id"] == second["id"]
    assert "s3cret" not in json.dumps(first)
    model.script = [says("a"), says("b")]
    ended(http, say(http, agent="team/versioned"))
    ended(http, say(http, agent=f"team/versioned@{first['version_id'][:8]}"))
    assert [request["messages"][0]["content"] for request in model.requests] == ["two", "one"]
    assert len(raw.data_of(http.post(f"/agents/{first['id']}/versions/list"))["items"]) == 2
    assert http.post("/agents/run", json={"agent": "team/none", "input": {"text": "x"}}).status_code == 404
    assert http.delete(f"/agents/{first['id']}").status_code == 200
    assert http.get("/agents/team/versioned").status_code == 404


def test_an_agent_that_is_read_changed_and_written_back_keeps_its_secrets(http, model, receiver):
    call = {"url": receiver.url, "auth": {"type": "bearer", "secret": "s3cret"}}
    tool = {"name": "search", "type": "http", "http": call}
    stored = {"name": "kept", "namespace": "team", "version": config(model, tool, system_prompt="one")}
    made = raw.data_of(http.post("/agents", json=stored))
    read = raw.data_of(http.get(f"/agents/{made['id']}"))["version"]
    raw.data_of(http.post(f"/agents/{made['id']}", json={"version": read | {"system_prompt": "two"}}))
    model.script = [calls("search", "{}"), says("Done.")]
    ended(http, say(http, agent="team/kept"))
    assert model.requests[0]["messages"][0]["content"] == "two"
    [(_, headers, _)] = receiver.requests
    assert headers["Authorization"] == "Bearer s3cret"

    read["tools"][0]["http"]["url"] = "https://elsewhere.example"
    refused = http.post(f"/agents/{made['id']}", json={"version": read})
    assert refused.status_code == 400
    assert "search.http.auth.secret" in refused.json()["detail"]


def test_server_sent_events_have_whole_messages_and_end_by_themselves(http, model):
    model.script = [says("One ", "two.")]
    chat_id = say(http, agent_config=config(model))
    with http.stream("GET", f"/chats/{chat_id}/stream", headers=raw.SSE) as answer:
        lines = list(answer.iter_lines())
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert set(events) == {"chats", "chat_messages"}
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert data[-2]["content"] == [{"type": "text", "text": "One two."}]
    assert (data[-1]["status"], data[-1]["active_run"]["state"]) == ("idle", "completed")


def test_what_cannot_be_an_agent_is_refused_with_a_text_for_every_client(http, model):
    bad = http.post(
        "/agents/run", json={"agent_config": {"core_app_ref": "examples/text"}, "input": {"text": "x"}}
    )
    assert bad.status_code == 400
    assert bad.headers["content-type"] == "application/json"
    assert "is no language model" in bad.json()["error"]["message"]
    assert http.post("/tools/nothing", json={"result": "x"}).status_code == 404
    assert http.post("/agents/run", json={"agent_config": config(model), "input": {}}).status_code == 400


def test_a_chat_may_begin_silent_and_change_its_agent(http, model):
    model.script = [says("a"), says("b")]
    chat_id = raw.data_of(http.post("/chats", json={"agent_config": config(model, system_prompt="one")}))[
        "id"
    ]
    assert raw.data_of(http.get(f"/chats/{chat_id}"))["status"] == "idle"
    said = raw.data_of(http.post(f"/chats/{chat_id}/messages", json={"message": "Hi"}))
    assert (said["role"], said["chat_id"]) == ("user", chat_id)
    ended(http, chat_id)
    other = {"agent_config": config(model, system_prompt="two")}
    assert http.post(f"/chats/{chat_id}/agent", json=other).status_code == 200
    http.post(f"/chats/{chat_id}/messages", json={"message": {"text": "Again"}}).raise_for_status()
    assert ended(http, chat_id)["chat_messages"][-1]["content"] == [{"type": "text", "text": "b"}]
    assert [request["messages"][0]["content"] for request in model.requests] == ["one", "two"]


def test_chats_are_listed_renamed_and_deleted(http, model):
    model.script = [says("a")]
    chat_id = say(http, "Name me", agent_config=config(model))
    ended(http, chat_id)
    assert raw.data_of(http.post("/chats/list", json={"limit": 1}))["items"][0]["name"] == "Name me"
    assert raw.data_of(http.post(f"/chats/{chat_id}", json={"name": "Named"}))["name"] == "Named"
    page = raw.data_of(http.get(f"/chats/{chat_id}/messages", params={"limit": 1}))
    assert (page["items"][0]["role"], page["has_next"]) == ("assistant", True)
    http.delete(f"/chats/{chat_id}").raise_for_status()
    assert http.get(f"/chats/{chat_id}").status_code == 404


def test_a_chat_survives_the_death_of_gateway_jobs_and_scheduler(system, http, model):
    """Killed while the model answers; the answer then ends, and nobody is there to hear of it."""
    split = {"name": "split", "type": "app", "app": {"ref": "examples/text:split"}}
    model.script = [calls("split", '{"text": "a"}'), says("The end.")]
    model.hold.clear()
    chat_id = say(http, agent_config=config(model, split))
    wait_until(lambda: model.requests, "the request to the model")
    before = system.pids
    for part in ("gateway", "jobs", "scheduler"):
        kill(before[part])
    model.hold.set()
    wait_until(lambda: system.pids["gateway"] != before["gateway"], "another gateway")
    wait_until(lambda: _answers(http), "an answer of the gateway")
    chat = ended(http, chat_id)
    assert results(chat) == [("completed", '{"parts":["a"]}')]
    assert chat["chat_messages"][-1]["content"] == [{"type": "text", "text": "The end."}]
    assert len(model.requests) == 2  # nothing was asked twice


def _answers(http):
    try:
        return http.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_an_alias_stands_for_an_app_that_is_there_with_a_setup_that_it_knows(http):
    def put(**body):
        return http.post("/apps/alias", json={"name": "team/alias", "app": "examples/llm", **body})

    assert put(setup={"model": "x"}).status_code == 200
    found = raw.data_of(http.get("/apps/team/alias"))
    assert (found["alias_of"], found["version"]) == ("examples/llm", None)
    refusals = [
        put(setup={"colour": "red"}),
        put(setup={"timeout_s": "long"}),
        put(app="no/such"),
        put(app="team/alias", name="team/other"),
        put(name="examples/text"),
        put(name="alias"),
    ]
    assert [answer.status_code for answer in refusals] == [400, 400, 404, 400, 409, 400]
    assert "setup: colour unknown to examples/llm; it knows: " in refusals[0].json()["detail"]
    http.delete(f"/apps/{found['id']}").raise_for_status()
    assert http.post("/run", json={"app": "team/alias", "input": {}}).status_code == 404


def test_a_conversation_in_the_terminal(system, model):
    model.script = [says("Hello ", "Ada."), says("Bye.")]
    made = system.cli_json("apps", "alias", "team/model", "examples/llm", "--setup", f"base_url={model.url}")
    assert made["alias_of"] == "examples/llm"
    shown = system.cli("chat", "team/model", "--message", "I am Ada").stdout
    chat_id = shown.splitlines()[0].removeprefix("chat ")
    assert shown.splitlines()[1:] == ["Hello Ada."]
    chat = system.cli_json("chat", "team/model", "--chat", chat_id, "--message", "Bye")
    assert chat["id"] == chat_id
    assert chat["chat_messages"][-1]["content"] == [{"type": "text", "text": "Bye."}]
    listed = {item["name"] for item in system.cli_json("apps", "list")["items"]}
    assert "model" in listed
    assert system.cli_json("apps", "remove", "team/model")["removed"] == "team/model"
    assert system.cli("chat", "team/model", "-m", "x", check=False).returncode == 2
