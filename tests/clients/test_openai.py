"""The `openai` package against the OpenAI-compatible door: the model is the example app, on a worker."""

import pytest
from clients import raw
from clients.sdks import HERE, python_of, run_plan
from helpers import EXAMPLES, wait_until
from scripted_llm import ScriptedLLM, calls, says

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]  # the first test builds an environment

MODEL = "examples/llm"
HI = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
    },
}


@pytest.fixture(scope="module")
def system(system_with_apps):
    system_with_apps.deploy(EXAMPLES / "llm")
    return system_with_apps


@pytest.fixture(scope="module")
def facts(system):
    """All that the client does, in one process, against one script."""
    model = ScriptedLLM(
        says("Hel", "lo."),
        says("One", ", ", "two"),
        calls("add", '{"a"', ": 1}"),
        says("3"),
        calls("add", '{"a": 2}'),
        400,
        400,
    )
    setup = {"setup": {"base_url": model.url}}

    def asks(messages=HI, **more):
        return {"model": MODEL, "messages": messages, "extra_body": setup, **more}

    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    answered = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]
    url = system.base_url
    steps = [
        {"name": "whole", "do": "whole", "params": asks(temperature=0.2, max_tokens=9)},
        {"name": "stream", "do": "stream", "params": asks(stream_options={"include_usage": True})},
        {
            "name": "tool",
            "do": "whole",
            "params": asks(tools=[TOOL], tool_choice="auto"),
            "base_url": f"{url}/v1",
        },
        {"name": "answered", "do": "whole", "params": asks(answered, tools=[TOOL])},
        {"name": "summed", "do": "summed", "params": asks(tools=[TOOL])},
        {"name": "failed", "do": "whole", "params": asks()},
        {"name": "failed_stream", "do": "stream", "params": asks()},
        {"name": "models", "do": "models", "model": MODEL},
        {"name": "unknown", "do": "whole", "params": asks() | {"model": "no/such"}},
        {"name": "no_model", "do": "whole", "params": asks() | {"model": "infsh/echo"}},
        {"name": "refused", "do": "whole", "params": asks(n=2)},
        {"name": "wrong_key", "do": "whole", "params": asks(), "key": "inf_wrong"},
    ]
    plan = {"base_url": f"{url}/models/openai", "key": system.bench_key, "steps": steps}
    python = python_of("openai-2", "openai>=2,<3")
    try:
        seen = run_plan([str(python), str(HERE / "drivers" / "openai_client.py")], plan, 100)
    finally:
        model.close()
    return seen | {"requests": model.requests}


def test_an_answer_waited_for(facts):
    answer = facts["whole"]["result"]
    assert answer["choices"][0]["message"]["content"] == "Hello."
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["model"] == MODEL
    asked = facts["requests"][0]
    assert (asked["temperature"], asked["max_tokens"], asked["messages"][-1:]) == (0.2, 9, HI)


def test_an_answer_streamed(facts):
    *chunks, last = facts["stream"]["chunks"]
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert "".join(text or "" for text in texts) == "One, two"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)


def test_a_tool_is_called_and_its_result_goes_back(facts):
    choice = facts["tool"]["result"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert facts["answered"]["result"]["choices"][0]["message"]["content"] == "3"
    assert [message["role"] for message in facts["requests"][3]["messages"][1:]] == [
        "user",
        "assistant",
        "tool",
    ]


def test_the_clients_own_sum_is_the_answer(facts):
    [call] = facts["summed"]["result"]["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("call_1", "add")
    assert call["function"]["arguments"] == '{"a": 2}'


def test_models_are_the_apps_that_keep_the_contract(facts):
    assert MODEL in facts["models"]["ids"]
    assert "infsh/echo" not in facts["models"]["ids"]
    assert facts["models"]["one"]["owned_by"] == "examples"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("failed", ["InternalServerError", 502, "model_failed", "server_error"]),
        ("failed_stream", ["APIError", None, "app_failed", "server_error"]),
        ("unknown", ["NotFoundError", 404, "model_not_found", "invalid_request_error"]),
        ("no_model", ["BadRequestError", 400, "invalid_request", "invalid_request_error"]),
        ("refused", ["BadRequestError", 400, "invalid_request", "invalid_request_error"]),
        ("wrong_key", ["AuthenticationError", 401, "unauthorized", "authentication_error"]),
    ],
)
def test_errors_are_in_the_dialect(facts, step, expected):
    error = facts[step]["error"]
    assert [error[name] for name in ("type", "status_code", "code", "kind")] == expected
    assert error["text"]


def test_who_hangs_up_cancels_the_answer(system):
    model = ScriptedLLM(says("a", "b"))
    model.hold.clear()
    body = {"model": MODEL, "messages": HI, "stream": True, "setup": {"base_url": model.url}}
    try:
        with raw.client(system, raw.CURL) as http:
            with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                first = next(line for line in answer.iter_lines() if '"content":"a"' in line)
            task_id = first.split("chatcmpl-")[1].split('"')[0]
        assert raw.wait_end(system, task_id)["status"] == 12
        wait_until(lambda: len(model.requests) == 1, "the only request")
    finally:
        model.close()
