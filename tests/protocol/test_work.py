"""What runs and what waits, as whoever looks after the machines sees it."""

import pytest
from batches import Batches
from protocol_scene import DONE

from stoker.core.states import TaskState as S
from stoker.protocol.task_hash import NOT_LOOKED_AT


async def test_what_waits_is_told_in_order_with_its_reason(scene, store):
    await scene.submit("t2", priority=5)
    waiting = await store.work.waiting(10)
    assert (waiting.pending, waiting.delayed) == (2, 0)
    assert [(item.task_id, item.state) for item in waiting.items] == [("t2", S.QUEUED), ("t1", S.QUEUED)]
    assert [item.app for item in waiting.items] == ["infsh/echo"] * 2
    assert waiting.items[0].since_ms >= waiting.items[0].created_ms > 0


async def test_the_group_decides_the_reason(scene, store):
    group = (await store._connection.command("HGET", store._keys.task("t1"), "group")).decode()
    [item] = (await store.work.waiting(10)).items
    assert item.reason == NOT_LOOKED_AT
    await store.scheduling.set_reasons({group: "every GPU is busy"})
    [item] = (await store.work.waiting(10)).items
    assert item.reason == "every GPU is busy"


async def test_many_tasks_that_wait_are_read_in_as_few_round_trips_as_one(scene, store, monkeypatch):
    names = ["t1", *[await scene.submit(f"q{number}", setup_key=f"s{number}") for number in range(40)]]
    [group] = await store._connection.command("HMGET", store._keys.task("q7"), "group")
    await store.scheduling.set_reasons({group.decode(): "every GPU is busy"})
    trips = Batches(store, monkeypatch)
    await store.tasks.read_many(names[:1])
    of_one = len(trips)
    reasons = {view.request.id: view.queue_reason for view in await store.tasks.read_many(names)}
    assert len(trips) == 2 * of_one
    assert reasons == dict.fromkeys(names, NOT_LOOKED_AT) | {"q7": "every GPU is busy"}


async def test_the_head_is_bounded_and_the_count_is_not(scene, store):
    for number in range(2, 6):
        await scene.submit(f"t{number}")
    waiting = await store.work.waiting(2)
    assert ([item.task_id for item in waiting.items], waiting.pending) == (["t1", "t2"], 5)


async def test_what_a_worker_holds_is_told_with_its_state(scene, store):
    await scene.running()
    [item] = await store.work.read(["t1", "nothing"])
    assert (item.task_id, item.state, item.worker_id, item.attempt) == ("t1", S.RUNNING, "box-cpu-0", 1)
    assert (item.reason, (await store.work.waiting(5)).items) == ("", ())


async def test_what_was_given_to_a_worker_meanwhile_does_not_wait(scene, store):
    await scene.running()
    await store._connection.command("ZADD", store._keys.pending, 0, "t1")  # as it was when the queue was read
    assert (await store.work.waiting(5)).items == ()


async def test_what_has_ended_is_left_out(scene, store):
    order = await scene.running()
    await store.engines.finish(order, "box", DONE)
    assert await store.work.read(["t1"]) == ()


@pytest.mark.parametrize(
    ("field", "value"), [("history", "0,1,99999999999999999999;"), ("state", "x"), ("history", "")]
)
async def test_what_a_worker_has_spoilt_is_left_out(scene, store, field, value):
    await scene.running()
    await store._connection.command("HSET", store._keys.task("t1"), field, value)
    assert await store.work.read(["t1"]) == ()


async def test_what_waits_for_a_time_follows_and_says_until_when(scene, store):
    keys, command = store._keys, store._connection.command
    await command("ZREM", keys.pending, "t1")
    await command("ZADD", keys.delayed, 1000, "t1")
    await command("HSET", keys.task("t1"), "due", 1000)
    await scene.submit("t2")
    waiting = await store.work.waiting(5)
    assert [(item.task_id, item.due_ms) for item in waiting.items] == [("t2", 0), ("t1", 1000)]
    assert (waiting.pending, waiting.delayed) == (1, 1)
    assert "1970-01-01T00:00:01Z" in waiting.items[1].reason


async def test_what_an_app_said_is_not_told_to_everybody(scene, store):
    keys, command = store._keys, store._connection.command
    await command("ZREM", keys.pending, "t1")
    await command("ZADD", keys.delayed, 1000, "t1")
    await command("HSET", keys.task("t1"), "due", 1000, "due_why", "the app said: a name", "attempt", 1)
    [item] = (await store.work.waiting(5)).items
    assert item.reason == "it is tried again at 1970-01-01T00:00:01Z: attempt 1 failed"
