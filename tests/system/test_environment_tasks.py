"""What a task tells of its environment: the build's lines, why one failed, and what the machine lacks."""

import shutil
import tempfile
from pathlib import Path

import pytest
from clients import raw
from helpers import TEST_APPS, running_system
from wheels import make_wheel

from stoker_worker.nodes import NodeMissing, choose, npm_of
from stoker_worker.nodes import find_nodes as find_all

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]  # builds environments

CODE = "import stokertiny\nclass App:\n    def run(self, given):\n        return {'version': stokertiny.VERSION}\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "stokertiny")
    return folder


@pytest.fixture(scope="module")
def own():
    """A system whose worker takes Node as it is and whose cache has its own place."""
    with (
        tempfile.TemporaryDirectory(prefix="stoker-", ignore_cleanup_errors=True) as folder,
        running_system(
            Path(folder) / "data", "--workers", "2", STOKER_NODE_FALLBACK="1", STOKER_TELEMETRY_S="0.5"
        ) as running,
    ):
        yield running


@pytest.fixture
def deploy(own, tmp_path, wheels):
    """Deploy an app from a machine that has more than the worker: wheels, packages, an own cache."""

    def deploy(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "inf.yml").write_text(f"namespace: env\nname: {name}\nkernel: python-3.11\n")
        for key, text in ({"inference_py": CODE} | files).items():
            (folder / key.replace("_", ".")).write_text(text)
        own.cli(
            *("apps", "deploy", str(folder)),
            UV_FIND_LINKS=str(wheels),
            STOKER_CACHE_DIR=str(tmp_path / "cache"),
            STOKER_SYSTEM_PACKAGES='["*"]',
        )
        return f"env/{name}"

    return deploy


def run(own, app, **given):
    with raw.client(own, raw.SDK_NAMED) as http:
        made = raw.run(http, {"app": app, "infra": "private", "input": given})
        _, events = raw.stream(http, made["id"], **raw.NDJSON)
        task = events[-1]
        listed = raw.data_of(http.get(f"/tasks/{made['id']}/logs"))["logs"]
        return task, [line["content"] for line in listed]


def test_a_failed_build_fails_its_task_with_the_essential_line_and_a_hint(own, deploy):
    app = deploy("unbuildable", requirements_txt="stokertiny==1.0\n")
    task, log = run(own, app)
    assert task["status"] == 11
    assert "The requirement 'stokertiny==1.0' is the one that failed." in task["error"]
    assert "requirements.txt" in task["error"]
    assert "package_indexes" in task["error"]
    assert "exit status" not in task["error"]
    assert log[0] == "building the environment with Python 3.11"
    assert any("stokertiny" in line for line in log[1:]), "the installer's own lines"


def test_a_missing_system_package_is_named_before_anything_is_built(own, deploy):
    app = deploy(
        "furnished", requirements_txt="stokertiny==1.0\n", packages_txt="# sound\nno-such-library\n\n"
    )
    task, log = run(own, app)
    assert task["status"] == 11
    assert "needs the system package no-such-library (packages.txt)" in task["error"]
    assert "building the environment" not in "".join(log)


@pytest.fixture
async def node():
    try:
        return npm_of(choose(22, await find_all(), older=True).path)
    except NodeMissing as missing:
        pytest.skip(missing.message)


def test_a_node_app_is_deployed_and_run_and_its_files_are_stored(own, node):
    app = own.deploy(TEST_APPS / "node")
    task, log = run(own, app, do="echo", text="hi")
    assert task["status"] == 10, task
    assert task["output"] == {
        "got": "hi",
        "runs": 1,
        "word": "helped",
        "model": "small",
        "variant": "default",
    }
    if shutil.which("node") and "the app wants Node 22" in "".join(log):
        assert log[0].startswith("warning: the app wants Node 22; it gets ")
    task, _ = run(own, app, do="file")
    assert task["status"] == 11
    assert "output field 'a/b' names '/does/not/exist.png'" in task["error"].replace("a.b", "a/b")
