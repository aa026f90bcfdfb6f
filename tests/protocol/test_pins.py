"""What is wanted to be loaded, as Redis keeps it, and the orders that follow."""

import msgspec
import pytest
from protocol.faulty import lose_replies
from protocol.loads import order
from protocol_scene import OWNER, Scene, request

from stoker.core.audit import Action, Actor, change_of
from stoker.core.errors import NotFound, ProtocolRefusal, Unauthorized
from stoker.core.messages import DrainOrder, LoadOrder, Needs, PinOrder
from stoker.core.pins import MAX_PINS, Pin, PinState, PinStatus
from stoker.protocol import WakeKind


def pin(pin_id="p1", **fields):
    return Pin(id=pin_id, request=request(""), needs=Needs(), owner=OWNER, **fields)


def change(action=Action.APP_PINNED):
    return change_of(action, "infsh/echo", Actor(user_id="u1"))


async def kinds(store):
    return [event.kind for event in (await store.scheduling.wake("0", 1))[1]]


async def test_a_pin_its_record_and_the_wake_are_one_step(store):
    await store.pins.put(pin(), change())
    await store.pins.put(pin(), change())  # the reply was lost
    assert await store.pins.list() == [pin()]
    assert await kinds(store) == [WakeKind.PINS]
    assert await store.audit.count() == 1
    await store.pins.put(pin(copies=2), change())
    assert await store.pins.get("p1") == pin(copies=2)
    assert await kinds(store) == [WakeKind.PINS] * 2
    await store.pins.remove("p1", change(Action.APP_UNPINNED))
    assert await store.pins.list() == []
    assert await kinds(store) == [WakeKind.PINS] * 3
    found, _ = await store.audit.page("", 10)
    assert [each.change.action for each in found] == ["app.unpinned", "app.pinned", "app.pinned"]
    for missing in (store.pins.get("p1"), store.pins.remove("p1")):
        with pytest.raises(NotFound, match="stoker apps pins"):
            await missing


async def test_a_pin_whose_removal_lost_its_reply_is_removed_once(store, monkeypatch):
    await store.pins.put(pin())
    lose_replies(store, monkeypatch)
    await store.pins.remove("p1", change(Action.APP_UNPINNED))
    assert await store.audit.count() == 1
    with pytest.raises(NotFound):
        await store.pins.remove("p1")


async def test_what_was_found_of_a_pin_is_not_told_of_another(store):
    status = PinStatus(state=PinState.LOADED, workers=("box-cpu-0",))
    await store.pins.put(pin())
    await store.pins.set_states({"p1": status, "p2": status})
    await store.pins.put(pin(copies=3))
    assert await store.pins.states() == {"p2": status}
    await store.pins.set_states({}, ["p2"])
    assert await store.pins.states() == {}


async def test_there_is_a_most_of_pins(store):
    full = [pin(f"p{number}") for number in range(MAX_PINS)]
    raw = [part for each in full for part in (each.id, msgspec.json.encode(each))]
    await store._connection.command("HSET", store._keys.pins, *raw)
    with pytest.raises(ProtocolRefusal, match="PIN_LIMIT"):
        await store.pins.put(pin("one-more"))
    await store.pins.put(pin("p0", copies=2))  # one that is there may change


async def test_how_long_apps_stay_wakes_the_scheduler_when_it_changes(store):
    await store.pins.set_keep_alive("infsh/echo", 60)
    await store.pins.set_keep_alive("infsh/echo", 60)
    await store.pins.set_keep_alive("infsh/other", None)
    assert await store.pins.keep_alives() == {"infsh/echo": 60.0}
    assert await kinds(store) == [WakeKind.PINS]
    await store.pins.set_keep_alive("infsh/echo", None)
    assert await store.pins.keep_alives() == {}
    assert await kinds(store) == [WakeKind.PINS] * 2


async def test_that_an_app_stays_no_longer_is_told_also_when_the_reply_was_lost(store, monkeypatch):
    await store.pins.set_keep_alive("infsh/echo", 60)
    lose_replies(store, monkeypatch)
    await store.pins.set_keep_alive("infsh/echo", None)
    assert await store.pins.keep_alives() == {}
    assert len(await kinds(store)) > 1


async def test_a_wish_to_unload_names_one_instance(store):
    await store.pins.ask_unload("box", "box-cpu-0", "s")
    [event] = (await store.scheduling.wake("0", 1))[1]
    assert (event.kind, event.worker_id, event.setup_key) == (WakeKind.UNLOAD, "box-cpu-0", "s")


async def test_an_order_to_load_reaches_its_engine_once_with_a_secret_of_its_own(store):
    scene = Scene(store)
    await scene.set_up()
    made, grant = order("load~1", "box")
    await store.pins.load(scene.epoch, made, grant)
    await store.pins.load(scene.epoch, made, grant)  # the reply was lost
    await store.pins.send("box", PinOrder(worker_id="box-cpu-0", setup_keys=("s",)))
    _, found = await store.engines.inbox("box", "0", 1)
    load, pins = [message for _, message in found]
    assert isinstance(load, LoadOrder)
    assert (load.task, load.worker_id) == (made.task, "box-cpu-0")
    assert pins == PinOrder(worker_id="box-cpu-0", setup_keys=("s",))
    assert await store.pins.check("load~1", load.token) == grant
    for load_id, token in (("load~1", "another"), ("load~2", load.token), ("load~1", "")):
        with pytest.raises(Unauthorized):
            await store.pins.check(load_id, token)
    assert (await store.engines.inbox("box", "0", 1))[1] == []  # it is answered by reports


@pytest.mark.parametrize("why", ["another leads", "it drains", "its lease is over", "nobody"])
async def test_an_order_to_load_is_refused(store, why):
    scene = Scene(store)
    await scene.set_up(lease_s=-1 if why == "its lease is over" else 30)
    made, grant = order("load~1", "other" if why == "nobody" else "box")
    if why == "it drains":
        await store.scheduling.drain("box", DrainOrder(reason="r"))
    epoch = scene.epoch - 1 if why == "another leads" else scene.epoch
    with pytest.raises(ProtocolRefusal) as refused:
        await store.pins.load(epoch, made, grant)
    assert refused.value.refusal == ("NOT_LEADER" if why == "another leads" else "ENGINE_GONE")
    with pytest.raises(Unauthorized):
        await store.pins.check("load~1", "")
