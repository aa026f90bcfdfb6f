"""Environments of apps, built by the real uv from wheels that lie in a folder: no index is asked."""

import asyncio
import os
import subprocess
import sys
import zipfile

import pytest
from uv import find_uv_bin

from stoker.core.messages import LogType
from stoker.manifest import Manifest
from stoker_worker.describe import NotDescribable, describe
from stoker_worker.environment import BuildFailed, Environments
from stoker_worker.pythons import PythonMissing

APP = Manifest(name="app", kernel=f"python-{sys.version_info.major}.{sys.version_info.minor}")
LIMIT_S = 60


def make_wheel(folder, name, version="1.0"):
    """A package that knows its version and has a script of its own name."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\ndef main():\n    print(VERSION)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}={name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            wheel.writestr(path, text)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Where uv finds its packages."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version in (
        ("inferencesh", "1.0"),
        ("pydantic", "1.0"),
        ("tiny", "1.0"),
        ("tiny", "2.0"),
        ("early", "1.0rc1"),
    ):
        make_wheel(folder, name, version)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return folder


@pytest.fixture
def app_dir(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "inference.py").write_text(
        "import tiny\nclass App:\n    def run(self, given):\n        'Tell.'\n        return tiny.VERSION\n"
    )
    (folder / "requirements.txt").write_text("tiny==1.0\n")
    return folder


@pytest.fixture
def environments(tmp_path, index):
    return Environments(tmp_path / "cache", find_uv_bin())


class Lines(list):
    def __call__(self, kind, text):
        assert kind is LogType.BUILD
        self.append(text)


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def version_in(environment):
    return output_of(environment.python, "-c", "import tiny; print(tiny.VERSION)")


async def is_gone(group):
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return True
            await asyncio.sleep(0.01)


async def test_an_environment_is_built_once_and_its_scripts_work(environments, app_dir, tmp_path):
    lines = Lines()
    built = await environments.ensure(app_dir, APP, lines)
    assert version_in(built) == "1.0"
    assert output_of(built.python.parent / "tiny") == "1.0"
    assert any("tiny" in line for line in lines)
    without_uv = Environments(tmp_path / "cache", "/does/not/exist")
    assert await without_uv.ensure(app_dir, APP, lines) == built == environments.find(app_dir, APP)
    assert environments.keys() == (built.key,)


async def test_the_second_requirements_win(environments, app_dir):
    (app_dir / "requirements2.txt").write_text("tiny==2.0\n")
    assert version_in(await environments.ensure(app_dir, APP, Lines())) == "2.0"


async def test_two_who_want_the_same_wait_for_one_build(environments, app_dir, tmp_path):
    first, second = Lines(), Lines()
    others = Environments(tmp_path / "cache", find_uv_bin())
    one, two = await asyncio.gather(
        environments.ensure(app_dir, APP, first), others.ensure(app_dir, APP, second)
    )
    assert one == two
    builder, waiter = sorted((first, second), key=lambda lines: lines[0].startswith("waiting"))
    assert waiter[0] == f"waiting for the build by process {os.getpid()} for app; its lines follow"
    assert waiter[1:] == builder
    assert builder.count("the environment is ready") == 1


async def test_pre_releases_are_taken_where_nothing_else_serves(environments, app_dir):
    (app_dir / "requirements.txt").write_text("tiny\nearly>0.9\n")
    assert version_in(await environments.ensure(app_dir, APP, Lines())) == "2.0"


async def test_a_failure_names_the_requirement(environments, app_dir, tmp_path):
    (app_dir / "requirements.txt").write_text("tiny==1.0\nno-such-thing>=3\n")
    lines = Lines()
    with pytest.raises(BuildFailed) as caught:
        await environments.ensure(app_dir, APP, lines)
    assert "'no-such-thing>=3' is the one that failed" in caught.value.message
    assert "requirements.txt" in caught.value.message
    assert "no-such-thing was not found in the package registry" in caught.value.message
    assert "package_indexes" in caught.value.message
    assert environments.keys() == ()
    assert [path.name for path in (tmp_path / "cache/envs").iterdir() if path.is_dir()] == []


async def test_a_missing_interpreter_is_told_before_anything_is_started(environments, app_dir):
    with pytest.raises(PythonMissing, match=r"Python 3\.99"):
        await environments.ensure(app_dir, Manifest(name="x", kernel="python-3.99"), Lines())


async def test_variables_of_the_app_are_set_while_installing_and_ours_are_not(app_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("STOKER_SECRET", "ours")
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "$CMAKE_ARGS,$STOKER_SECRET,$PWD"\nexit 7\n')
    uv.chmod(0o755)
    app = Manifest(name="x", kernel=APP.kernel, env={"CMAKE_ARGS": "-DGGML_CUDA=on"})
    lines = Lines()
    with pytest.raises(BuildFailed):
        await Environments(tmp_path / "cache", str(uv)).ensure(app_dir, app, lines)
    assert lines[-1] == f"-DGGML_CUDA=on,,{app_dir}"


async def test_a_cancelled_build_leaves_nothing(app_dir, tmp_path):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho $$\nsleep 60 & wait\n")
    uv.chmod(0o755)
    started = asyncio.Queue()
    build = asyncio.ensure_future(
        Environments(tmp_path / "cache", str(uv)).ensure(
            app_dir, APP, lambda _kind, text: started.put_nowait(text)
        )
    )
    await asyncio.wait_for(started.get(), LIMIT_S)  # that it begins
    pid = int(await asyncio.wait_for(started.get(), LIMIT_S))
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert await is_gone(pid)
    assert [path for path in (tmp_path / "cache/envs").iterdir() if path.is_dir()] == []


async def test_an_app_is_described_in_its_own_environment(environments, app_dir):
    lines = []
    found = await describe(app_dir, APP, environments, lines.append)
    assert found.functions["run"].description == "Tell."
    assert found.setup_schema == {}
    assert "the environment is ready" in lines


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("class App:\n    def helper(self): pass", "needs a public method `run`"),
    ],
)
async def test_an_app_that_cannot_be_described_says_why(environments, app_dir, code, words):
    (app_dir / "inference.py").write_text(code)
    with pytest.raises(NotDescribable, match=words):
        await describe(app_dir, APP, environments, lambda text: None)
