"""App versions on disk, and places in results."""

import asyncio

import pytest

from stoker.bundles import BadBundle
from stoker_cli.packing import pack
from stoker_worker.files import GatewayRefused
from stoker_worker.pointers import put_at
from stoker_worker.versions import Versions


@pytest.fixture
def bundle(tmp_path):
    """A packed app, and its version id."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "inf.yml").write_text("name: echo\n")
    (folder / "inference.py").write_text("class App: ...\n")
    return pack(folder, tmp_path)


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", "X"),
        ("/a", {"a": "X", "b": [{"c": 2}], "d/e~": 3}),
        ("/b/0/c", {"a": 1, "b": [{"c": "X"}], "d/e~": 3}),
        ("/b/0", {"a": 1, "b": ["X"], "d/e~": 3}),
        ("/d~1e~0", {"a": 1, "b": [{"c": 2}], "d/e~": "X"}),
    ],
)
def test_a_pointer_names_one_place_of_the_output(pointer, expected):
    assert put_at({"a": 1, "b": [{"c": 2}], "d/e~": 3}, pointer, "X") == expected


async def test_a_version_is_fetched_once_and_found_again(tmp_path, bundle):
    packed, version_id = bundle
    fetched = []

    async def fetch(target):
        fetched.append(target)
        await asyncio.sleep(0)
        target.write_bytes(packed.read_bytes())

    versions = Versions(tmp_path / "versions")
    assert versions.find(version_id) is None
    uses = await asyncio.gather(*(versions.ensure(version_id, fetch) for _ in range(3)))
    assert len(fetched) == 1
    assert {use.folder for use in uses} == {versions.find(version_id).folder}
    assert (uses[0].folder / "inference.py").is_file()


async def test_a_failed_fetch_leaves_nothing_and_may_be_repeated(tmp_path, bundle):
    packed, version_id = bundle
    versions = Versions(tmp_path / "versions")

    async def broken(target):
        target.write_bytes(b"half")
        raise GatewayRefused("gone")

    async def fetch(target):
        target.write_bytes(packed.read_bytes())

    with pytest.raises(GatewayRefused):
        await versions.ensure(version_id, broken)
    assert versions.find(version_id) is None
    assert [path for path in (tmp_path / "versions").iterdir() if path.is_dir()] == []
    assert (await versions.ensure(version_id, fetch)).folder.is_dir()


async def test_a_bundle_that_is_none_is_no_version(tmp_path):
    versions = Versions(tmp_path / "versions")

    async def fetch(target):
        target.write_bytes(b"<html>")

    with pytest.raises(BadBundle):
        await versions.ensure("v", fetch)
    assert versions.find("v") is None


async def test_a_bundle_of_another_version_is_refused(tmp_path, bundle):
    packed, version_id = bundle
    versions = Versions(tmp_path / "versions")

    async def fetch(target):
        target.write_bytes(packed.read_bytes())

    with pytest.raises(BadBundle, match=f"holds version {version_id[:8]}, not ffffffff"):
        await versions.ensure("f" * 64, fetch)
    assert versions.find("f" * 64) is None
