"""The machine's Nodes are looked for again where none fits: who is told to install one need not start the daemon anew."""

import pytest

from stoker.manifest import Manifest
from stoker_worker.environment import Environments
from stoker_worker.nodes import NodeMissing

APP = Manifest(name="x", kernel="node-22")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Two folders on the PATH without a Node; a function that installs one that only tells its version."""
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv("PATH", ":".join(map(str, folders)))
    monkeypatch.setenv("NVM_DIR", str(tmp_path / "nvm"))

    def install(number, version):
        for name, line in (("node", f"echo v{version}"), ("npm", "exit 0")):
            path = folders[number] / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{line}\n")
            path.chmod(0o755)
        return folders[number] / "node"

    return install


@pytest.fixture
def environments(tmp_path):
    return Environments(tmp_path / "cache", "uv")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "app"
    made.mkdir()
    return made


async def built(environments, folder):
    environment = await environments.ensure(folder, APP, lambda _kind, _text: None)
    environment.close()
    return environment


async def test_a_node_that_is_installed_later_is_found(environments, folder, machine):
    machine(1, "20.9.0")
    with pytest.raises(NodeMissing, match=r"found: 20\.9\.0"):
        await built(environments, folder)
    assert environments.find(folder, APP) is None
    node = machine(0, "22.1.0")
    assert (await built(environments, folder)).python == node


async def test_a_node_that_was_removed_is_not_used_and_another_is_found(environments, folder, machine):
    gone = machine(0, "22.1.0")
    assert (await built(environments, folder)).python == gone
    gone.unlink()
    assert environments.find(folder, APP) is None
    other = machine(1, "22.4.0")
    found = await built(environments, folder)
    assert found.python == other
    assert found.key == environments.find(folder, APP).key
