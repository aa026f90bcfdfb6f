"""Chunks of logs and live tails through the scripts, on a real server."""

import pytest
from protocol_scene import DONE

from stoker.core.errors import NotFound, StaleAttempt, Unauthorized
from stoker.core.logs import Chunk
from stoker.core.messages import LogLine, LogType
from stoker.core.states import TaskState as S
from stoker.protocol.task_logs import LOG_TAIL_BYTES, Tail

pytestmark = pytest.mark.protocol


def lines(*numbers, attempt=1, size=1):
    return [
        LogLine(number=n, at_ms=n, type=LogType.RUN, text=f"{n}".ljust(size), attempt=attempt)
        for n in numbers
    ]


async def test_chunks_come_back_in_order_and_a_repeat_changes_nothing(scene):
    order, logs = await scene.running(), scene.store.logs
    chunks = [Chunk(first=1, last=9, size=5), Chunk(first=10, last=30, dropped=4, size=7)]
    for chunk in (chunks[1], chunks[0], chunks[1]):
        await logs.keep("t1", 1, order.token, chunk)
    assert (await logs.read("t1")).chunks == {1: tuple(chunks)}


async def test_an_attempt_may_tell_its_log_after_its_end(scene):
    order, logs = await scene.running(), scene.store.logs
    await scene.store.engines.finish(order, "box", DONE)
    await logs.check("t1", 1, order.token)
    await logs.keep("t1", 1, order.token, Chunk(first=1, last=1))


async def test_an_attempt_that_was_taken_back_may_tell_its_own_log_and_no_other(scene):
    first, logs = await scene.running(), scene.store.logs
    await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 1, "lost")
    await scene.assign()
    await logs.keep("t1", 1, first.token, Chunk(first=1, last=3))
    with pytest.raises(StaleAttempt):
        await logs.keep("t1", 2, first.token, Chunk(first=1, last=3))
    with pytest.raises(Unauthorized):
        await logs.check("t1", 2, first.token)
    assert list((await logs.read("t1")).chunks) == [1]


async def test_a_task_that_is_gone_takes_no_chunk_and_its_old_ones_are_found(scene):
    order, logs = await scene.running(), scene.store.logs
    await logs.keep("t1", 1, order.token, Chunk(first=1, last=3))
    await scene.store.engines.finish(order, "box", DONE)
    assert [task_id async for task_id in logs.orphans()] == []
    await scene.store.tasks.delete("t1")
    with pytest.raises(NotFound):
        await logs.keep("t1", 1, order.token, Chunk(first=4, last=5))
    with pytest.raises(NotFound):
        await logs.check("t1", 1, order.token)
    assert [task_id async for task_id in logs.orphans()] == ["t1"]
    assert await logs.chunks("t1") == [(1, 1)]
    await logs.forget("t1")
    assert ([task_id async for task_id in logs.orphans()], await logs.chunks("t1")) == ([], [])


async def test_a_tail_is_read_on_from_where_it_was(scene):
    order, tail = await scene.running(), Tail(keep_new=True)
    await scene.store.engines.append("t1", 1, order.token, lines=lines(1, 2))
    await scene.store.logs.read_tails([("t1", tail)])
    await scene.store.engines.append("t1", 1, order.token, lines=lines(3))
    await scene.store.logs.read_tails([("t1", tail)])
    await scene.store.logs.read_tails([("t1", tail)])
    assert tail.lines == tuple(lines(1, 2, 3))
    assert tail.take_new() == lines(1, 2, 3)
    assert tail.take_new() == []


async def test_a_tail_that_is_read_on_is_bounded(scene):
    order, tail = await scene.running(), Tail()
    for number in range(1, 100):
        await scene.store.engines.append("t1", 1, order.token, lines=lines(number, size=8000))
        await scene.store.logs.read_tails([("t1", tail)])
    assert tail.lines[-1].number == 99
    assert sum(len(line.text) for line in tail.lines) <= LOG_TAIL_BYTES


async def test_what_the_tail_was_told_last_is_known_when_its_lines_are_gone(scene):
    order = await scene.running()
    await scene.store.engines.append("t1", 1, order.token, lines=lines(7))
    await scene.store.engines.finish(order, "box", DONE)
    state = await scene.store.logs.read("t1")
    assert (state.attempt, state.last, state.end(1), state.attempts) == (1, 7, 7, [1])
    assert (await scene.store.tasks.read("t1")).state is S.COMPLETED
