"""Indexes are rid of what expired, wherever it stands."""

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
