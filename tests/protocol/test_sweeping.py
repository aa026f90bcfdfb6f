"""Indexes are rid of what expired, wherever it stands and whoever its owner is."""

import pytest
from protocol_scene import OWNER, request, spec

from stoker.core.messages import TaskId
from stoker.protocol.documents import Change
from stoker.protocol.sweeping import sweep


async def test_what_is_gone_is_taken_also_from_behind_what_lives_on(store):
    connection, index = store._connection, store._keys.owner_tasks("u1")
    names = [f"t{number}" for number in range(9)]
    for number, name in enumerate(names):
        await connection.command("ZADD", index, number, name)
    alive = [*names[:4], names[7]]
    for name in alive:
        await connection.command("SET", store._keys.task(name), "x")
    assert await sweep(connection, index, store._keys.task, batch=2) == 4
    assert [raw.decode() for raw in await connection.command("ZRANGE", index, 0, -1)] == alive
    assert await sweep(connection, index, store._keys.task, batch=2) == 0


async def submit(store):
    await store.tasks.submit(request(), spec(), OWNER)


async def begin(store):
    await store.carried.begin(request(), spec(), OWNER, "flowrun")


async def put(store, kind):
    await store.documents.put(kind, "d1", OWNER.user_id, 0, Change(body=b"{}"))


async def end(store):
    await store._connection.command("DEL", store._keys.task(TaskId("t1")))
    await store.tasks.sweep(OWNER.user_id)
    for kind in ("flowrun", "chat"):
        await store.documents.delete(kind, "d1", OWNER.user_id)


@pytest.mark.parametrize(
    "make",
    [submit, begin, lambda store: put(store, "flowrun"), lambda store: put(store, "chat")],
    ids=["task", "carried", "flowrun", "chat"],
)
async def test_an_owner_is_in_mind_until_nothing_of_his_can_expire(store, make):
    assert await store.owners.list() == set()
    await make(store)
    assert await store.owners.list() == {OWNER.user_id}
    await store.owners.note(OWNER.user_id)
    assert await store.owners.list() == {OWNER.user_id}
    await end(store)
    await store.owners.note(OWNER.user_id)
    assert await store.owners.list() == set()


async def test_an_owner_of_whom_an_earlier_release_knew_by_his_keys_is_noted(store):
    await submit(store)
    await store._connection.command("DEL", store._keys.owners)
    await store.owners.note(OWNER.user_id)
    assert await store.owners.list() == {OWNER.user_id}
