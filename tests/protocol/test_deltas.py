"""Increments of an output through the scripts, on a real server."""

import functools

import msgspec
import pytest
from protocol_scene import DONE

from stoker.core.errors import StaleAttempt

pytestmark = pytest.mark.protocol


async def write_deltas(scene, order, first, *deltas, last=0, partial=b""):
    await scene.store.engines.deltas(
        order.task.id,
        order.attempt,
        order.token,
        first=first,
        last=last or first + len(deltas) - 1,
        deltas=deltas,
        partial=partial,
    )


async def read_deltas(scene, after="0"):
    found = await scene.store.tasks.deltas("t1", after, 10)
    return [(batch.attempt, batch.first, [bytes(delta) for delta in batch.deltas]) for batch in found]


async def test_increments_of_an_output_arrive_once_and_in_order(scene):
    order = await scene.running()
    await write_deltas(scene, order, 1, b'{"a":1}', b'{"a":2}', partial=b'{"a":3}')
    await write_deltas(scene, order, 1, b'{"a":1}', b'{"a":2}', partial=b'{"a":3}')
    await write_deltas(scene, order, 3, b'{"a":4}')
    assert await read_deltas(scene) == [(1, 1, [b'{"a":1}', b'{"a":2}']), (1, 3, [b'{"a":4}'])]
    view = await scene.store.tasks.read("t1")
    assert (bytes(view.output), view.delta_last) == (b'{"a":3}', 3)
    first = (await scene.store.tasks.deltas("t1", "0", 1))[0]
    assert await read_deltas(scene, first.id) == [(1, 3, [b'{"a":4}'])]


async def test_lost_increments_are_counted_and_kept_ones_are_bounded(scene, monkeypatch):
    monkeypatch.setattr("stoker.protocol.engines.DELTA_BYTES", 100)
    order = await scene.running()
    for number in range(1, 41):
        await write_deltas(scene, order, number, b'{"text":"word"}')
    await write_deltas(scene, order, 41, last=50)
    found = await read_deltas(scene)
    assert (await scene.store.tasks.read("t1")).delta_last == 50
    assert found[-1][1] == 40
    assert 1 < len(found) <= 12


async def test_another_attempts_increments_start_anew(scene):
    order = await scene.running()
    await write_deltas(scene, order, 1, b'{"a":1}', b'{"a":2}')
    await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 1, "gone")
    assert (await scene.store.tasks.read("t1")).delta_last == 2
    again = await scene.running()
    assert (await scene.store.tasks.read("t1")).delta_last == 0
    with pytest.raises(StaleAttempt):
        await write_deltas(scene, order, 3, b'{"a":3}')
    await write_deltas(scene, again, 1, b'{"b":1}')
    assert await read_deltas(scene) == [(2, 1, [b'{"b":1}'])]


async def test_what_is_said_about_an_output_is_kept_beside_it(scene):
    order = await scene.running()
    await write_deltas(scene, order, 1, b'{"a":1}')
    meta = msgspec.Raw(b'{"outputs":[]}')
    await scene.store.engines.finish(order, "box", msgspec.structs.replace(DONE, output_meta=meta))
    view = await scene.store.tasks.read("t1")
    assert (bytes(view.output), bytes(view.output_meta)) == (b'{"ok":1}', b'{"outputs":[]}')
    await scene.store.tasks.delete("t1")
    assert await read_deltas(scene) == []


async def test_a_task_that_yields_for_hours_keeps_one_event_of_it(scene):
    order = await scene.running()
    append = functools.partial(scene.store.engines.append, order.task.id, order.attempt, order.token)
    cursors = set()
    for number in range(50):
        await append(partial=b"%d" % number)
        cursors.add((await scene.store.tasks.read("t1")).cursor)
    assert len(cursors) == 50, "each is news for who watches"
    view = await scene.store.tasks.read("t1")
    assert bytes(view.output) == b"49"
    events = await scene.store.tasks._connection.command(
        "XRANGE", scene.store._keys.task_events("t1"), "-", "+"
    )
    kinds = [dict(zip(fields[::2], fields[1::2], strict=True))[b"k"] for _, fields in events]
    assert kinds.count(b"output") == 1
