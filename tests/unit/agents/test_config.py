import pytest

from stoker.agents import tools
from stoker.agents.chat import Chat
from stoker.agents.config import fill_context, read_config
from stoker.agents.prompt import in_context, system_prompt
from stoker.agents.tools import Internal, ToolType, argument_errors, clean_schema, read_arguments
from stoker.core.errors import InvalidRequest
from stoker.core.messages import Owner

pytestmark = pytest.mark.unit

REF = {"core_app_ref": "a/b"}


def tool(kind, own, **more):
    return {"name": "t", "type": kind, kind: own} | more


@pytest.mark.parametrize(
    "given",
    [
        {"core_app_ref": "a/b", "core_app_input": {"temperature": 0}},
        {"core_app": {"ref": "a/b", "input": {"temperature": 0}}},
        {"core_app": {"ref": "a/b@latest", "input": {"temperature": 0}, "setup": None}},
        {"core_app": None, "core_app_ref": "a/b", "core_app_input": {"temperature": 0}, "tools": None},
    ],
)
def test_both_generations_mean_the_same(given):
    core = read_config(given).core
    assert (core.ref, core.input, core.setup) == ("a/b", {"temperature": 0}, {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "core_app.ref: an agent needs the app"),
        (
            REF | {"tools": [tool("mcp", {"server": "x"})]},
            "tools of the type 'mcp' are not run here; it may be client, ",
        ),
        (REF | {"tools": [{"name": "a b", "type": "client"}]}, "tools.0.name: 'a b' cannot be the name"),
        (REF | {"tools": [tool("app", {})]}, "tools.0.app.ref: say which one"),
        (REF | {"tools": [tool("http", {"url": "ftp://x"})]}, "tools.0.http.url: 'ftp://x' is no http"),
        (
            REF | {"tools": [tool("client", {}), tool("client", {})]},
            "tools.1.name: 't' is the name of another tool",
        ),
        (
            REF | {"internal_tools": {"plan": True}, "tools": [{"name": "plan", "type": "client"}]},
            "tools.0.name: 'plan' is the name of another tool",
        ),
        (
            REF | {"tools": [tool("http", {"url": "https://x", "auth": {"type": "credential"}})]},
            "auth.type: 'credential' is not known here",
        ),
        (REF | {"skills": [{"name": "s"}]}, "skills.0: it has no text: give `content`, or the `url`"),
        (
            REF | {"skills": [{"name": "s", "skill_id": "x"}]},
            "skills.0: skill_id names a skill of a store, and",
        ),
        (
            REF | {"skills": [{"name": "s", "url": "file:///x"}]},
            "skills.0.url: 'file:///x' is no http or https",
        ),
        (REF | {"skills": [{"name": "s", "content": 5}]}, "skills.0.content: it must be a text, not int"),
        (
            REF | {"skills": [{"name": "s", "content": "a"}, {"name": "s", "content": "b"}]},
            "skills.1.name: 's' is the name of another skill",
        ),
        (
            REF | {"skills": [{"content": "a"}], "tools": [{"name": "skills", "type": "client"}]},
            "tools.0.name: 'skills' is the name of another tool",
        ),
        (REF | {"system_prompt": 5}, "system_prompt: it must be a text, not int"),
        (REF | {"limits": {"turns": -1}}, "limits.turns: -1 is no number of turns"),
        (
            REF | {"tools": [tool("http", {"url": "https://x/${{secrets.KEY}}"})]},
            "tools.0.http.url: ${{secrets.KEY}} stands where no secret is put in: that is done in `headers`, ",
        ),
        (
            REF | {"tools": [tool("app", {"ref": "a/b", "setup": {"k": "${{ secrets.KEY }}"}})]},
            "tools.0.app.setup: ${{ secrets.KEY }} stands where no secret is put in",
        ),
        (
            REF | {"tools": [tool("hook", {"url": "https://x", "secret": "${{secrets.a-b}}"})]},
            "tools.0.hook.secret: ${{secrets.a-b}} names no secret; write ${{secrets.NAME}}",
        ),
        (
            REF | {"tools": [tool("http", {"url": "https://x", "headers": [1]})]},
            "tools.0.http.headers: it must",
        ),
        ({"core_app": {"ref": 5}}, "agent_config.core_app.ref: it must be a text, not int"),
        (REF | {"context": [{"name": "a"}, {"name": []}]}, "agent_config.context.1.name: it must be a text"),
    ],
)
def test_what_is_wrong_is_named(given, says):
    with pytest.raises(InvalidRequest) as refusal:
        read_config(given)
    assert says in refusal.value.message


@pytest.mark.parametrize(
    ("kind", "own", "more", "says"),
    [
        ("client", {}, {"description": ["x"]}, "tools.0.description: it must be a text, not list"),
        ("client", {}, {"display_name": 5}, "tools.0.display_name: it must be a text, not int"),
        ("client", {}, {"type": ["client"]}, "tools of the type ['client'] are not run here"),
        ("client", {"input_schema": "x"}, {}, "tools.0.client.input_schema: it must be an object"),
        ("app", {"ref": "a/b", "function": 5}, {}, "tools.0.app.function: it must be a text, not int"),
        ("app", {"ref": "a/b", "setup": []}, {}, "tools.0.app.setup: it must be an object"),
        ("agent", {"ref": {"a": 1}}, {}, "tools.0.agent.ref: it must be a text, not dict"),
        ("http", {"url": "http://["}, {}, "tools.0.http.url: 'http://[' is no http"),
        ("http", {"url": "http://x", "headers": ["a"]}, {}, "tools.0.http.headers: it must be an object"),
        ("http", {"url": "http://x", "auth": {"type": ["bearer"]}}, {}, "auth.type: it must be a text"),
        ("hook", {"url": "http://x", "secret": 5}, {}, "tools.0.hook.secret: it must be a text, not int"),
    ],
)
def test_a_field_of_a_tool_that_has_another_type_is_refused_and_not_stored(kind, own, more, says):
    """Stored as it is it would be read by no step, and the chat would hang."""
    with pytest.raises(InvalidRequest) as refusal:
        read_config(REF | {"tools": [tool(kind, own, **more)]})
    assert says in refusal.value.message


