"""Pins under a real scheduler's loop and a real server, with engines that speak the real protocol."""

from helpers import eventually
from scheduling import OWNER, FakeEngine, engine_info, request, scheduling, spec, submit

from stoker.core.messages import DrainOrder, Needs
from stoker.core.pins import Pin, PinState
from stoker.core.states import TaskState
from stoker_scheduler import pins as deciding


def pin(key="a", **fields):
    return Pin(id=f"pin-{key}", request=request(spec(key)), needs=Needs(), owner=OWNER, **fields)


async def state(store, pin_id, wanted, part=""):
    """What was found of a pin, as soon as it is in a state."""

    async def check():
        found = (await store.pins.states()).get(pin_id)
        return found if found is not None and found.state is wanted and part in found.reason else None

    return await eventually(check, f"{pin_id} to be {wanted}")


async def done(store, task_id):
    async def check():
        return (await store.tasks.read(task_id)).state is TaskState.COMPLETED

    await eventually(check, f"the end of {task_id}")


async def test_a_pin_is_loaded_held_and_let_go(store):
    async with FakeEngine(store, engine_info(workers=2)) as engine, scheduling(store) as loop:
        await store.pins.put(pin())
        found = await state(store, "pin-a", PinState.LOADED)
        assert (engine.ordered, found.workers) == ([("box-cpu-0", "a")], ("box-cpu-0",))
        await eventually(lambda: engine.pins == {"box-cpu-0": ("a",)}, "the engine to know what is pinned")
        await done(store, await submit(store, spec("a")))
        assert engine.loads == []  # it was warm
        await store.pins.ask_unload("box", "box-cpu-0", "a")
        await done(store, await submit(store, spec("a")))
        assert engine.evicted == []  # pinned
        await store.pins.remove("pin-a")
        await store.pins.ask_unload("box", "box-cpu-0", "a")
        await eventually(lambda: engine.evicted == ["a"], "the instance to be unloaded")
        assert engine.pins == {}
        await eventually(lambda: not loop.mirror.fleet.workers["box-cpu-0"].residents, "the leader to know")
        assert await store.pins.states() == {}


async def test_a_lost_instance_a_lost_engine_and_a_lost_order_are_made_good(store, monkeypatch):
    monkeypatch.setattr(deciding, "RESEND_MS", 100)
    info = engine_info()
    async with scheduling(store):
        await store.pins.put(pin())
        await state(store, "pin-a", PinState.WAITING, "no worker is registered")
        async with FakeEngine(store, info, deaf=True) as deaf:
            await state(store, "pin-a", PinState.LOADING)
            assert deaf.ordered == []  # its order is lost with it
        async with FakeEngine(store, info) as engine:
            await state(store, "pin-a", PinState.LOADED)
            await eventually(lambda: engine.pins == {"box-cpu-0": ("a",)}, "the engine to be told again")
            await engine.lose("box-cpu-0", "a")
            await eventually(lambda: len(engine.ordered) == 2, "a second load")
            await state(store, "pin-a", PinState.LOADED)
        async with FakeEngine(store, info) as restarted:
            await eventually(lambda: restarted.ordered == [("box-cpu-0", "a")], "a load after the restart")
            await eventually(lambda: restarted.pins == {"box-cpu-0": ("a",)}, "the new process to be told")


async def test_a_pin_moves_from_a_machine_that_drains_or_leaves_to_another(store):
    async with FakeEngine(store, engine_info("one")) as one, scheduling(store):
        await store.pins.put(pin())
        await state(store, "pin-a", PinState.LOADED)
        async with FakeEngine(store, engine_info("two")) as two:
            await store.scheduling.drain("one", DrainOrder(reason="new driver"))
            await eventually(lambda: two.ordered == [("two-cpu-0", "a")], "a load on the other machine")
            await eventually(lambda: two.pins == {"two-cpu-0": ("a",)}, "the other machine to hold it")
            assert one.ordered == [("one-cpu-0", "a")]
            await store.engines.deregister("two", two._session)
        await state(store, "pin-a", PinState.WAITING)


async def test_a_new_leader_goes_on_with_what_there_is(store):
    async with FakeEngine(store, engine_info(workers=2)) as engine:
        async with scheduling(store):
            await store.pins.put(pin())
            await state(store, "pin-a", PinState.LOADED)
        async with scheduling(store) as second:
            await eventually(lambda: second.mirror.pins.pinned, "the second one to have looked")
            resident = second.mirror.fleet.workers["box-cpu-0"].residents["a"]
            assert resident.pinned
            assert second.mirror.pins.pins.keys() == {"pin-a"}
        assert engine.ordered == [("box-cpu-0", "a")]


async def test_a_load_that_fails_is_told_and_the_worker_is_free_for_others(store):
    async with FakeEngine(store, engine_info(), load_fails="No such model.") as engine, scheduling(store):
        await store.pins.put(pin())
        found = await state(store, "pin-a", PinState.WAITING, "No such model.")
        assert found.reason.startswith("loading on box-cpu-0 failed: No such model. It is tried again in ~")
        assert engine.ordered == [("box-cpu-0", "a")]
        await done(store, await submit(store, spec("b")))


async def test_a_load_wanted_once_is_over_when_it_is_there(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        now_ms = await store.now_ms()
        await store.pins.put(pin(once=True, created_ms=now_ms, until_ms=now_ms + 900_000))
        await state(store, "pin-a", PinState.LOADED)
        assert engine.pins == {}
        await engine.lose("box-cpu-0", "a")
        await done(store, await submit(store, spec("b")))
        assert engine.ordered == [("box-cpu-0", "a")]


async def test_how_long_an_app_stays_is_heard_of_at_once(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        await done(store, await submit(store, spec("a")))
        await store.pins.set_keep_alive("test/a", 0)
        await eventually(lambda: engine.evicted == ["a"], "the instance to go")
        await done(store, await submit(store, spec("b")))
        await done(store, await submit(store, spec("a")))
        await eventually(lambda: engine.evicted == ["a", "a"], "the instance to go with its last task")
