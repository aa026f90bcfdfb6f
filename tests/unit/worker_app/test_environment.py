"""Keys and steps of environments; the builds themselves are with the system tests."""

import sys

import pytest

from stoker.manifest import Manifest
from stoker_worker import pythons
from stoker_worker.environment import Environments, Policy, env_key

APP = Manifest(name="x", kernel="python-3.11")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "requirements.txt").write_text("pydantic>=2\n")
    return tmp_path


def test_the_same_requirements_have_the_same_key(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "requirements.txt").write_text("# a comment\npydantic>=2  # why\n\n")
    assert env_key(folder, APP) == env_key(other, APP)
    assert env_key(folder, APP) == env_key(folder, Manifest(name="y", kernel=""))


@pytest.mark.parametrize(
    "change",
    [
        {"requirements.txt": "pydantic>=2.1"},
        {"requirements2.txt": "torch"},
        {"requirements.txt": "-e ./local", "local/setup.py": "one"},
    ],
)
def test_other_requirements_have_another_key(folder, change):
    before = env_key(folder, APP)
    for name, text in change.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    assert env_key(folder, APP) != before


def test_the_key_depends_on_python_variables_and_local_folders(folder):
    keys = {
        env_key(folder, APP),
        env_key(folder, Manifest(name="x", kernel="python-3.12")),
        env_key(folder, Manifest(name="x", kernel="python-3.11", env={"CMAKE_ARGS": "-DGGML_CUDA=on"})),
    }
    (folder / "requirements.txt").write_text("-e ./local\n")
    (folder / "local").mkdir()
    for text in ("one", "two"):
        (folder / "local" / "setup.py").write_text(text)
        keys.add(env_key(folder, APP))
    assert len(keys) == 5


def test_requirements_cannot_make_us_read_files_elsewhere(folder):
    (folder / "requirements.txt").write_text("-r ../../etc/passwd\n-r /etc/passwd\n")
    assert env_key(folder, APP)


def test_the_key_depends_on_the_files_that_requirements_include(folder):
    keys = []
    for name, text in (
        ("requirements.txt", "-r more/base.txt\n-c pins.txt\n"),
        ("more/base.txt", "-r other.txt\n"),
        ("more/other.txt", "numpy\n"),
        ("pins.txt", "numpy<2\n"),
        ("wheel.whl", "one"),
        ("requirements.txt", "-r more/base.txt\n-c pins.txt\n./wheel.whl\n"),
        ("wheel.whl", "two"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        keys.append(env_key(folder, APP))
    assert len(set(keys)) == len(keys) - 1, "only the wheel that nothing names yet changes nothing"


def test_files_that_include_each_other_have_an_end(folder):
    (folder / "requirements.txt").write_text("-r requirements.txt\n-r other.txt\n")
    (folder / "other.txt").write_text("-r requirements.txt\n")
    assert env_key(folder, APP)


def test_a_node_app_is_keyed_by_its_package_file_and_lock(folder):
    node = Manifest(name="x", kernel="node-22")
    keys = [env_key(folder, node)]
    for name, text in (
        ("package.json", '{"dependencies": {"own": "file:./own"}}'),
        ("package-lock.json", "{}"),
        ("own/index.js", "1"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        keys.append(env_key(folder, node))
    keys.append(env_key(folder, Manifest(name="x", kernel="node-20")))
    assert len(set(keys)) == len(keys)
    (folder / "inference.js").write_text("export class App {}")
    assert env_key(folder, node) == keys[-2]


def test_an_environment_without_its_interpreter_is_none(folder, tmp_path):
    environments = Environments(tmp_path / "cache", "uv")
    assert environments.find(folder, APP) is None
    assert environments.keys() == ()
    key = env_key(folder, APP)
    python = tmp_path / "cache/envs" / key / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    assert environments.find(folder, APP) is None, "half built"
    (tmp_path / f"cache/envs/.{key}.json").write_text('{"size_bytes": 1}')
    found = environments.find(folder, APP)
    assert found is not None
    assert found.python == python
    found.close()
    assert environments.keys() == (key,)
    python.unlink()
    assert environments.find(folder, APP) is None
    assert environments.keys() == ()


def test_nothing_is_prepared_before_the_system_packages_were_looked_at(folder, tmp_path):
    environments = Environments(tmp_path / "cache", "uv")
    key = env_key(folder, APP)
    (tmp_path / "cache/envs" / key / "bin").mkdir(parents=True)
    (tmp_path / "cache/envs" / key / "bin/python").write_text("")
    (tmp_path / f"cache/envs/.{key}.json").write_text('{"size_bytes": 1}')
    (folder / "packages.txt").write_text("# nothing\n\n")
    assert environments.find(folder, APP) is not None
    (folder / "packages.txt").write_text("some-library\n")
    assert environments.find(folder, APP) is None


def test_the_nearest_python_has_an_environment_of_its_own(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pythons, "find_on_path", lambda version: None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    other = "3.10" if own != "3.10" else "3.13"
    app = Manifest(name="x", kernel=other)
    key = env_key(folder, app, version=own)
    assert key != env_key(folder, app)
    python = tmp_path / "cache/envs" / key / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    (tmp_path / f"cache/envs/.{key}.json").write_text('{"size_bytes": 1}')
    assert Environments(tmp_path / "cache", "uv").find(folder, app) is None
    found = Environments(tmp_path / "cache", "uv", Policy(python_fallback=True)).find(folder, app)
    assert found is not None
    assert f"the app wants Python {other}; it gets {own}" in found.notes[0]
