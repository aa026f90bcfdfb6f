"""Apps and versions in Redis: names are given once, removed code stays as long as a task may need it."""

import asyncio

import pytest
from protocol.faulty import lose_replies
from protocol_scene import Scene
from scheduling import OWNER

from stoker.core.apps import App, AppVersion
from stoker.core.errors import NotFound
from stoker.core.messages import Needs, StoredFile, TaskId, TaskRequest, TaskSpec
from stoker.files import file_key
from stoker.files.local import LocalFiles
from stoker_gateway.sweeper import GRACE_MS, Sweeper, decide_unneeded


def app(app_id, name="words", owner="u"):
    return App(id=app_id, short_id=app_id, namespace="t", name=name, owner_id=owner)


def version(app_id, version_id="v1", file_id="file1"):
    return AppVersion(id=version_id, short_id=version_id, app_id=app_id, created_ms=1, bundle_file_id=file_id)


async def queue(store, version_id, run_at_ms=0):
    request = TaskRequest(
        id=TaskId("task1"), app_id="a", app="t/words", version_id=version_id, function="run", input={}, setup={},
        setup_key="s", env_key="e", run_at_ms=run_at_ms,
    )  # fmt: skip
    spec = TaskSpec(
        id=request.id,
        setup_key="s",
        version_id=version_id,
        env_key="e",
        app=request.app,
        needs=Needs(),
        created_ms=1,
    )
    await store.tasks.submit(request, spec, OWNER)
    return request.id


async def test_of_two_that_want_a_name_one_gets_it(store):
    ids = await asyncio.gather(*(store.catalog.add_app(app(f"a{n}")) for n in range(5)))
    assert len(set(ids)) == 1
    assert [found.id for found in await store.catalog.list_apps()] == [ids[0]]
    assert (await store.catalog.find_app("t", "words")).id == ids[0]


async def test_a_name_whose_reply_was_lost_is_kept_with_its_app(store, monkeypatch):
    lose_replies(store, monkeypatch)
    assert await store.catalog.add_app(app("a")) == "a"
    assert await store.catalog.add_app(app("b")) == "a"
    assert (await store.catalog.find_app("t", "words")).id == "a"
    assert [found.id for found in await store.catalog.list_apps()] == ["a"]


async def test_a_name_is_free_again_after_its_app(store):
    await store.catalog.add_app(app("a"))
    await store.catalog.delete_app(app("a"), 1)
    assert await store.catalog.add_app(app("b")) == "b"
    await store.catalog.delete_app(app("a"), 1)  # again: the name is not its own any more
    assert (await store.catalog.find_app("t", "words")).id == "b"


async def test_removed_code_is_there_for_tasks_alone(store):
    await store.catalog.add_app(app("a"))
    await store.catalog.put_version(version("a"))
    await store.catalog.delete_app(app("a"), 1)
    with pytest.raises(NotFound):
        await store.catalog.get_version("a", "v1")
    assert (await store.catalog.code_of("a", "v1")).bundle_file_id == "file1"
    await store.catalog.forget_retired(version("a"))
    with pytest.raises(NotFound):
        await store.catalog.code_of("a", "v1")


@pytest.fixture
async def files(store, tmp_path):
    """A file store with the code of one version."""

    async def chunks():
        yield b"code"

    local = LocalFiles(tmp_path)
    await local.put(file_key("file1"), chunks())
    await store.files.put(
        StoredFile(id="file1", secret="s", owner_id="u", filename="f", content_type="", size=4, created_ms=1)
    )
    return local


@pytest.mark.parametrize("run_at_ms", [0, 2**42], ids=["now", "later"])
async def test_code_goes_when_the_last_task_has_ended(store, files, run_at_ms):
    await store.catalog.put_version(version("a"))
    task_id = await queue(store, "v1", run_at_ms=run_at_ms)
    await store.catalog.delete_version(version("a"), 0)
    sweeper = Sweeper(store, files)
    assert await sweeper.sweep(GRACE_MS - 1) == []
    assert await sweeper.sweep(GRACE_MS) == []
    assert await files.size(file_key("file1")) == 4
    await store.tasks.cancel(task_id)
    assert await sweeper.sweep(GRACE_MS) == ["v1"]
    with pytest.raises(NotFound):
        await files.size(file_key("file1"))
    with pytest.raises(NotFound):
        await store.files.get("file1")
    assert await sweeper.sweep(GRACE_MS) == []


async def test_code_of_a_task_that_leaves_its_engine_meanwhile_stays(store, files, monkeypatch):
    scene = Scene(store)
    await scene.set_up()
    order = await scene.running()
    original = store.scheduling.pending

    async def and_then_leave():
        found = await original()
        await store.engines.hand_back(order, "box", "0-0", "drain")
        return found

    monkeypatch.setattr(store.scheduling, "pending", and_then_leave)
    await store.catalog.put_version(version("a", "v"))
    await store.catalog.delete_version(version("a", "v"), 0)
    assert await Sweeper(store, files).sweep(GRACE_MS) == []


async def test_code_of_a_task_that_an_engine_takes_meanwhile_stays(store, files, monkeypatch):
    scene = Scene(store)
    await scene.set_up()
    original = store.scheduling.delayed

    async def and_then_begin():
        await scene.running()
        return await original()

    monkeypatch.setattr(store.scheduling, "delayed", and_then_begin)
    await store.catalog.put_version(version("a", "v"))
    await store.catalog.delete_version(version("a", "v"), 0)
    assert await Sweeper(store, files).sweep(GRACE_MS) == []


async def test_an_id_of_a_file_that_leads_to_another_key_is_nobodys(store, files):
    await store.files.use(["file1"], "t1", 0)
    with pytest.raises(NotFound):
        await store.files.get("file1:users")


async def test_code_that_another_app_has_too_stays(store, files):
    await store.catalog.add_app(app("b", "copy"))
    for app_id in ("a", "b"):
        await store.catalog.put_version(version(app_id))
    await store.catalog.delete_version(version("a"), 0)
    assert await Sweeper(store, files).sweep(GRACE_MS) == ["v1"]
    assert await files.size(file_key("file1")) == 4
    await store.catalog.delete_app(app("b", "copy"), 0)
    assert await Sweeper(store, files).sweep(GRACE_MS) == ["v1"]
    with pytest.raises(NotFound):
        await files.size(file_key("file1"))


def test_what_is_needed_or_fresh_stays():
    from stoker.core.apps import RetiredVersion

    entries = [
        RetiredVersion(version=version("a", name), since_ms=at) for name, at in (("old", 0), ("new", 9))
    ]
    assert [e.version.id for e in decide_unneeded(GRACE_MS, entries, ())] == ["old"]
    assert decide_unneeded(GRACE_MS, entries, {"old"}) == []
