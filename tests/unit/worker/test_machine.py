"""App versions on disk, and results with files in them."""

import asyncio

import pytest
from recorders import order

from stoker_worker import bundles
from stoker_worker.files import GatewayRefused
from stoker_worker.instance import OutFile, RunResult
from stoker_worker.machine import Machine
from stoker_worker.outcomes import OutputFileMissing, UploadFailed
from stoker_worker.pointers import put_at
from stoker_worker.versions import Versions


@pytest.fixture
def bundle(tmp_path):
    """A packed app, and its version id."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "inf.yml").write_text("name: echo\n")
    (folder / "inference.py").write_text("class App: ...\n")
    return bundles.pack(folder)


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
    folders = await asyncio.gather(*(versions.ensure(version_id, fetch) for _ in range(3)))
    assert len(fetched) == 1
    assert set(folders) == {versions.find(version_id)}
    assert (folders[0] / "inference.py").is_file()


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
    assert list((tmp_path / "versions").iterdir()) == []
    assert (await versions.ensure(version_id, fetch)).is_dir()


async def test_a_bundle_that_is_none_is_no_version(tmp_path):
    versions = Versions(tmp_path / "versions")

    async def fetch(target):
        target.write_bytes(b"<html>")

    with pytest.raises(bundles.BadBundle):
        await versions.ensure("v", fetch)
    assert versions.find("v") is None


class Uploads:
    """A gateway that stores, or refuses."""

    def __init__(self, error=None):
        self.error = error

    async def store(self, order, files):
        if self.error is not None:
            raise self.error
        return [f"http://there/{file.filename}" for file in files]


def machine(tmp_path, gateway):
    return Machine(Versions(tmp_path), None, gateway, tmp_path / "work", None)


def produced(tmp_path, pointer="/images/1"):
    path = tmp_path / "a b.png"
    path.write_bytes(b"12345")
    return OutFile(pointer=pointer, path=str(path), content_type="image/png", filename="a b.png", size=5)


async def test_a_file_becomes_its_address_in_the_output(tmp_path):
    result = RunResult(output={"images": [None, {"path": "x"}], "n": 1}, files=[produced(tmp_path)])
    assert await machine(tmp_path, Uploads()).upload(order(), result) == {
        "images": [
            None,
            {
                "uri": "http://there/a b.png",
                "content_type": "image/png",
                "size": 5,
                "filename": "a b.png",
            },
        ],
        "n": 1,
    }


async def test_a_file_that_is_not_there_fails_with_the_name_of_its_field(tmp_path):
    file = OutFile(pointer="/images/1", path="/nowhere/x.png", content_type="", filename="x.png", size=0)
    with pytest.raises(OutputFileMissing, match=r"output field 'images.1' names '/nowhere/x.png'"):
        await machine(tmp_path, Uploads()).upload(order(), RunResult(output={}, files=[file]))


async def test_a_refused_upload_says_why(tmp_path):
    result = RunResult(output={"images": [0, 0]}, files=[produced(tmp_path)])
    with pytest.raises(UploadFailed, match="could not be stored: disk full"):
        await machine(tmp_path, Uploads(GatewayRefused("disk full"))).upload(order(), result)
