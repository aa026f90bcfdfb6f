"""Flows on a whole system: deployed from YAML, run as flows and as apps, cancelled, and through a crash of the jobs."""

import contextlib
import json

import pytest
from helpers import EXAMPLES, running_system, wait_until

pytestmark = pytest.mark.long

WORDS = """
name: test/words
title: Words to a file
input:
  text: string
  filename: {type: string, default: words.txt}
nodes:
  parts: {app: "examples/text:split", input: {text: "{{input.text}}", by: words}}
  first: {selector: {mode: first}, input: {items: "{{parts.parts}}"}}
  count: {app: examples/text, input: {text: "{{input.text}}"}}
  line: {expression: "word + ' of ' + string(words)", input: {word: "{{first.output}}", words: "{{count.words}}"}}
  said: {app: infsh/echo, input: {message: "{{line.output}}"}}
  file: {app: "examples/text:to_file", input: {text: "{{said.message}}", filename: "{{input.filename}}"}}
output: {message: "{{said.message}}", file: "{{file.file}}", words: "{{count.words}}"}
"""
BRANCH = """
name: test/branch
input: {text: string}
nodes:
  count: {app: examples/text, input: {text: "{{input.text}}"}}
  long: {gate: {field: words, operator: ">", value: 3}, input: {words: "{{count.words}}"}}
  short: {gate: "words <= 3", input: {words: "{{count.words}}"}}
  a: {app: infsh/echo, input: {message: long}, after: long}
  b: {app: infsh/echo, input: {message: short}, after: short}
  both: {merge: {}, input: {a: "{{a.message}}", b: "{{b.message}}"}}
output: {said: "{{both.output}}"}
"""
BOTH = """
name: test/both
input: {seconds: {type: number, default: 60}, fail: {type: boolean, default: false}}
nodes:
  waits: {app: examples/slow, input: {seconds: "{{input.seconds}}", lines: 1}}
  fails: {app: examples/slow, input: {seconds: 0, lines: 0, fail: "{{input.fail}}"}}
  after: {app: infsh/echo, input: {message: x}, after: fails}
output: {done: "{{waits.done}}"}
"""
CHAIN = """
name: test/chain
nodes:
  a: {app: examples/slow, input: {seconds: 1, lines: 1}}
  b: {app: examples/slow, input: {seconds: 1, lines: 1}, after: a}
  c: {app: examples/slow, input: {seconds: 1, lines: 1}, after: b}
output: {done: "{{c.done}}"}
"""
OUTER = """
name: test/outer
input: {text: string}
nodes:
  inner: {app: test/words, input: {text: "{{input.text}}"}}
  said: {app: infsh/echo, input: {message: "{{inner.message}}"}}
output: {said: "{{said.message}}", file: "{{inner.file}}"}
"""
ENDED = {"completed", "failed", "cancelled"}
BEGUN = {"running", "completed"}
"""Of a node; a look may come late."""


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with running_system(tmp_path_factory.mktemp("flows") / "data", "--workers", "2") as running:
        for name in ("echo", "text", "slow"):
            running.deploy(EXAMPLES / name)
        for text in (WORDS, BRANCH, BOTH, CHAIN, OUTER):
            file = folder / "flow.yml"
            file.write_text(text)
            running.cli("flows", "deploy", str(file))
        yield running


@pytest.fixture
def http(system):
    with system.client() as client:
        yield client


def data(answer):
    return answer.raise_for_status().json()["data"]


def begin(http, flow, given=None, **more):
    return data(http.post("/flowruns", json={"flow": flow, "input": given or {}} | more))


def read(http, run_id):
    return data(http.get(f"/flowruns/{run_id}"))


def finish(http, run_id):
    return wait_until(
        lambda: (run := read(http, run_id))["status_text"] in ENDED and run, f"the end of {run_id}", 120
    )


def run_app(http, app, given):
    task = data(http.post("/apps/run", json={"app": app, "input": given, "infra": "private"}))
    return task["id"], wait_until(
        lambda: (t := data(http.get(f"/tasks/{task['id']}")))["status_text"] in ENDED and t, "its end", 120
    )


def test_a_flow_runs_as_a_flow_and_as_an_app_with_the_same_result(system, http):
    text = "one two three"
    run = finish(http, begin(http, "test/words", {"text": text})["id"])
    task_id, task = run_app(http, "test/words", {"text": text})
    assert (run["status"], run["error"]) == (3, None)
    assert run["output"]["message"] == task["output"]["message"] == "one of 3"
    assert (task["status"], task["flow_run_id"]) == (9, task_id)
    assert [event["status"] for event in task["events"]] == [1, 2, 3, 7, 9]
    for output in (run["output"], task["output"]):
        assert output["file"]["filename"] == "words.txt"
        assert http.get(output["file"]["uri"]).text == "one of 3"
    shown = read(http, task_id)
    assert shown["task_id"] == task_id
    assert set(shown["node_statuses"].values()) == {"completed"}
    assert set(shown["node_tasks"]) == {"parts", "count", "said", "file"}
    assert {node["task"]["flow_run_id"] for node in shown["node_tasks"].values()} == {task_id}
    assert shown["node_outputs"]["first"] == {"output": "one", "index": 0}
    assert shown["input"]["input"]["filename"] == {"Connection": None, "Value": "words.txt"}


