"""A worker that spoils a task ends that task's streams, and nobody else's."""

import asyncio

import pytest
from helpers import eventually
from protocol_scene import DONE, Scene

from stoker.settings import GatewaySettings
from stoker_gateway.answer_feed import AnswerFeed
from stoker_gateway.dialect import Dialect, Numbering
from stoker_gateway.streams import Hub, StreamCut

NEW = Dialect(numbering=Numbering.NEW, ndjson=True)


@pytest.fixture
async def scene(store):
    scene = Scene(store)
    await scene.set_up()
    await scene.submit("spoiled")
    return scene


@pytest.fixture
async def hub(store, tmp_path):
    hub = Hub(store, GatewaySettings(data_dir=tmp_path))
    loops = [asyncio.ensure_future(hub._read_loop())]
    yield hub
    loops[0].cancel()


async def spoil(store, task_id):
    """Another type, so that every read of it is an error."""
    key = store._keys.task_events(task_id)
    await store._connection.command("DEL", key)
    await store._connection.command("SET", key, "nonsense")


async def events(hub, task_id):
    first = await hub._store.tasks.read(task_id, with_logs=False)
    return [event async for event in hub.events(first, hub.heard.position, NEW, "u1")]


async def test_a_task_that_cannot_be_read_breaks_off_its_own_streams_alone(scene, hub):
    order = await scene.running()
    whole, spoiled = (asyncio.ensure_future(events(hub, task_id)) for task_id in ("t1", "spoiled"))
    answer = asyncio.ensure_future(anext(AnswerFeed(scene.store, hub, 60, "spoiled").parts()))
    await eventually(lambda: hub.open_streams == 3, "three readers")
    await spoil(scene.store, "spoiled")
    await scene.store.engines.finish(order, "box", DONE)
    hub._mark("t1", "spoiled")
    for broken in (spoiled, answer):
        with pytest.raises(StreamCut):
            await broken
    assert b'"status_text":"completed"' in (await whole)[-1]
    assert (hub.unreadable, hub.open_streams) == (1, 0)


async def test_a_spoiled_task_that_was_dropped_can_be_followed_when_it_is_whole_again(scene, hub):
    await spoil(scene.store, "spoiled")
    with hub.watch("spoiled") as (watch, changed):
        await eventually(lambda: watch.broken, "the end of the first stream")
        await scene.store._connection.command("DEL", scene.store._keys.task_events("spoiled"))
        with hub.watch("spoiled") as (fresh, _):
            await eventually(lambda: fresh.view is not None, "the task")
        assert changed.is_set()
