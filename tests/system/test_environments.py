"""Environments of apps, built by the real uv from wheels that lie in a folder: no index is asked."""

import asyncio
import os
import shutil
import subprocess
import sys

import pytest
from uv import find_uv_bin
from wheels import make_wheel

from stoker.core.messages import LogType
from stoker.manifest import Manifest
from stoker_worker import pythons
from stoker_worker.describe import NotDescribable, describe
from stoker_worker.environment import BuildFailed, BuildHindered, Environments, Policy
from stoker_worker.instance import Instance, RunSpec
from stoker_worker.instance_spec import InstanceSpec
from stoker_worker.pythons import SUPPORTED, PythonMissing, find_python

APP = Manifest(name="app", kernel=f"python-{sys.version_info.major}.{sys.version_info.minor}")
LIMIT_S = 60


BACKEND = """
import base64, hashlib, pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "vendored-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("vendored.pth", str(pathlib.Path.cwd()))
        wheel.writestr("vendored-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: vendored\\nVersion: 1\\n")
        wheel.writestr(
            "vendored-1.dist-info/WHEEL",
            "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        )
        wheel.writestr("vendored-1.dist-info/RECORD", "vendored.pth,,\\n")
    return name

def get_requires_for_build_editable(config_settings=None):
    return []
"""


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


@pytest.mark.parametrize("version", SUPPORTED)
async def test_every_python_that_is_here_gets_an_environment_and_runs_its_app(
    environments, app_dir, tmp_path, version
):
    try:
        find_python(version)
    except PythonMissing as missing:
        pytest.skip(missing.message)
    (app_dir / "inference.py").write_text(
        "import sys, tiny\nclass App:\n    def run(self, given):\n"
        "        return [list(sys.version_info[:2]), tiny.VERSION]\n"
    )
    built = await environments.ensure(app_dir, Manifest(name="x", kernel=f"python-{version}"), Lines())
    spec = InstanceSpec(python=built.python, app_dir=app_dir, work_dir=tmp_path / "work", keep=(tmp_path,))
    instance = await Instance.start(spec, lambda _kind, _text: None)
    try:
        await instance.setup(LIMIT_S)
        order = RunSpec(task_id="t", function="run", input={}, metadata={})
        result = await instance.run(order, lambda _partial: None, LIMIT_S)
    finally:
        await instance.stop("enough")
        built.close()
    assert result.output == [[int(part) for part in version.split(".")], "1.0"]


async def test_a_missing_python_is_fetched_by_uv(index, app_dir, tmp_path, monkeypatch):
    """uv's download stands in: it puts an interpreter where uv would put it."""
    monkeypatch.setattr(pythons, "find_on_path", lambda version: None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "pythons"))
    version = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"
    uv = tmp_path / "installer"
    place = tmp_path / "pythons" / f"cpython-{version}.9-linux-x86_64-gnu" / "bin"
    uv.write_text(
        f'#!/bin/sh\nif [ "$1" = python ]; then echo "fetching $3"; mkdir -p "{place}";\n'
        f'ln -s "{sys.executable}" "{place}/python{version}"; exit; fi\nexec "{find_uv_bin()}" "$@"\n'
    )
    uv.chmod(0o755)
    lines = Lines()
    app = Manifest(name="x", kernel=version)
    with pytest.raises(PythonMissing, match="python_fallback"):
        await Environments(tmp_path / "cache", str(uv), Policy(python_fetch=False)).ensure(
            app_dir, app, lines
        )
    built = await Environments(tmp_path / "cache", str(uv)).ensure(app_dir, app, lines)
    assert lines[:2] == [f"Python {version} is not on this machine; uv fetches it", f"fetching {version}"]
    assert version_in(built) == "1.0"