def test_tools_of_every_kind():
    tools = [
        tool("client", {"input_schema": {"type": "object"}}, require_approval=None),
        tool("app", {"ref": "a/b", "function": None, "setup": {"x": 1}, "input": {"y": 2}}, name="app"),
        tool("agent", {"ref": "a/c"}, name="agent", require_approval=True),
        tool("hook", {"url": "https://x", "secret": None}, name="hook"),
        tool("http", {"url": "https://x", "method": None, "auth": None, "headers": None}, name="http"),
        {"name": "call", "type": "call", "call": {"url": "https://x", "method": "get"}},
        {"schema": {"name": "js", "type": "client", "client": {"input_schema": {}}}},
    ]
    found = read_config(REF | {"tools": tools}).tools
    assert [one.type for one in found] == [
        ToolType.CLIENT,
        ToolType.APP,
        ToolType.AGENT,
        ToolType.HOOK,
        ToolType.HTTP,
        ToolType.HTTP,
        ToolType.CLIENT,
    ]
    assert [one.method for one in found[4:6]] == ["POST", "GET"]
    assert [one.require_approval for one in found[:3]] == [False, False, True]
    assert (found[1].setup, found[1].input) == ({"x": 1}, {"y": 2})


def test_internal_tools_of_other_places_are_left_out():
    given = REF | {
        "internal_tools": {"plan": True, "memory": None, "widget": True, "finish": False, "skills": True}
    }
    assert read_config(given).internal == (Internal.PLAN,)


def test_a_schema_loses_what_older_clients_leave_in_it_but_no_field():
    given = {
        "type": "object",
        "properties": {
            "optional": {"type": "string"},
            "inner": {"type": "object", "properties": {"x": {"type": "string", "optional": True}}},
            "list": {"type": "array", "items": {"type": "number", "optional": True}},
        },
    }
    assert clean_schema(given)["properties"] == {
        "optional": {"type": "string"},
        "inner": {"type": "object", "properties": {"x": {"type": "string"}}},
        "list": {"type": "array", "items": {"type": "number"}},
    }


def test_arguments_that_were_encoded_twice():
    assert read_arguments('"{\\"a\\": 1}"') == ({"a": 1}, "")
    assert read_arguments("7")[0] is None


def test_arguments_that_are_nested_too_deeply_go_back_to_the_model():
    assert read_arguments("[" * 5000)[0] is None


def test_a_schema_that_cannot_be_compiled_refuses_nothing():
    assert argument_errors({"type": "nonsense"}, {"a": 1}) == ""
    assert argument_errors({"$ref": "https://elsewhere.example/x"}, {"a": 1}) == ""


def test_context_has_defaults_and_what_is_required():
    fields = read_config(
        REF | {"context": [{"name": "a", "required": True}, {"name": "b", "default": 3}]}
    ).context
    assert fill_context(fields, {"a": 1, "z": "kept"}) == {"a": "1", "b": "3", "z": "kept"}
    with pytest.raises(InvalidRequest, match=r"context\.a: this agent needs it"):
        fill_context(fields, {})


def test_context_cannot_change_the_parts_of_an_address():
    context = {"id": "a/b?c=d"}
    assert in_context("https://x/{{context.id}}/y", context, in_url=True) == "https://x/a%2Fb%3Fc%3Dd/y"
    assert in_context("{{ context.id }} {{context.none}}.", context) == "a/b?c=d ."


def test_the_prompt_has_skills_and_memory():
    config = read_config(
        REF
        | {
            "system_prompt": "For {{context.who}}.",
            "skills": [{"name": "s", "description": "d", "content": "text", "preload": True}],
            "internal_tools": {"memory": True},
        }
    )
    chat = Chat(
        id="c",
        owner=Owner(user_id="u", key_id="k"),
        config=config,
        context={"who": "Ada"},
        memory={"colour": "red"},
    )
    assert system_prompt(chat) == "For Ada.\n\n# Skill s: d\ntext\n\n# What you remember\n- colour: red"


def test_a_schema_is_compiled_once_whoever_has_it_and_a_large_one_is_not_kept():
    def schema(**more):
        return {"type": "object", "properties": {"a": {"type": "number"}}, "title": "kept"} | more

    before = tools._kept.cache_info()
    wrong = [argument_errors(schema(), {"a": value}) for value in ("x", 1, "x")]
    after = tools._kept.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    assert wrong[0] == wrong[2] != ""
    assert wrong[1] == ""
    assert argument_errors(schema(required=["b"]), {"a": 1}) != ""
    kept = tools._kept.cache_info().currsize
    assert argument_errors(schema(title="x" * tools.COMPILED_BYTES), {"a": "x"}) != ""
    assert tools._kept.cache_info().currsize == kept
