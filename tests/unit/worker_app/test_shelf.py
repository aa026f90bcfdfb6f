"""Folders on a shelf: complete or absent, in use or not, and what remains of builds that died."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker_worker.budget import Budget, decide_limit
from stoker_worker.shelf import Shelf, size_of

LIMIT_S = 30


class Lines(list):
    def __call__(self, kind, text):
        assert kind is LogType.BUILD
        self.append(text)


class Broken(StokerError):
    code = "environment_failed"


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "shelf", revive=Broken)


def builder(size=100, text="built"):
    async def build(site):
        site.on_line(LogType.BUILD, text)
        site.folder.mkdir()
        (site.folder / "file").write_bytes(b"x" * size)

    return build


async def make(shelf, key="k", build=None, lines=None):
    async with asyncio.timeout(LIMIT_S):
        return await shelf.make(key, "app", build or builder(), Lines() if lines is None else lines)


async def test_a_folder_is_built_once_and_found_again(shelf):
    lines = Lines()
    first = await make(shelf, lines=lines)
    second = await make(shelf, lines=lines)
    assert first.folder == second.folder == shelf.find("k")
    assert lines == ["built"]
    assert shelf.keys() == ("k",)


async def test_a_failed_build_leaves_nothing_and_may_be_repeated(shelf):
    async def build(site):
        site.folder.mkdir()
        site.part.write_text("half")
        raise Broken("no")

    with pytest.raises(Broken):
        await make(shelf, build=build)
    assert shelf.find("k") is None
    assert not (shelf.path / "k").exists()
    assert not (shelf.path / ".k.part").exists()
    assert (await make(shelf)).folder.is_dir()


async def test_those_who_wait_see_the_lines_from_the_first_and_share_the_failure(shelf):
    begun, go, waiting = asyncio.Event(), asyncio.Event(), asyncio.Event()
    builds = []

    async def build(site):
        builds.append(1)
        begun.set()
        site.on_line(LogType.BUILD, "first")
        await go.wait()
        site.on_line(LogType.BUILD, "second")
        raise Broken("no such package")

    class Seen(Lines):
        def __call__(self, kind, text):
            super().__call__(kind, text)
            if text == "first":
                waiting.set()

    other = Seen()
    one = asyncio.ensure_future(make(shelf, build=build))
    await asyncio.wait_for(begun.wait(), LIMIT_S)
    two = asyncio.ensure_future(make(Shelf(shelf.path, revive=Broken), build=build, lines=other))
    await asyncio.wait_for(waiting.wait(), LIMIT_S)
    go.set()
    for task in (one, two):
        with pytest.raises(Broken, match="no such package"):
            await task
    assert len(builds) == 1
    assert other == [
        f"waiting for the build by process {os.getpid()} for app; its lines follow",
        "first",
        "second",
    ]
    with pytest.raises(Broken):  # who comes later tries again
        await make(shelf, build=build)
    assert len(builds) == 2


async def test_a_failure_is_not_shared_where_another_may_succeed(tmp_path):
    shelf, begun = Shelf(tmp_path / "versions"), asyncio.Event()

    async def refused(site):
        begun.set()
        await asyncio.sleep(0)
        raise Broken("this task's token is stale")

    one = asyncio.ensure_future(make(shelf, build=refused))
    await asyncio.wait_for(begun.wait(), LIMIT_S)
    two = asyncio.ensure_future(make(shelf))
    with pytest.raises(Broken):
        await one
    assert (await two).folder.is_dir()


async def test_who_waits_for_a_build_that_is_cancelled_builds_itself(shelf):
    begun = asyncio.Event()

    async def forever(site):
        site.folder.mkdir()
        begun.set()
        await asyncio.Event().wait()

    one = asyncio.ensure_future(make(shelf, build=forever))
    await asyncio.wait_for(begun.wait(), LIMIT_S)
    two = asyncio.ensure_future(make(shelf))
    await asyncio.sleep(0)
    one.cancel()
    assert (await two).folder.is_dir()


KILLED = """
import asyncio, os, sys
from pathlib import Path
from stoker_worker.shelf import Shelf

async def build(site):
    site.folder.mkdir()
    (site.folder / "half").write_text("half")
    site.part.write_text("half")
    print("building", flush=True)
    await asyncio.sleep(600)

asyncio.run(Shelf(Path(sys.argv[1])).make("k", "app", build, lambda kind, text: None))
"""


@pytest.fixture
def killed(shelf):
    """A shelf on which a process died in the middle of a build."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(shelf.path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout.readline() == b"building\n"
        assert shelf.sweep() == [], "somebody builds it"
        assert shelf.find("k") is None
    finally:
        process.kill()
        process.wait()
    return shelf


