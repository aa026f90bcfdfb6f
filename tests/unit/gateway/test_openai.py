import pytest

from stoker.core.apps import AppFunction, AppVersion
from stoker.core.errors import InvalidRequest, ModelNotFound, NotFound, QueueFull, Unauthorized
from stoker.llm.contract import LlmOutput, ToolCall, llm_function, read_output
from stoker_gateway.openai_answer import Completion, finish_reason, usage_of
from stoker_gateway.openai_request import ChatRequest, llm_input
from stoker_gateway.problems import error_headers, media_type, problem_bytes

pytestmark = pytest.mark.unit

ALL = [
    "text",
    "role",
    "context",
    "system_prompt",
    "images",
    "files",
    "tool_call_id",
    "tools",
    "tool_choice",
    "response_format",
    "temperature",
    "top_p",
    "stop",
    "max_tokens",
    "reasoning_effort",
    "seed",
]
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def function(*names):
    return AppFunction(name="run", input_schema={"properties": {name: {} for name in names or ALL}})


def given(*messages, fields=(), **more):
    return llm_input(ChatRequest(model="a/b", messages=list(messages or [USER]), **more), function(*fields))


def test_the_last_message_is_the_turn_and_those_before_are_its_context():
    made = given(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        USER,
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    )
    assert made == {
        "system_prompt": "Be brief.\n\nBe kind.",
        "context": [{"role": "user", "text": "hi"}, {"role": "assistant", "text": "hello"}],
        "text": "a\nb",
        "role": "user",
    }


def test_results_of_tools_follow_their_calls():
    made = given(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    )
    assert made["context"][1] == {"role": "assistant", "text": "", "tool_calls": [CALL]}
    assert (made["role"], made["text"], made["tool_call_id"]) == ("tool", "3", "c1")


def test_a_last_message_with_calls_is_no_turn():
    made = given(USER, {"role": "assistant", "tool_calls": [CALL]})
    assert (made["text"], len(made["context"])) == ("", 2)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        ({"tools": [TOOL], "tool_choice": "none"}, {}),
        (
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": {"mode": "required"}},
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
            {"tools": [TOOL], "tool_choice": {"mode": "function", "name": "add"}},
        ),
        (
            {"functions": [TOOL["function"]], "function_call": "auto"},
            {"tools": [TOOL], "tool_choice": {"mode": "auto"}},
        ),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}},
            {"response_format": {"type": "json_schema", "name": "n", "json_schema": {"a": 1}}},
        ),
        ({"temperature": 0, "n": 1, "modalities": ["text"]}, {"temperature": 0}),
    ],
)
def test_parameters_by_their_names_in_the_llm_contract(asked, sent):
    made = given(**asked)
    assert {name: value for name, value in made.items() if name not in ("text", "role", "context")} == sent


@pytest.mark.parametrize(
    "asked",
    [
        {"n": 2},
        {"logprobs": True},
        {"modalities": ["audio"]},
        {"functions": [{}], "tools": [TOOL]},
        {"audio": {"a": 1}},
    ],
)
def test_what_no_app_could_honour_is_refused_by_name(asked):
    with pytest.raises(InvalidRequest, match="unsupported parameter: " + next(iter(asked))):
        given(**asked)


def test_a_model_that_takes_no_tools_says_so():
    with pytest.raises(InvalidRequest, match="tools: the model 'a/b' takes no tools"):
        given(fields=("text", "context"), tools=[TOOL])


def test_settings_that_an_app_does_not_know_are_left_out():
    assert given(fields=("text", "context"), temperature=1) == {"text": "hi", "context": []}


def test_pictures_and_files():
    parts = [
        {"type": "image_url", "image_url": {"url": "https://e/x.png"}},
        {"type": "file", "file": {"file_data": "data:text/plain,a", "filename": "a.txt"}},
    ]
    made = given({"role": "user", "content": parts})
    assert made["images"] == ["https://e/x.png"]
    assert made["files"] == [{"uri": "data:text/plain,a", "filename": "a.txt"}]
    with pytest.raises(InvalidRequest, match=r"messages\.0\.content: a part of type 'file'"):
        given({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]})


