"""Keys and steps of environments; the builds themselves are with the system tests."""

import pytest

from stoker.manifest import Manifest
from stoker_worker import environment
from stoker_worker.environment import Environments, env_key, missing_packages

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


def test_an_environment_is_found_by_its_interpreter(folder, tmp_path):
    environments = Environments(tmp_path / "cache", "uv")
    assert environments.find(folder, APP) is None
    assert environments.keys() == ()
    python = tmp_path / "cache/envs" / env_key(folder, APP) / "bin/python"
    python.parent.mkdir(parents=True)
    assert environments.find(folder, APP) is None
    python.write_text("")
    found = environments.find(folder, APP)
    assert found is not None
    assert found.python == python
    (tmp_path / "cache/envs/.half-built").mkdir()
    assert environments.keys() == (env_key(folder, APP),)


@pytest.mark.parametrize(
    ("files", "steps"),
    [
        ({}, [("requirements.txt", ["inferencesh", "pydantic"])]),
        (
            {"requirements.txt": "numpy\n"},
            [("requirements.txt", ["requirements.txt", "inferencesh", "pydantic"])],
        ),
        (
            {"requirements.txt": "Pydantic>=2\ninferencesh @ git+https://x/y\n"},
            [("requirements.txt", ["requirements.txt"])],
        ),
        (
            {"requirements.txt": "pydantic[email]\ninferencesh==0.2.7\n", "requirements2.txt": "wheel\n"},
            [("requirements.txt", ["requirements.txt"]), ("requirements2.txt", ["requirements2.txt"])],
        ),
    ],
)
def test_the_sdk_is_added_where_it_is_not_named(tmp_path, files, steps):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = [
        (title, [arg for arg in args[6:] if arg != "--requirement"])
        for title, args in environment._installs(tmp_path, tmp_path / "venv")
    ]
    assert found == steps


def test_missing_system_packages_are_named(tmp_path, monkeypatch):
    (tmp_path / "dpkg").mkdir()
    (tmp_path / "dpkg" / "libgl1:amd64.list").write_text("")
    monkeypatch.setattr(environment, "_DPKG", tmp_path / "dpkg")
    (tmp_path / "packages.txt").write_text("# tools\nsh\nlibgl1\nno-such-tool  # needed\n")
    assert missing_packages(tmp_path) == ["no-such-tool"]
    monkeypatch.setattr(environment, "_DPKG", tmp_path / "not-debian")
    assert missing_packages(tmp_path) == []
