"""Builds that are cancelled while a thread works on the folder: nothing is removed or built beside it."""

import asyncio
import threading

import pytest

from stoker import bundles
from stoker_worker import shelf as shelf_module
from stoker_worker.shelf import Shelf
from stoker_worker.threads import unbroken
from stoker_worker.versions import Versions

LIMIT_S = 30
TURNS = 10
"""Of the loop: more than any cancellation takes that waits for nothing."""


class Held:
    """A call that begins, and goes on when it may."""

    def __init__(self, call):
        self.call = call
        self.loop = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.go = threading.Event()

    def __call__(self, *arguments, **named):
        self.loop.call_soon_threadsafe(self.begun.set)
        assert self.go.wait(LIMIT_S)
        return self.call(*arguments, **named)

    async def cancel(self, task, times=1):
        """Cancel what waits for the call, then let the call go on; returns when the task has ended."""
        async with asyncio.timeout(LIMIT_S):
            await self.begun.wait()
            for _ in range(times):
                task.cancel()
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            early = task.done()
            self.go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        return early


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_waits_for_the_thread_however_often_it_comes(times):
    done = []
    held = Held(lambda: done.append("done"))
    early = await held.cancel(asyncio.ensure_future(unbroken(held)), times)
    assert not early
    assert done == ["done"]


async def test_the_folder_of_a_cancelled_download_does_not_come_back(tmp_path, monkeypatch):
    unpacked = []

    def unpack(_part, folder, _limits):
        folder.mkdir(parents=True)
        unpacked.append(folder)
        return "v"

    held = Held(unpack)
    monkeypatch.setattr(bundles, "unpack", held)
    versions = Versions(tmp_path)

    async def fetch(part):
        part.write_bytes(b"")

    await held.cancel(asyncio.ensure_future(versions.ensure("v", fetch)))
    assert unpacked == [tmp_path / "v"]
    assert not (tmp_path / "v").exists()
    (await versions.ensure("v", fetch)).close()
    assert len(unpacked) == 2


async def test_a_build_that_is_cancelled_when_it_is_complete_stays(tmp_path, monkeypatch):
    held = Held(shelf_module.size_of)
    monkeypatch.setattr(shelf_module, "size_of", held)
    shelf = Shelf(tmp_path)

    async def build(site):
        site.folder.mkdir()
        (site.folder / "file").write_text("x")

    await held.cancel(asyncio.ensure_future(shelf.make("k", "app", build, lambda _kind, _text: None)))
    use = shelf.use("k")
    assert (use.folder / "file").read_text() == "x"
    use.close()
