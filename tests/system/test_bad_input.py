"""Whatever a client sends: a problem that says what to do, never a traceback, never a 500."""

import httpx
import pytest
from helpers import EXAMPLES

ECHO = "infsh/echo"


@pytest.fixture(scope="module")
def http(system):
    system.deploy(EXAMPLES / "echo")
    system.deploy(EXAMPLES / "plain")
    with system.client() as client:
        yield client


def is_problem(answer, status, *words):
    body = answer.json()
    assert answer.status_code == status == body["status"], body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"].endswith(f"/errors/{body['error']['code']}")
    assert body["success"] is False
    assert all(word in body["detail"] for word in words), body["detail"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, ("Input validation failed", "app")),
        ({"app": 7}, 400, ("Input validation failed: app", "str")),
        ({"app": "a b"}, 400, ("Input validation failed: app", "namespace/name")),
        ({"app": "nobody/nothing"}, 404, ("App not found",)),
        ({"app": "echoo"}, 404, ("App not found", "infsh/echo")),
        ({"app": f"{ECHO}@ffffffff"}, 404, ("App not found", "ffffffff")),
        ({"app": f"{ECHO}:dance"}, 400, ("function", "dance", "run")),
        ({"app": ECHO, "function": "dance"}, 400, ("function", "dance", "run")),
        ({"app": ECHO, "input": {"message": 5}}, 400, ("Input validation failed: message",)),
        ({"app": ECHO, "input": "text"}, 400, ("Input validation failed",)),
        ({"app": ECHO, "input": {"message": "x"}, "infra": "moon"}, 400, ("infra", "moon", "private_first")),
        ({"app": ECHO, "input": {"message": "x"}, "workers": "one"}, 400, ("workers", "array")),
        ({"app": ECHO, "input": {"message": "x"}, "workers": ["ghost"]}, 400, ("ghost", "known", "cpu-0")),
        ({"app": ECHO, "input": {"message": "x"}, "setup": []}, 400, ("setup", "object")),
        ({"app": "examples/plain", "setup": {"a": 2**60}}, 400, ("setup", "2^53")),
        ({"app": ECHO, "input": {"message": "x"}, "priority": 1000}, 400, ("priority", "-100 to 100")),
        ({"app": ECHO, "input": {"message": "x"}, "run_at": "tomorrow"}, 400, ("run_at", "ISO 8601")),
        ({"app": ECHO, "input": {"message": "x"}, "run_at": "2999-01-01"}, 400, ("run_at", "366 days")),
        ({"app": ECHO, "input": {"message": "x"}, "timeouts": {"run": 0}}, 400, ("timeouts.run", "above 0")),
        ({"app": ECHO, "input": {"message": "x"}, "timeouts": {"walk": 1}}, 400, ("walk", "no_match")),
        ({"app": ECHO, "input": {"message": "x"}, "timeouts": {"run": 1e9}}, 400, ("TIMEOUT_MAX_S",)),
        ({"app": ECHO, "input": {"message": "x"}, "retry": {"max_attempts": 99}}, 400, ("99", "10")),
        ({"app": ECHO, "input": {"message": "x"}, "retry": 3}, 400, ("retry", "max_attempts")),
    ],
)
def test_a_wrong_run_says_what_is_wrong(http, body, status, words):
    is_problem(http.post("/apps/run", json=body), status, *words)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'"text"', b"[1]", b"null", b"[" * 5000])
def test_a_body_that_is_no_object_is_refused(http, content):
    is_problem(http.post("/apps/run", content=content), 400, "Input validation failed")


def test_an_oversized_body_is_refused_with_the_way_out(http):
    is_problem(http.post("/apps/run", content=b'{"app":"' + b"x" * (5 << 20) + b'"}'), 413, "Upload")


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/apps/run"), ("PUT", "/tasks/x"), ("DELETE", "/run")]
)
def test_a_wrong_method_is_refused(http, method, path):
    is_problem(http.request(method, path), 405, method)


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/tasks/ghost", "Task not found"),
        ("GET", "/tasks/ghost/stream", "Task not found"),
        ("POST", "/tasks/ghost/cancel", "Task not found"),
        ("DELETE", "/tasks/ghost", "Task not found"),
        ("GET", "/apps/ghost", "App not found"),
        ("GET", "/files/ghost", "File not found"),
        ("GET", "/files/ghost/secret/name", "File not found"),
        ("GET", "/engines/ghost", "Engine not found"),
        ("GET", "/workers/ghost", "known"),
        ("GET", "/no/such/place", "openapi.json"),
        ("DELETE", "/apikeys/ghost", "API key not found"),
    ],
)
def test_an_unknown_thing_is_not_found(http, method, path, words):
    is_problem(http.request(method, path), 404, words)


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer inf_wrong", "Basic abc", "inf_raw"])
def test_a_wrong_key_is_refused_everywhere(system, value):
    with httpx.Client(base_url=system.base_url, headers={"Authorization": value}, trust_env=False) as client:
        for path in ("/tasks", "/apps", "/engines", "/apikeys"):
            is_problem(client.get(path), 401, "Invalid API key")


@pytest.mark.parametrize("body", [{"files": []}, {"files": "x"}, {}, {"files": [{"size": 10**15}]}])
def test_a_wrong_upload_is_refused(http, body):
    assert http.post("/files", json=body).status_code in {400, 413}


def test_rates_are_on_by_default_and_told_on_every_answer(system):
    made = system.cli_json("keys", "create", "--name", "limited")
    with system.client(made["key"]) as client:
        answers = [client.post("/run", json={}) for _ in range(101)]
        assert [a.status_code for a in answers[:100]] == [400] * 100
        assert answers[0].headers["x-ratelimit-limit"] == "100"
        assert answers[99].headers["x-ratelimit-remaining"] == "0"
        is_problem(answers[100], 429, "Rate limit")
        assert 1 <= int(answers[100].headers["retry-after"]) <= 61
        assert client.get("/tasks").headers["x-ratelimit-limit"] == "1000"


def test_the_api_describes_itself(http):
    schema = http.get("/openapi.json").json()
    assert {"/apps/run", "/tasks/{task_id}", "/workers", "/files"} <= set(schema["paths"])
    undescribed = [
        f"{method} {path}"
        for path, entry in schema["paths"].items()
        for method, operation in entry.items()
        if method in {"get", "post", "put", "delete"} and not operation.get("summary")
    ]
    assert not undescribed
