"""What a new leader does first, on a real server."""

import pytest
from helpers import eventually
from scheduling import OWNER, FakeEngine, engine_info, request, scheduling, spec, submit

from stoker.core.messages import Needs
from stoker.core.pins import Pin
from stoker.core.states import TERMINAL, TaskState


@pytest.fixture
async def failed_over(store):
    """A server that does not know whether it has all that the one before it was told."""
    await store._connection.command("SET", store._keys.history, "another-server")
    return store


async def test_after_a_failover_no_attempt_is_spent_before_an_engine_has_registered(failed_over):
    store = failed_over
    info = engine_info()
    task_id = await submit(store, spec("a", max_attempts=1))
    async with FakeEngine(store, info, deaf=True), scheduling(store) as loop:
        await eventually(lambda: loop.counters.refused, "an assignment that is refused")
        assert (await store.tasks.read(task_id)).attempt == 0
        async with FakeEngine(store, info):  # registers, which empties its inbox
            await eventually(lambda: not len(loop.mirror.queues), "the assignment")

            async def ended():
                view = await store.tasks.read(task_id)
                return view if view.state in TERMINAL else None

            view = await eventually(ended, "the end of the task")
    assert (view.state, view.attempt) == (TaskState.COMPLETED, 1)


async def test_after_a_failover_no_load_is_ordered_before_an_engine_has_registered(failed_over):
    store = failed_over
    info = engine_info()
    await store.pins.put(Pin(id="pin-a", request=request(spec("a")), needs=Needs(), owner=OWNER))
    async with FakeEngine(store, info) as engine, scheduling(store) as loop:
        rounds = loop.counters.rounds
        await eventually(lambda: loop.counters.rounds > rounds + 1, "a round of the clock")
        assert engine.ordered == []
        async with FakeEngine(store, info) as again:
            await eventually(lambda: again.ordered == [("box-cpu-0", "a")], "the load")