@pytest.mark.parametrize(
    ("text", "said", "skipped"), [("a b", "short", "a"), ("a b c d", "long", "b")], ids=["short", "long"]
)
def test_the_branch_whose_gate_is_open_is_taken(http, text, said, skipped):
    run = finish(http, begin(http, "test/branch", {"text": text})["id"])
    assert run["output"] == {"said": said}
    assert run["node_statuses"][skipped] == "skipped"


def test_a_node_that_fails_ends_the_run_and_what_runs_in_it(http):
    run = finish(http, begin(http, "test/both", {"fail": True})["id"])
    assert (run["status"], run["node_statuses"]) == (
        4,
        {"waits": "cancelled", "fails": "failed", "after": "blocked"},
    )
    assert "node 'fails': slow was told to fail" in run["error"]
    wait_until(
        lambda: (
            data(http.get(f"/tasks/{run['node_tasks']['waits']['task_id']}"))["status_text"] == "cancelled"
        ),
        "the end of the other task",
    )


def test_without_fail_on_error_the_others_go_on(http):
    given = {"fail": True, "seconds": 0}
    run = finish(http, begin(http, "test/both", given, fail_on_error=False)["id"])
    assert (run["status"], run["output"]) == (3, {"done": True})
    assert run["node_statuses"]["after"] == "blocked"


@pytest.mark.parametrize("as_app", [True, False])
def test_a_cancelled_run_ends_its_tasks(http, as_app):
    if as_app:
        body = {"app": "test/both", "input": {}, "infra": "private"}
        run_id = data(http.post("/apps/run", json=body))["id"]
    else:
        run_id = begin(http, "test/both")["id"]
    wait_until(
        lambda: (
            (answer := http.get(f"/flowruns/{run_id}")).status_code == 200
            and answer.json()["data"]["node_statuses"].get("waits") == "running"
        ),
        "a node that runs",
    )
    data(http.post(f"/tasks/{run_id}/cancel" if as_app else f"/flowruns/{run_id}/cancel"))
    run = finish(http, run_id)
    assert (run["status"], run["node_statuses"]["waits"]) == (5, "cancelled")
    task_id = run["node_tasks"]["waits"]["task_id"]
    wait_until(lambda: data(http.get(f"/tasks/{task_id}"))["status_text"] == "cancelled", "its task's end")
    if as_app:
        wait_until(lambda: data(http.get(f"/tasks/{run_id}"))["status_text"] == "cancelled", "the task's end")


def test_a_flow_may_contain_a_flow(http):
    _, task = run_app(http, "test/outer", {"text": "one two"})
    assert task["output"]["said"] == "one of 2"
    assert http.get(task["output"]["file"]["uri"]).text == "one of 2"


def test_a_run_survives_the_death_of_the_jobs_and_no_node_runs_twice(system, http):
    run_id = begin(http, "test/chain")["id"]
    for node in ("a", "b", "c"):
        wait_until(lambda node=node: read(http, run_id)["node_statuses"].get(node) in BEGUN, node)
        with contextlib.suppress(ProcessLookupError):
            system.kill("jobs")
    run = finish(http, run_id)
    assert (run["status"], run["output"]) == (3, {"done": True})
    tasks = [node["task"] for node in run["node_tasks"].values()]
    assert [task["attempt"] for task in tasks] == [1, 1, 1]
    listed = data(http.post("/tasks/list", json={"limit": 100}))["items"]
    assert len([task for task in listed if task["flow_run_id"] == run_id]) == 3


def test_a_stream_shows_each_change_and_ends_with_the_run(http):
    run_id = begin(http, "test/chain")["id"]
    with http.stream(
        "GET", f"/flowruns/{run_id}/stream", headers={"Accept": "application/x-ndjson"}
    ) as answer:
        events = [json.loads(line) for line in answer.iter_lines() if line]
    runs = [event for event in events if "status_text" in event]
    assert runs[-1]["status_text"] == "completed"
    assert runs[-1]["output"] == {"done": True}
    for node in ("a", "b", "c"):
        assert "running" in [run["node_statuses"].get(node) for run in runs]
    with http.stream("GET", f"/flowruns/{run_id}/stream", headers={"Accept": "text/event-stream"}) as answer:
        lines = list(answer.iter_lines())
    assert "event:" not in lines[1]
    last = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
    assert http.get(f"/flowruns/{run_id}/stream", headers={"Last-Event-ID": last}).status_code == 204
    with http.stream("GET", f"/flowruns/{run_id}/tasks/stream") as answer:
        lines = list(answer.iter_lines())
    shown = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert {task["flow_run_id"] for task in shown} == {run_id}
    last = [line for line in lines if line.startswith("id: ")][-1].removeprefix("id: ")
    assert http.get(f"/flowruns/{run_id}/tasks/stream", headers={"Last-Event-ID": last}).status_code == 204


