"""Each app of examples/apps, deployed and run as its README says."""

import struct

import httpx
import pytest
from clients import raw
from helpers import EXAMPLES, wait_until
from scripted_llm import MODEL, ScriptedLLM, calls, says

pytestmark = pytest.mark.timeout(240)  # builds environments

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
    },
}


@pytest.fixture(scope="module")
def http(system):
    for name in ("plain", "counter", "text", "resize", "llm"):
        system.deploy(EXAMPLES / name)
    with raw.client(system, raw.SDK_NAMED) as made:
        yield made


def run(http, app, given, **more):
    """A finished task."""
    made = raw.run(http, {"app": f"examples/{app}", "infra": "private", "input": given} | more)
    _, events = raw.stream(http, made["id"], **raw.NDJSON)
    return events[-1]


def output(http, app, given, **more):
    task = run(http, app, given, **more)
    assert task["status"] == 10, task
    return task["output"]


@pytest.fixture
def model():
    served = ScriptedLLM()
    yield served
    served.close()


def test_an_app_without_any_library(http):
    assert output(http, "plain", {"name": "Ada"}) == {"greeting": "Hello, Ada!", "letters": 3}
    assert output(http, "plain", {}, setup={"greeting": "Hi"})["greeting"] == "Hi, world!"


def test_several_functions(http):
    assert output(http, "text", {"text": "one two\nthree"}) == {"characters": 13, "words": 3, "lines": 2}
    parts = output(http, "text:split", {"text": "One. Two!", "by": "sentences"})["parts"]
    assert parts == ["One.", "Two!"]


def test_text_to_a_file(http):
    made = output(http, "text", {"text": "grüße", "filename": "a b.txt"}, function="to_file")["file"]
    answer = httpx.get(made["uri"], trust_env=False)
    assert answer.content.decode() == "grüße"
    assert made["filename"] == "a b.txt"


def size_of_png(data):
    """Width and height, as the header has them (PNG specification, 11.2.2)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_a_picture_in_and_out(http):
    sample = (EXAMPLES / "ocr" / "sample.png").read_bytes()
    width, height = size_of_png(sample)
    uri = raw.upload(http, "sample.png", "image/png", sample)["uri"]
    made = output(http, "resize", {"image": uri, "width": width // 2}, setup={"filter": "nearest"})
    small = httpx.get(made["image"]["uri"], trust_env=False).content
    assert (
        size_of_png(small)
        == (made["width"], made["height"])
        == (width // 2, round(height * (width // 2) / width))
    )
    assert made["image"]["filename"] == "sample.png"
    assert made["image"]["size"] == len(small)


def test_what_is_no_picture_is_said_so(http):
    uri = raw.upload(http, "x.png", "image/png", b"no picture")["uri"]
    task = run(http, "resize", {"image": uri, "width": 5})
    assert task["status"] == 11
    assert "'x.png' cannot be read as a picture" in task["error"]


def test_an_answer_of_a_language_model(http, model):
    model.script = [says("For", "ty", "-two.")]
    made = output(http, "llm", {"text": "6 x 7?", "temperature": 0.1}, setup={"base_url": model.url})
    assert made["response"] == "Forty-two."
    assert made["usage"]["completion_tokens"] == 3
    [request] = model.requests
    assert request["model"] == MODEL
    assert request["temperature"] == 0.1
    assert "max_tokens" not in request  # only what the caller set
    assert request["messages"][-1] == {"role": "user", "content": "6 x 7?"}


def test_a_tool_call_of_a_language_model(http, model):
    model.script = [calls("add", '{"a"', ": 1}"), says("done")]
    setup = {"base_url": model.url}
    made = output(http, "llm", {"text": "add 1", "tools": [TOOL]}, setup=setup)
    [call] = made["tool_calls"]
    assert call == {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    history = [{"role": "user", "text": "add 1"}, {"role": "assistant", "text": "", "tool_calls": [call]}]
    given = {"text": "2", "role": "tool", "tool_call_id": "call_1", "context": history, "tools": [TOOL]}
    assert output(http, "llm", given, setup=setup)["response"] == "done"
    assert [message["role"] for message in model.requests[1]["messages"][1:]] == ["user", "assistant", "tool"]


def test_a_language_model_that_fails_is_named(http, model):
    model.script = [400]
    task = run(http, "llm", {"text": "hi"}, setup={"base_url": model.url})
    assert task["status"] == 11
    assert task["error"].startswith(f"{model.url} answered 400: ")


def test_a_cancelled_answer_leaves_the_model_loaded(system, http, model):
    model.script = [says("a", "b"), says("again")]
    model.hold.clear()
    setup = {"base_url": model.url}
    body = {"app": "examples/llm", "infra": "private", "input": {"text": "hi"}, "setup": setup}
    made = raw.run(http, body)
    wait_until(lambda: model.requests, "the request to the model")
    http.post(f"/tasks/{made['id']}/cancel").raise_for_status()
    assert raw.wait_end(system, made["id"])["status"] == 12
    model.hold.set()
    again = run(http, "llm", {"text": "hi"}, setup=setup)
    assert again["output"]["response"] == "again"
    assert not {4, 5, 6} & {event["status"] for event in again["events"]}


def test_workers_are_shown_as_idle_when_their_tasks_have_ended(http):
    output(http, "plain", {})
    wait_until(
        lambda: {worker["status"] for worker in raw.data_of(http.get("/workers"))["items"]} == {"idle"},
        "workers that are idle",
    )