def test_a_message_of_nobody_is_refused():
    with pytest.raises(InvalidRequest, match=r"messages\.0\.role: 'x' is unknown"):
        given({"role": "x"})
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        given({"role": "system", "content": "alone"})


@pytest.mark.parametrize(
    "message",
    [
        {"role": ["user"]},
        {"role": {}},
        {"role": "assistant", "function_call": "add"},
        {"role": "user", "content": [{"type": ["text"]}]},
        {"role": "user", "content": {"type": {}}},
    ],
)
def test_a_message_with_something_else_where_a_text_is_to_be_is_refused(message):
    with pytest.raises(InvalidRequest, match=r"messages\.0"):
        given(message, USER)


def test_an_app_is_a_model_by_the_fields_of_its_default_function():
    def version(**schemas):
        return AppVersion(
            id="v",
            short_id="v",
            app_id="a",
            created_ms=0,
            functions={"run": AppFunction(name="run", **schemas)},
        )

    asked = {"properties": {"text": {}, "context": {}}}
    assert llm_function(version(input_schema=asked))
    assert llm_function(version(input_schema=asked, output_schema={"properties": {"response": {}}}))
    assert not llm_function(version(input_schema=asked, output_schema={"properties": {"image": {}}}))
    assert not llm_function(version(input_schema={"properties": {"text": {}}}))


def test_outputs_of_any_spelling():
    output = read_output(
        b'{"response":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"x":1}}},'
        b'{"id":"a","function":{"name":"g","arguments":"{\\"y\\": 2}"}},{"function":{"name":"h"}},7]}'
    )
    assert [(call.id, call.name, call.arguments) for call in output.tool_calls] == [
        ("a", "f", '{"x":1}'),
        ("a_1", "g", '{"y": 2}'),
        ("call_2", "h", "{}"),
    ]
    assert read_output(b"null") == LlmOutput()


def test_an_output_that_is_nested_too_deeply_is_an_empty_one():
    assert read_output(b"[" * 5000 + b"]" * 5000) == LlmOutput()


def test_a_reason_to_stop_that_is_no_text_means_nothing():
    assert finish_reason(LlmOutput(usage={"stop_reason": ["length"]})) == "stop"


def test_a_completion_and_its_chunks():
    said = Completion("t", "a/b", 5)
    output = LlmOutput(
        response="ok", usage={"prompt_tokens": 2, "completion_tokens": 3, "stop_reason": "max_tokens"}
    )
    whole = said.whole(output)
    assert whole["id"] == "chatcmpl-t"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["total_tokens"] == 5
    assert said.part({"response": "o"})["choices"][0]["delta"] == {"content": "o"}
    assert said.part({"usage": {}}) is None
    assert said.last(output)["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
    }
    assert said.usage(output)["choices"] == []
    assert usage_of(LlmOutput())["prompt_tokens"] == 0


def test_calls_are_why_an_answer_ends():
    output = LlmOutput(response="x", tool_calls=(ToolCall(id="c", name="f"),))
    assert finish_reason(output) == "tool_calls"


@pytest.mark.parametrize(
    ("error", "kind", "code", "again"),
    [
        (Unauthorized(), "authentication_error", "unauthorized", "false"),
        (ModelNotFound(), "invalid_request_error", "model_not_found", "false"),
        (QueueFull(), "server_error", "queue_full", "true"),
    ],
)
def test_errors_in_the_dialect(error, kind, code, again):
    import json

    body = json.loads(problem_bytes(error, "http://x", "/models/openai/chat/completions"))
    assert body["error"] == {"message": error.message, "type": kind, "param": None, "code": code}
    assert error_headers(error, "/chat/completions")["x-should-retry"] == again


def test_errors_of_other_routes_stay_as_they_are():
    assert media_type(NotFound(), "/apps/x") == "application/problem+json"
    assert media_type(NotFound(), "/chats/x") == "application/json"
    assert b'"type":"invalid_request_error"' not in problem_bytes(InvalidRequest(), "http://x", "/apps/x")
