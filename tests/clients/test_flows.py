"""Flows by the official clients, and the page about them, done as it says: only the address and the home are others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clients.plans import task
from clients.sdks import JS_DIR, Sdk, install_js, python_with
from clients.test_readme import DOCUMENTED_URL, snippet
from helpers import EXAMPLES, ROOT, environment

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PAGE = ROOT / "docs/flows.md"
SAMPLE = EXAMPLES / "ocr" / "sample.png"
JS = Sdk("js", "0.6.54")
GRAPH = {
    "nodes": [
        {"id": "input", "type": "input", "position": {"x": 0, "y": 0}},
        {"id": "say", "type": "app", "position": {"x": 200, "y": 0}},
        {"id": "wait", "type": "app", "position": {"x": 200, "y": 100}},
    ],
    "edges": [{"id": "e1", "type": "default", "source": "input", "target": "say"}],
    "node_data": {
        "say": {"app": "infsh/echo", "infra": "private", "workers": []},
        "wait": {"app": "examples/slow", "infra": "private", "workers": []},
    },
    "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "input": {
        "say": {
            "message": {"Connection": {"nodeId": "input", "key": "text", "type": "string"}, "Value": None}
        },
        "wait": {"seconds": {"Value": 0.2}, "lines": {"Value": 1}},
    },
    "output_mappings": {
        "said": {
            "sourceNodeId": "say",
            "sourceFieldPath": "message",
            "outputFieldName": "said",
            "type": "string",
        }
    },
}


@pytest.fixture(scope="module")
def facts(system_with_apps):
    steps = [{"name": "flow", "do": "flow", "flow": "by-js", "graph": GRAPH, "input": {"text": "hi"}}]
    return JS.drive(steps, system_with_apps.base_url, system_with_apps.bench_key)["flow"]


def test_the_flows_api_has_the_shapes_that_the_client_reads(facts):
    assert "error" not in facts, facts
    assert facts["changed"]["nodes"] == GRAPH["nodes"]
    assert facts["changed"]["node_data"]["say"] == GRAPH["node_data"]["say"]
    version = facts["app"]["version"]
    assert version["flow_version_id"] == facts["versions"]["items"][0]["id"] == facts["app"]["version_id"]
    assert version["input_schema"] == GRAPH["input_schema"]
    assert facts["read"]["id"] in facts["listed"]
    assert facts["read"]["published_version"]["nodes"] == GRAPH["nodes"]
    assert facts["read"]["visibility"] == "unlisted"
    assert facts["copy"]["edges"] == GRAPH["edges"]


def test_a_flow_is_an_app_and_runs_by_itself_with_the_same_output(facts):
    assert (facts["task"]["status"], facts["task"]["output"]) == (10, {"said": "hi"})
    assert (facts["run"]["status"], facts["run"]["output"]) == (3, {"said": "hi"})
    assert facts["clone"]["output"] == {"said": "hi"}
    assert facts["run"]["id"] in facts["runs"]


def test_an_event_source_is_told_of_nodes_and_of_the_end(facts):
    statuses = [event["status"] for event in facts["events"]]
    assert statuses[-1] == 3
    assert sorted(statuses) == statuses
    assert facts["events"][-1]["nodes"] == {"say": "completed", "wait": "completed"}
    assert all(event["event"] for event in facts["events"])


@pytest.fixture(scope="module")
def deployed(system_with_ocr, tmp_path_factory):
    """The page's flow, and a folder with the picture in a home that has the system's data."""
    for name in ("resize", "text"):
        system_with_ocr.deploy(EXAMPLES / name)
    home = tmp_path_factory.mktemp("home")
    data_dir = home / ".local" / "share" / "stoker"
    data_dir.parent.mkdir(parents=True)
    data_dir.symlink_to(system_with_ocr.data_dir, target_is_directory=True)
    shutil.copy(SAMPLE, home / "sample.png")
    (home / "read-sign.yml").write_text(snippet(PAGE, "A first flow", "yaml"))
    return home


@pytest.fixture
def do(system_with_ocr, deployed):
    """Run a command of the page in that folder; what it printed."""

    def run(command):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = environment(HOME=str(deployed), PATH=path)
        done = subprocess.run(
            command, cwd=deployed, env=env, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + system_with_ocr.complaints()
        return done.stdout

    return run


def code(heading, language, system):
    return snippet(PAGE, heading, language).replace(DOCUMENTED_URL, system.base_url)


def test_the_page_as_written_gives_every_client_the_same_text(do, system_with_ocr, deployed):
    shell = do(["bash", "-c", "set -e\n" + snippet(PAGE, "A first flow", "sh")])
    assert "deployed docs/read-sign@" in shell
    python = do([str(python_with("0.36.0")), "-c", code("Python", "python", system_with_ocr)])
    text = python.strip()
    assert len(text.splitlines()) >= 2
    assert shell.count(json.dumps(text, ensure_ascii=False)) == 2
    install_js()
    with_modules = deployed / "node_modules"
    with_modules.symlink_to(JS_DIR / "node_modules", target_is_directory=True)
    (deployed / "flow.mts").write_text(code("JavaScript", "ts", system_with_ocr))
    assert do(["npx", "tsx", "flow.mts"]).count(text) == 2
    if shutil.which("curl"):
        last = json.loads(do(["bash", "-c", code("curl", "sh", system_with_ocr)]).splitlines()[-1])
        assert last["output"]["text"] == text
        assert set(last["node_statuses"].values()) == {"completed"}


@pytest.mark.parametrize("version", ["0.6.0", "0.36.0"])
def test_the_python_clients_run_a_flow_as_any_app(do, system_with_ocr, deployed, version):
    do(["stoker", "flows", "deploy", "read-sign.yml"])
    numbers = {"0.6.0": 9, "0.36.0": 10}
    plan = [{"name": "run", "do": "run", "params": task("docs/read-sign", image=str(SAMPLE))}]
    facts = Sdk("python", version).drive(plan, system_with_ocr.base_url, system_with_ocr.bench_key)["run"]
    assert facts["result"]["status"] in {numbers[version], "completed"}, facts
    assert facts["result"]["output"]["file"]["filename"] == "sign.txt"