async def test_a_python_that_cannot_be_had_is_told_or_replaced(index, app_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(pythons, "find_on_path", lambda version: None)
    for name in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    app = Manifest(name="x", kernel="3.10" if own != "3.10" else "3.12")
    uv = tmp_path / "installer"
    failing = 'if [ "$1" = python ]; then echo "error: dns error"; exit 2; fi'
    uv.write_text(f'#!/bin/sh\n{failing}\nexec "{find_uv_bin()}" "$@"\n')
    uv.chmod(0o755)
    with pytest.raises(
        PythonMissing, match=rf"found: {own}.*uv could not fetch it: dns error\..*apt-get install"
    ):
        await Environments(tmp_path / "cache", str(uv)).ensure(app_dir, app, Lines())
    lines = Lines()
    fallback = Environments(tmp_path / "cache", str(uv), Policy(python_fallback=True))
    built = await fallback.ensure(app_dir, app, lines)
    assert version_in(built) == "1.0"
    assert any(line.startswith("warning: the app wants Python") and own in line for line in lines)


async def test_a_folder_that_is_installed_in_place_outlives_the_versions_own(environments, app_dir, tmp_path):
    (app_dir / "vendored").mkdir()
    (app_dir / "vendored" / "pyproject.toml").write_text(
        '[project]\nname = "vendored"\nversion = "1"\n[build-system]\nrequires = []\n'
        'build-backend = "backend"\nbackend-path = ["."]\n'
    )
    (app_dir / "vendored" / "backend.py").write_text(BACKEND)
    (app_dir / "vendored" / "vendored.py").write_text("WORD = 'in place'\n")
    (app_dir / "requirements.txt").write_text("tiny==1.0\n-e ./vendored\n")
    built = await environments.ensure(app_dir, APP, Lines())
    again = tmp_path / "again"
    shutil.copytree(app_dir, again)
    shutil.rmtree(app_dir)
    assert output_of(built.python, "-c", "import vendored; print(vendored.WORD)") == "in place"
    lines = Lines()
    assert await environments.ensure(again, APP, lines) == built
    assert lines == []
    (again / "vendored" / "vendored.py").write_text("WORD = 'changed'\n")
    assert environments.find(again, APP) is None


async def test_files_that_are_included_are_installed(environments, app_dir):
    (app_dir / "requirements.txt").write_text("-r more/base.txt\n-c pins.txt\n")
    (app_dir / "more").mkdir()
    (app_dir / "more" / "base.txt").write_text("tiny\n")
    (app_dir / "pins.txt").write_text("tiny<2\n")
    assert version_in(await environments.ensure(app_dir, APP, Lines())) == "1.0"


async def test_a_current_compiled_file_is_what_is_installed(environments, app_dir):
    (app_dir / "requirements.txt").write_text("tiny\n")
    (app_dir / "requirements.txt.compiled").write_text("tiny==1.0\n    # via -r requirements.txt\n")
    assert version_in(await environments.ensure(app_dir, APP, Lines())) == "1.0"
    (app_dir / "requirements.txt").write_text("tiny>1\n")
    assert version_in(await environments.ensure(app_dir, APP, Lines())) == "2.0"


async def test_further_indexes_come_from_the_operator_and_are_no_arguments(app_dir, tmp_path):
    uv = tmp_path / "installer"
    uv.write_text('#!/bin/sh\necho "arguments: $*"\necho "index: $UV_INDEX"\nexit 1\n')
    uv.chmod(0o755)
    policy = Policy(package_indexes=("https://user:secret@example.org/simple",))
    lines = Lines()
    with pytest.raises(BuildFailed):
        await Environments(tmp_path / "cache", str(uv), policy).ensure(app_dir, APP, lines)
    assert lines[-1] == "index: https://user:secret@example.org/simple"
    assert "example.org" not in lines[-2]


async def test_a_build_whose_daemon_was_killed_ends_and_is_done_again(app_dir, tmp_path, environments):
    uv = tmp_path / "installer"
    uv.write_text("#!/bin/sh\necho $$\nsleep 600 & wait\n")
    uv.chmod(0o755)
    code = f"""
import asyncio
from pathlib import Path
from stoker.manifest import Manifest
from stoker_worker.environment import Environments
app = Manifest(name="app", kernel={APP.kernel!r})
building = Environments(Path({str(tmp_path / "cache")!r}), {str(uv)!r}).ensure(
    Path({str(app_dir)!r}), app, lambda kind, text: print(text, flush=True)
)
asyncio.run(building)
"""
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        await asyncio.wait_for(daemon.stdout.readline(), LIMIT_S)  # that it begins
        group = int(await asyncio.wait_for(daemon.stdout.readline(), LIMIT_S))
    finally:
        daemon.kill()
        await daemon.wait()
    assert await is_gone(group)
    assert environments.find(app_dir, APP) is None
    assert version_in(await environments.ensure(app_dir, APP, Lines())) == "1.0"


async def test_a_build_that_a_signal_ended_may_go_well_next_time(app_dir, tmp_path):
    """As by the kernel, for want of memory: no fault of the app's, whatever it had printed."""
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'error: Failed to build'\nkill -9 $$\n")
    uv.chmod(0o755)
    with pytest.raises(BuildHindered, match="SIGKILL ended it") as caught:
        await Environments(tmp_path / "cache", str(uv)).ensure(app_dir, APP, Lines())
    assert caught.value.retryable


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