def test_what_cannot_run_is_refused_with_the_node(system, http, tmp_path):
    file = tmp_path / "flow.yml"
    file.write_text("name: test/bad\nnodes: {a: {app: infsh/echo}, b: {app: infsh/nothing}}\n")
    refused = system.cli("flows", "deploy", str(file), check=False)
    assert refused.returncode == 2
    assert "node 'b': App not found" in refused.stderr
    flow = data(http.get("/flows/test/bad"))
    assert flow["published_version_id"] is None
    assert http.post("/flowruns", json={"flow": flow["id"]}).status_code == 400
    refused = http.post("/flowruns", json={"flow": "test/words", "input": {"text": 3}})
    assert "text: 3 is not of type" in refused.json()["detail"]
    assert http.post("/flowruns", json={"flow": "test/none"}).status_code == 404


def test_a_draft_is_edited_deployed_and_deleted_by_its_routes(http):
    flow = data(http.post("/flows", json={"name": "By hand"}))
    graph = {
        "nodes": [{"id": "input", "type": "input"}, {"id": "a", "type": "app", "position": {"x": 1, "y": 2}}],
        "edges": [],
        "node_data": {"a": {"app": "infsh/echo", "infra": "private"}},
        "input_schema": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
        "input": {"a": {"message": {"Connection": {"nodeId": "input", "key": "x"}}}},
        "output_mappings": {"y": {"sourceNodeId": "a", "sourceFieldPath": "message", "outputFieldName": "y"}},
    }
    changed = data(http.post(f"/flows/{flow['id']}", json=graph))
    assert changed["nodes"][1]["position"] == {"x": 1, "y": 2}
    first, again = (data(http.post(f"/flows/{flow['id']}/app")) for _ in range(2))
    assert first["version_id"] == again["version_id"] == first["version"]["flow_version_id"]
    assert (first["namespace"], first["name"]) == ("local", "by-hand")
    assert first["version"]["output_schema"]["properties"]["y"]["type"] == "string"
    assert run_app(http, "local/by-hand", {"x": "hi"})[1]["output"] == {"y": "hi"}
    by_node = {"input": {"x": {"Value": "hi"}}, "a": {"message": {"Value": "other"}}}
    run = finish(http, begin(http, flow["id"], by_node)["id"])
    assert run["output"] == {"y": "other"}
    assert finish(http, data(http.post(f"/flowruns/{run['id']}/clone"))["id"])["output"] == {"y": "other"}
    data(http.post(f"/flows/{flow['id']}", json={"input": {"a": {"message": {"Value": "fixed"}}}}))
    data(http.post(f"/flows/{flow['id']}/app"))
    versions = data(http.post(f"/flows/{flow['id']}/versions/list", json={}))["items"]
    assert len(versions) == 2
    copy = data(http.post(f"/flows/{flow['id']}/duplicate"))
    assert copy["nodes"] == changed["nodes"]
    for one in (flow, copy):
        data(http.delete(f"/flows/{one['id']}"))
    assert http.post("/apps/run", json={"app": "local/by-hand", "input": {"x": "hi"}}).status_code == 404


def test_a_request_that_is_repeated_under_its_key_is_one_run(http):
    headers = {"Idempotency-Key": "once"}

    def ask(text):
        return http.post("/flowruns", json={"flow": "test/branch", "input": {"text": text}}, headers=headers)

    first, again = data(ask("a")), data(ask("a"))
    assert first["id"] == again["id"]
    assert ask("b").status_code == 409
    assert finish(http, first["id"])["output"] == {"said": "short"}


def test_the_command_line_runs_and_shows_flows(system):
    done = system.cli_json("flows", "run", "test/words", "-i", "text=a b")
    assert done["output"]["message"] == "a of 2"
    assert "test/words" in system.cli("flows", "list").stdout
    shown = system.cli("flows", "show", "test/words").stdout
    assert "infsh/echo, after line" in shown
    assert done["id"] in system.cli("flows", "runs", "test/words").stdout
    text = system.cli("flows", "run", "test/branch", "-i", "text=a").stdout
    assert "skipped a" in " ".join(text.split())
    failed = system.cli("flows", "run", "test/both", "-i", "fail=true", check=False)
    assert failed.returncode == 1
    assert "node 'fails'" in failed.stdout


def test_a_flow_does_not_take_the_name_of_an_alias(system, http, tmp_path):
    assert http.post("/apps/alias", json={"name": "test/standin", "app": "infsh/echo"}).status_code == 200
    file = tmp_path / "flow.yml"
    file.write_text("name: test/standin\nnodes: {a: {app: infsh/echo, input: {message: x}}}\n")
    refused = system.cli("flows", "deploy", str(file), check=False)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "test/standin stands for infsh/echo" in refused.stderr
    assert data(http.get("/apps/test/standin"))["name"] == "standin"
