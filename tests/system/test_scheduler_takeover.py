"""What a new leader does first, on a real server."""

import pytest
from helpers import eventually
from scheduling import OWNER, FakeEngine, engine_info, request, scheduling, spec, submit

from stoker.core.errors import StoreUnavailable
from stoker.core.messages import Needs
from stoker.core.pins import Pin
from stoker.core.states import TERMINAL, TaskState
from stoker_scheduler.deadlines import Limits


async def ended(store, task_id):
    async def check():
        view = await store.tasks.read(task_id)
        return view if view.state in TERMINAL else None

    return await eventually(check, "the end of the task")


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
            view = await ended(store, task_id)
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


async def test_what_somebody_wanted_to_go_while_nobody_led_goes(store):
    async with FakeEngine(store, engine_info()) as engine:
        async with scheduling(store):
            task_id = await submit(store, spec("a"))
            await ended(store, task_id)
        await store.pins.ask_unload("box", "box-cpu-0", "a")
        async with scheduling(store):
            await eventually(lambda: engine.evicted == ["a"], "the unloading")


async def test_what_shall_go_goes_although_the_server_was_away_when_it_was_told(store, monkeypatch):
    send, failures = store.scheduling.send, [StoreUnavailable()]

    async def unless_away(*arguments):
        if failures:
            raise failures.pop()
        await send(*arguments)

    monkeypatch.setattr(store.scheduling, "send", unless_away)
    async with FakeEngine(store, engine_info()) as engine, scheduling(store) as loop:
        await ended(store, await submit(store, spec("a")))
        await store.pins.ask_unload("box", "box-cpu-0", "a")
        await eventually(lambda: engine.evicted == ["a"], "the unloading")
        assert (loop.counters.rebuilt, failures) == (2, [])


async def test_reasons_of_what_waits_no_more_are_dropped_by_the_next_leader(store):
    await store.scheduling.set_reasons({"of-a-session-long-over": "all workers are busy"})
    async with scheduling(store) as loop:
        task_id = await submit(store, spec("a"))

        async def reasons():
            found = await store.scheduling.reasons()
            return found if "of-a-session-long-over" not in found and len(found) == 1 else None

        await eventually(reasons, "the reason of the task alone")
        assert "no worker is registered" in (await store.tasks.read(task_id)).queue_reason
        assert loop.counters.rebuilt == 1


async def test_an_engine_that_left_for_good_is_forgotten(store):
    async with FakeEngine(store, engine_info("old")) as old:
        await store.engines.deregister("old", old._session)
    async with FakeEngine(store, engine_info("box")):
        async with scheduling(store, limits=Limits(engine_forget_s=-60)) as loop:
            await eventually(
                lambda: list(loop.mirror.fleet.engines) == ["box"], "the other one to be forgotten"
            )
        assert [view.info.id for view in await store.engines.list()] == ["box"]
