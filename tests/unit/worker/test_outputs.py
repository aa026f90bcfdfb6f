"""The files of a result on their way to the gateway."""

import asyncio
import os
from pathlib import Path

import pytest
from recorders import order

from stoker_worker.environment import Environments
from stoker_worker.files import GatewayRefused, Slot
from stoker_worker.instance import OutFile, RunResult
from stoker_worker.machine import Machine
from stoker_worker.outcomes import OutputFileMissing, OutputFileUnreadable, UploadFailed
from stoker_worker.outputs import ANNOUNCED, LARGE_BYTES, PARALLEL, Outputs, field_name
from stoker_worker.versions import Versions


class Uploads:
    """A gateway that stores, or refuses."""

    def __init__(self, error=None, gate=None):
        self.error, self.gate = error, gate
        self.announced, self.stored = [], {}
        self.busy = self.most_busy = 0

    async def announce(self, order, files):
        self.announced.append([file.filename for file in files])
        self.sizes = {file.filename: file.size for file in files}
        return [Slot(f"http://up/{file.filename}", f"http://there/{file.filename}") for file in files]

    async def upload(self, slot, size, read):
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        if self.gate is not None:
            await self.gate(self)
        if self.error is not None:
            raise self.error
        self.stored[slot.uri] = sum([len(chunk) async for chunk in read(0)])
        self.busy -= 1


def produced(tmp_path, pointer="/images/1", name="a b.png", content=b"12345"):
    path = tmp_path / name
    path.write_bytes(content)
    return OutFile(pointer=pointer, path=str(path), content_type="image/png", filename=name, size=0)


async def store(gateway, *files, lines=None):
    return await Outputs(gateway).store(order(), files, lambda _, text: (lines or []).append(text))


async def test_a_file_becomes_its_address_in_the_output(tmp_path):
    result = RunResult(output={"images": [None, {"path": "x"}], "n": 1}, files=[produced(tmp_path)])
    machine = Machine(Versions(tmp_path), Environments(tmp_path, "uv"), Uploads(), tmp_path / "work", None)
    assert await machine.upload(order(), result, lambda *_: None) == {
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


async def test_a_path_that_several_fields_name_is_sent_once(tmp_path):
    gateway = Uploads()
    one, two = produced(tmp_path, "/a"), produced(tmp_path, "/b/0")
    first, second = await store(gateway, one, two)
    assert first == second
    assert gateway.announced == [["a b.png"]]


async def test_a_file_that_is_not_there_fails_with_the_name_of_its_field():
    file = OutFile(pointer="/images/1", path="/nowhere/x.png", content_type="", filename="x.png", size=0)
    with pytest.raises(OutputFileMissing, match=r"output field 'images.1' names '/nowhere/x.png'"):
        await store(Uploads(), file)


async def test_a_missing_file_is_found_before_anything_is_sent(tmp_path):
    gateway = Uploads()
    missing = OutFile(pointer="/b", path=str(tmp_path / "no"), content_type="", filename="no", size=0)
    with pytest.raises(OutputFileMissing, match="'b'"):
        await store(gateway, produced(tmp_path), missing)
    assert (gateway.announced, gateway.stored) == ([], {})


@pytest.mark.parametrize(
    ("make", "words"), [(os.mkdir, "it is a directory"), (os.mkfifo, "it is no regular file")]
)
async def test_what_is_no_file_fails_with_the_name_of_its_field(tmp_path, make, words):
    make(tmp_path / "thing")
    file = OutFile(
        pointer="/deep/list/0", path=str(tmp_path / "thing"), content_type="", filename="x", size=0
    )
    with pytest.raises(OutputFileUnreadable, match=rf"'deep.list.0' names .*: {words}"):
        await store(Uploads(), file)


@pytest.mark.parametrize("change", ["remove", "shorten"])
async def test_a_file_that_changes_before_it_is_sent_fails_with_the_name_of_its_field(tmp_path, change):
    file = produced(tmp_path, "/film")

    async def spoil(_):
        if change == "remove":
            await asyncio.to_thread(Path(file.path).unlink)
        else:
            os.truncate(file.path, 2)

    with pytest.raises(OutputFileUnreadable, match="'film' names"):
        await store(Uploads(gate=spoil), file)


async def test_a_file_that_grows_is_sent_as_it_was_announced(tmp_path):
    file = produced(tmp_path)

    async def grow(_):
        os.truncate(file.path, 9)

    gateway = Uploads(gate=grow)
    [value] = await store(gateway, file)
    assert value["size"] == 5
    assert gateway.stored == {"http://there/a b.png": 5}


async def test_a_refused_upload_says_why(tmp_path):
    with pytest.raises(UploadFailed, match="could not be stored: disk full"):
        await store(Uploads(GatewayRefused("disk full")), produced(tmp_path))


async def test_many_files_go_a_few_at_a_time(tmp_path):
    files = [produced(tmp_path, f"/f/{n}", f"{n}.png") for n in range(ANNOUNCED + 5)]
    gateway = Uploads(gate=lambda _: asyncio.sleep(0))
    values = await store(gateway, *files)
    assert [value["filename"] for value in values] == [f"{n}.png" for n in range(ANNOUNCED + 5)]
    assert [len(names) for names in gateway.announced] == [ANNOUNCED, 5]
    assert gateway.most_busy == PARALLEL


async def test_a_large_file_tells_how_far_it_is_and_a_small_one_does_not(tmp_path):
    large = produced(tmp_path, "/large", "large.mp4")
    os.truncate(large.path, LARGE_BYTES)
    lines = ["begun"]
    await store(Uploads(), large, produced(tmp_path, "/small"), lines=lines)
    assert len(lines) == 11
    assert lines[1] == "Uploading 'large.mp4': 10 of 100 MB (10 %)"
    assert lines[-1] == "Uploading 'large.mp4': 100 of 100 MB (100 %)"


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [("/images/0", "'images.0'"), ("/a~1b/c~0d", "'a/b.c~d'"), ("", "(the output itself)")],
)
def test_a_pointer_is_told_as_people_write_a_field(pointer, expected):
    assert field_name(pointer) == expected
