"""A worker that spoils a task ends that task's streams, and nobody else's."""

import asyncio

import pytest
from batches import Batches
from helpers import eventually
from protocol_scene import DONE

from stoker.settings import GatewaySettings
from stoker_gateway.answer_feed import AnswerFeed
from stoker_gateway.dialect import Dialect, Numbering
from stoker_gateway.streams import Hub, StreamCut

NEW = Dialect(numbering=Numbering.NEW, ndjson=True)


@pytest.fixture
async def scene(scene):
    await scene.submit("spoiled")
    return scene


@pytest.fixture
async def hub(store, tmp_path):
    hub = Hub(store, GatewaySettings(data_dir=tmp_path))
    loops = [asyncio.ensure_future(hub._read_loop())]
    yield hub
    loops[0].cancel()


async def spoil(store, key):
    """Another type, so that every read of it is an error. What was there is under another name."""
    if await store._connection.command("EXISTS", key):
        await store._connection.command("RENAME", key, f"{key}:before")
    await store._connection.command("SET", key, "nonsense")


async def make_whole(store, key):
    await store._connection.command("RENAME", f"{key}:before", key)


async def events(hub, task_id):
    first = await hub._store.tasks.read(task_id, with_logs=False)
    return [event async for event in hub.events(first, hub.heard.position, NEW, "u1")]


async def test_a_task_that_cannot_be_read_breaks_off_its_own_streams_alone(scene, hub):
    order = await scene.running()
    whole, spoiled = (asyncio.ensure_future(events(hub, task_id)) for task_id in ("t1", "spoiled"))
    answer = asyncio.ensure_future(anext(AnswerFeed(scene.store, hub, 60, "spoiled").parts()))
    await eventually(lambda: hub.open_streams == 3, "three readers")
    for key in (scene.store._keys.task_events("spoiled"), scene.store._keys.task("spoiled")):
        await spoil(scene.store, key)
    await scene.store.engines.finish(order, "box", DONE)
    hub._mark("t1", "spoiled")
    for broken in (spoiled, answer):
        with pytest.raises(StreamCut):
            await broken
    assert b'"status_text":"completed"' in (await whole)[-1]
    assert (hub.unreadable, hub.open_streams) == (2, 0)


async def test_a_spoiled_task_that_was_dropped_can_be_followed_when_it_is_whole_again(scene, hub):
    key = scene.store._keys.task("spoiled")
    await spoil(scene.store, key)
    with hub.answer("spoiled") as (watch, changed):
        await eventually(lambda: watch.broken, "the end of the first stream")
        await make_whole(scene.store, key)
        with hub.answer("spoiled") as (fresh, _):
            await eventually(lambda: fresh.view is not None, "the task")
        assert changed.is_set()


async def test_who_follows_an_answer_has_what_it_needs_of_the_task_read_and_no_more(scene, hub, monkeypatch):
    batches = Batches(scene.store, monkeypatch)
    with hub.answer("t1") as (watch, _):
        await eventually(lambda: watch.view is not None, "the task")
    assert batches.names == [["HMGET"]]
    assert "request" not in batches[0][0]


async def test_the_log_and_the_stream_of_a_task_do_not_depend_on_who_follows_its_answer(scene, hub):
    order = await scene.running()
    with hub.answer("t1") as (watch, _):
        whole = asyncio.ensure_future(events(hub, "t1"))
        await eventually(lambda: hub.open_streams == 2, "both readers")
        await scene.store.engines.finish(order, "box", DONE)
        hub._mark("t1")
        assert b'"status_text":"completed"' in (await whole)[-1]
        await eventually(lambda: watch.ended, "the end of the answer")
        assert watch.view.output == bytes(DONE.output)
