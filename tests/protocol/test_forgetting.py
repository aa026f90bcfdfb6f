"""Engines that left for good: which may be forgotten, and what becomes of one that comes back."""

import pytest
from protocol_scene import Scene, info

from stoker.core.errors import NotFound, ProtocolRefusal
from stoker.core.messages import EngineReport
from stoker.protocol.wake import WakeKind


async def ids(store):
    return [view.info.id for view in await store.engines.list()]


async def told(store):
    """What engines the leader is told to look at."""
    _, events = await store.scheduling.wake("0", 1)
    return [event.engine_id for event in events if event.kind is WakeKind.ENGINE]


@pytest.mark.parametrize("status", ["stopped", "lost", "refused"])
async def test_an_engine_that_is_away_is_forgotten_and_may_come_back(scene, store, status):
    await store.engines.deregister("box", scene.session)
    await store._connection.command("HSET", store._keys.engine("box"), "status", status)
    before = await told(store)
    assert await store.scheduling.old_engines(-60, 0, 10) == ["box"]
    assert await store.scheduling.forget(scene.epoch, "box", 0)
    assert await ids(store) == await store.scheduling.old_engines(-60, 0, 10) == []
    with pytest.raises(NotFound):
        await store.engines.get("box")
    assert await told(store) == [*before, "box"]
    assert await store.scheduling.forget(scene.epoch, "box", 0)  # again
    assert await told(store) == [*before, "box"]
    await store.engines.register(info(), EngineReport(), {}, 30)
    assert await ids(store) == ["box"]
    assert (await scene.assign()).attempt == 1


async def test_an_engine_with_a_lease_is_kept(scene, store):
    assert not await store.scheduling.forget(scene.epoch, "box", 0)
    await store._connection.command("HSET", store._keys.engine("box"), "status", "stopped")
    assert not await store.scheduling.forget(scene.epoch, "box", 0)
    assert await ids(store) == ["box"]


async def test_an_engine_whose_tasks_were_not_taken_back_yet_is_kept(store):
    scene = Scene(store)
    await scene.set_up()
    await scene.running()
    await store.engines.deregister("box", scene.session)
    assert not await store.scheduling.forget(scene.epoch, "box", 0)
    await store.scheduling.requeue(scene.epoch, "t1", "box", 1, "the worker daemon stopped")
    assert await store.scheduling.forget(scene.epoch, "box", 0)


async def test_an_engine_that_was_seen_a_while_ago_is_kept(scene, store):
    await store.engines.deregister("box", scene.session)
    assert await store.scheduling.old_engines(3600, 0, 10) == []
    assert not await store.scheduling.forget(scene.epoch, "box", 3600)
    assert await ids(store) == ["box"]


async def test_what_an_engine_has_made_nonsense_of_is_forgotten_too(scene, store):
    await store.engines.deregister("box", scene.session)
    await store._connection.command("HSET", store._keys.engine("box"), "seen", "x", "info", "{")
    assert await store.scheduling.forget(scene.epoch, "box", 3600)
    assert await store.scheduling.old_engines(-60, 0, 10) == []


async def test_a_former_leader_forgets_nothing(scene, store):
    await store.engines.deregister("box", scene.session)
    with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
        await store.scheduling.forget(scene.epoch - 1, "box", 0)
    assert await ids(store) == ["box"]


async def test_those_that_registered_first_are_asked_about_first(store):
    for number in range(5):
        await store.engines.register(info(f"box-{number}"), EngineReport(), {}, 30)
    found = [await store.scheduling.old_engines(-60, skip, 2) for skip in (0, 2, 4)]
    assert sorted(i for part in found for i in part) == [f"box-{number}" for number in range(5)]