async def test_half_a_folder_is_never_used_and_the_next_build_removes_it(killed):
    assert killed.find("k") is None
    assert killed.use("k") is None
    assert sorted(path.name for path in (await make(killed)).folder.iterdir()) == ["file"]


def test_half_a_folder_is_swept_when_its_builder_is_dead(killed):
    assert killed.sweep() == ["k"]
    assert list(killed.path.iterdir()) == []


async def test_sweeping_keeps_what_is_complete(shelf):
    (await make(shelf)).close()
    assert shelf.sweep() == []
    assert shelf.keys() == ("k",)


async def test_a_folder_in_use_is_not_evicted(shelf):
    use = await make(shelf)
    other = use.share()
    use.close()
    use.close()
    assert not Shelf(shelf.path).evict("k")
    other.close()
    assert Shelf(shelf.path).evict("k")
    assert shelf.keys() == ()
    assert list(shelf.path.iterdir()) == []
    assert not shelf.evict("k")


@pytest.fixture
async def kept(shelf):
    """A shelf with one folder."""
    (await make(shelf)).close()
    return shelf


def test_a_use_ends_with_its_process(kept):
    shelf = kept
    code = "import sys; from pathlib import Path; from stoker_worker.shelf import Shelf\n"
    code += "use = Shelf(Path(sys.argv[1])).use('k'); print('holds', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(shelf.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout.readline() == b"holds\n"
        assert not shelf.evict("k")
    finally:
        process.kill()
        process.wait()
    assert shelf.evict("k")


async def test_an_unsound_folder_is_built_again(tmp_path):
    shelf = Shelf(tmp_path / "s", is_sound=lambda folder: (folder / "file").exists())
    use = await make(shelf)
    (use.folder / "file").unlink()
    assert shelf.find("k") is None
    assert (await make(shelf)).folder.joinpath("file").exists()


def used_at(shelf, key, seconds):
    os.utime(shelf.path / f".{key}.json", (seconds, seconds))


async def test_what_was_not_used_for_longest_goes_first_on_all_shelves(tmp_path):
    one, two = Shelf(tmp_path / "one"), Shelf(tmp_path / "two")
    for shelf, key, seconds in ((one, "a", 40), (two, "b", 10), (one, "c", 20), (two, "d", 30)):
        (await make(shelf, key, builder(1_000_000))).close()
        used_at(shelf, key, seconds)
    size = one.entries()[0].size_bytes
    assert Budget((one, two), 10 * size).make_room() == []
    assert Budget((one, two), 2 * size).make_room() == ["b", "c"]
    assert (one.keys(), two.keys()) == (("a",), ("d",))


async def test_what_is_in_use_stays_and_the_next_goes(tmp_path):
    shelf = Shelf(tmp_path / "one")
    held = await make(shelf, "a")
    (await make(shelf, "b")).close()
    used_at(shelf, "a", 10)
    assert Budget((shelf,), 0).make_room() == ["b"]
    held.close()
    assert Budget((shelf,), 0).make_room() == ["a"]


async def test_a_use_counts_as_the_last_one(tmp_path):
    shelf = Shelf(tmp_path / "one")
    for key in ("a", "b"):
        (await make(shelf, key)).close()
    used_at(shelf, "a", 10)
    used_at(shelf, "b", 20)
    shelf.use("a").close()
    size = shelf.entries()[0].size_bytes
    assert Budget((shelf,), size).make_room() == ["b"]


async def test_damaged_facts_make_a_folder_the_first_to_go(tmp_path):
    shelf = Shelf(tmp_path / "one")
    for key in ("a", "b"):
        (await make(shelf, key)).close()
    (shelf.path / ".b.json").write_text("{")
    assert [(entry.key, entry.used_ns) for entry in shelf.entries() if not entry.used_ns] == [("b", 0)]


@pytest.mark.parametrize(
    ("total", "free", "held", "limit"),
    [
        (1000, 900, 50, 500),
        (1000, 100, 300, 300),
        (1000, 150, 300, 350),
        (1000, 50, 300, 250),
        (1000, 0, 10, 0),
    ],
)
def test_where_nothing_is_set_half_of_the_disk_counts_and_a_tenth_stays_free(total, free, held, limit):
    assert decide_limit(total, free, held) == limit


def test_a_file_with_several_links_counts_its_share(tmp_path):
    alone, linked = tmp_path / "alone", tmp_path / "linked"
    for folder in (alone, linked):
        folder.mkdir()
        (folder / "file").write_bytes(b"x" * 100_000)
    os.link(linked / "file", tmp_path / "cached")
    assert size_of(alone) == 2 * size_of(linked)
    (linked / "link").symlink_to(Path("/usr"))
    assert size_of(linked) < size_of(alone)
