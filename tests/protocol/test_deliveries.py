"""Deliveries in Redis: lanes, leases, tries, dead letters and replays."""

import pytest
from helpers import eventually

from stoker.core.audit import Action, Actor, change_of
from stoker.core.errors import Conflict, InvalidRequest, NotFound
from stoker.core.states import DeliveryState
from stoker.core.webhooks import Delivery, Next, Sealed, SigningSecret, Try, lane_of
from stoker.protocol.deliveries import Standing

pytestmark = pytest.mark.protocol

LEASE_MS = 60_000
KEPT_S = 3600
ALL = tuple(DeliveryState)
FAILED = Try(at_ms=5, status=500, error="it answered 500")
LATER = Next(DeliveryState.PENDING, 600)
NOW = Next(DeliveryState.PENDING, 0)
DONE = Next(DeliveryState.DELIVERED)
DEAD = Next(DeliveryState.DEAD)


def delivery(id_="d1", url="http://a.example/hook", owner_id="ann"):
    return Delivery(id=id_, owner_id=owner_id, url=url, event="task.completed", task_id="t1")


def in_lane_of(first):
    """Ids of deliveries to one receiver that wait in the same lane as `first`."""
    lane = lane_of(first.url, first.id)
    names = (f"n{number}" for number in range(1000))
    return (name for name in names if lane_of(first.url, name) == lane)


async def tried(store, each, done, then, kept_s=KEPT_S):
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    assert claim.delivery_id == each.id
    await end(store, claim, each, done, then, kept_s)


async def end(store, claim, each, done, then, kept_s=KEPT_S):
    """End a try of the round that goes on."""
    round_ms = (await store.deliveries.read(each.id)).round_ms
    assert not await store.deliveries.end_try(claim, each, round_ms, done, then, kept_s)


async def next_ms(store, ms):
    """Wait until a round that begins now is another one than the one of `ms`."""

    async def later():
        return await store.now_ms() > ms

    await eventually(later, "the next millisecond")


async def listed(store, *states, owner_id="ann"):
    found, following = await store.deliveries.page(owner_id, states or ALL)
    assert not following
    return [view.about.id for view in found]


async def test_a_delivery_is_opened_once_and_taken_once(store):
    assert await store.deliveries.open(delivery())
    assert not await store.deliveries.open(delivery())
    assert await listed(store) == ["d1"]
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    assert claim.delivery_id == "d1"
    assert await store.deliveries.claim(10, LEASE_MS) == []


async def test_who_has_no_room_takes_nothing(store):
    await store.deliveries.open(delivery())
    assert await store.deliveries.claim(0, LEASE_MS) == []
    assert len(await store.deliveries.claim(1, LEASE_MS)) == 1


async def test_a_lane_has_one_try_at_a_time_and_the_lanes_of_others_go_on(store):
    silent = delivery()
    names = in_lane_of(silent)
    behind = delivery(next(names))
    await store.deliveries.open(silent)
    await store.deliveries.open(behind)
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    assert claim.delivery_id == "d1"
    await store.deliveries.open(delivery("other", "http://b.example/"))
    assert [each.delivery_id for each in await store.deliveries.claim(10, LEASE_MS)] == ["other"]
    await store.deliveries.open(delivery(next(names)))
    assert await store.deliveries.claim(10, LEASE_MS) == []
    await end(store, claim, silent, FAILED, LATER)
    assert [each.delivery_id for each in await store.deliveries.claim(10, LEASE_MS)] == [behind.id]


async def test_a_delivery_that_failed_waits_for_its_time(store):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, LATER)
    assert await store.deliveries.claim(10, LEASE_MS) == []
    view = await store.deliveries.read("d1")
    assert (view.state, view.tries, view.total) == (DeliveryState.PENDING, 1, 1)
    assert view.due_ms >= view.created_ms + 600_000
    assert await store.deliveries.tries("d1") == [FAILED]


async def test_a_new_delivery_does_not_wait_behind_one_whose_time_comes_later(store):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, LATER)
    new = delivery(next(in_lane_of(each)))
    await store.deliveries.open(new)
    assert [claim.delivery_id for claim in await store.deliveries.claim(10, LEASE_MS)] == [new.id]


async def test_what_a_dead_process_was_trying_is_tried_again_after_its_lease(store):
    each = delivery()
    await store.deliveries.open(each)
    [lost] = await store.deliveries.claim(10, 0)
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    assert claim.delivery_id == lost.delivery_id
    await end(store, lost, each, FAILED, DEAD)
    assert (await store.deliveries.read("d1")).state is DeliveryState.PENDING
    await end(store, claim, each, Try(at_ms=6, status=200), DONE)
    assert (await store.deliveries.read("d1")).state is DeliveryState.DELIVERED


async def test_an_end_that_is_repeated_after_a_lost_reply_counts_once(store):
    each = delivery()
    await store.deliveries.open(each)
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    for _ in range(2):
        await end(store, claim, each, FAILED, NOW)
    assert (await store.deliveries.read("d1")).total == 1
    [again] = await store.deliveries.claim(10, LEASE_MS)
    assert again.lease >= claim.lease


@pytest.mark.parametrize("then", [DONE, DEAD])
async def test_an_ended_delivery_is_listed_by_its_state_and_leaves_its_lane(store, then):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, then)
    assert await listed(store, then.state) == ["d1"]
    assert await listed(store, *(set(ALL) - {then.state})) == []
    assert await store.deliveries.claim(10, LEASE_MS) == []
    assert (await store.deliveries.read("d1")).due_ms == 0
    assert await store._connection.command("EXISTS", store._keys.lanes, store._keys.busy_lanes) == 0


async def test_an_ended_delivery_is_forgotten_after_its_time(store):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, DEAD, kept_s=0.001)

    async def forgotten():
        try:
            await store.deliveries.read("d1")
        except NotFound:
            return True
        return False

    await eventually(forgotten, "the end of its time")
    assert await store.deliveries.tries("d1") == []
    assert await listed(store) == []


async def test_a_dead_letter_that_is_replayed_begins_anew_and_keeps_its_id_and_tries(store):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, DEAD)
    for _ in range(2):
        await store.deliveries.replay(each)
    view = await store.deliveries.read("d1")
    assert (view.state, view.tries, view.total) == (DeliveryState.PENDING, 0, 1)
    assert view.round_ms >= view.created_ms
    assert await store._connection.command("PTTL", store._keys.delivery("d1")) == -1
    assert await listed(store, DeliveryState.PENDING) == ["d1"]
    await tried(store, each, Try(at_ms=9, status=200), DONE)
    assert await store.deliveries.tries("d1") == [FAILED, Try(at_ms=9, status=200)]
    assert await listed(store, DeliveryState.DELIVERED) == ["d1"]


async def test_a_replay_of_a_pending_delivery_is_tried_now(store):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, LATER)
    await store.deliveries.replay(each)
    assert [claim.delivery_id for claim in await store.deliveries.claim(10, LEASE_MS)] == ["d1"]


async def test_a_replay_while_it_is_tried_makes_no_second_try_beside_the_first(store):
    each = delivery()
    await store.deliveries.open(each)
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    before = await store.deliveries.read("d1")
    await next_ms(store, before.round_ms)
    await store.deliveries.replay(each)
    assert await store.deliveries.claim(10, LEASE_MS) == []
    arrived = Try(at_ms=9, status=200)
    assert not await store.deliveries.end_try(claim, each, before.round_ms, arrived, DONE, KEPT_S)
    assert await listed(store, DeliveryState.DELIVERED) == ["d1"]
    assert await store.deliveries.claim(10, LEASE_MS) == []


@pytest.mark.parametrize("then", [LATER, DEAD])
async def test_a_replay_while_it_is_tried_holds_whatever_comes_of_that_try(store, then):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, NOW)
    before = await store.deliveries.read("d1")
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    await next_ms(store, before.round_ms)
    await store.deliveries.replay(each)
    replayed = await store.deliveries.read("d1")
    assert await store.deliveries.end_try(claim, each, before.round_ms, FAILED, then, KEPT_S)
    view = await store.deliveries.read("d1")
    assert (view.state, view.tries, view.total) == (DeliveryState.PENDING, 0, 2)
    assert (view.round_ms, view.due_ms) == (replayed.round_ms, replayed.due_ms)
    assert await store.deliveries.tries("d1") == [FAILED, FAILED]
    assert await listed(store, DeliveryState.PENDING) == ["d1"]
    assert await listed(store, DeliveryState.DEAD) == []
    await tried(store, each, FAILED, DEAD)
    assert await listed(store, DeliveryState.DEAD) == ["d1"]


async def test_a_replay_of_what_is_not_kept_is_refused(store):
    with pytest.raises(NotFound, match="Delivery"):
        await store.deliveries.replay(delivery())


async def test_an_id_that_leads_to_another_key_is_nobodys(store):
    await store.deliveries.open(delivery())
    await tried(store, delivery(), FAILED, LATER)
    with pytest.raises(NotFound):
        await store.deliveries.read("d1:tries")


async def test_a_delivery_that_is_gone_leaves_its_lane_to_the_others(store):
    each = delivery()
    await store.deliveries.open(each)
    await store._connection.command("DEL", store._keys.delivery("d1"))
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    await store.deliveries.drop(claim)
    behind = delivery(next(in_lane_of(each)))
    await store.deliveries.open(behind)
    assert [claim.delivery_id for claim in await store.deliveries.claim(10, LEASE_MS)] == [behind.id]


async def test_pages_go_through_all_states_once_the_latest_first(store):
    for number in range(7):
        await store.deliveries.open(delivery(f"d{number}", f"http://h{number}.example/"))
    for claim in await store.deliveries.claim(10, LEASE_MS):
        number = int(claim.delivery_id[1:])
        then = (DONE, DEAD, LATER)[number % 3]
        await end(store, claim, delivery(claim.delivery_id), FAILED, then)
    seen, cursor = [], ""
    while True:
        found, cursor = await store.deliveries.page("ann", ALL, cursor, limit=2)
        seen += [view.about.id for view in found]
        if not cursor:
            break
    assert sorted(seen) == [f"d{number}" for number in range(7)]
    views = [await store.deliveries.read(id_) for id_ in seen]
    assert [v.changed_ms for v in views] == sorted((v.changed_ms for v in views), reverse=True)
    assert await store.deliveries.count("ann", [DeliveryState.DEAD]) == 2
    assert await listed(store, owner_id="bob") == []
    with pytest.raises(InvalidRequest, match="cursor"):
        await store.deliveries.page("ann", ALL, "x")


async def test_tries_that_are_kept_are_bounded(store):
    each = delivery()
    await store.deliveries.open(each)
    for number in range(53):
        await tried(store, each, Try(at_ms=number), NOW)
    assert [one.at_ms for one in await store.deliveries.tries("d1")] == list(range(3, 53))
    assert (await store.deliveries.read("d1")).total == 53


@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.DEAD])
async def test_a_lane_that_rests_is_left_alone_until_its_time_and_no_longer(store, state):
    each = delivery()
    names = in_lane_of(each)
    await store.deliveries.open(each)
    await tried(store, each, FAILED, Next(state, 0, rest_s=60))
    await store.deliveries.open(delivery(next(names)))
    await store.deliveries.replay(each)
    assert await store.deliveries.claim(10, LEASE_MS) == []
    await store._connection.command("ZADD", store._keys.busy_lanes, 1, lane_of(each.url, each.id))
    assert len(await store.deliveries.claim(10, LEASE_MS)) == 1


async def test_a_lane_that_rested_with_nothing_in_it_is_forgotten(store):
    each = delivery()
    await store.deliveries.open(each)
    await tried(store, each, FAILED, Next(DeliveryState.DEAD, rest_s=0.001))

    async def forgotten():
        assert await store.deliveries.claim(10, LEASE_MS) == []
        return not await store._connection.command("EXISTS", store._keys.lanes, store._keys.busy_lanes)

    await eventually(forgotten, "the end of its rest")


async def test_the_lanes_tell_what_is_on_its_way_and_what_is_due(store):
    assert await store.deliveries.standing() == Standing(busy=0, due_ms=0)
    each = delivery()
    await store.deliveries.open(each)
    opened = (await store.deliveries.read("d1")).due_ms
    assert await store.deliveries.standing() == Standing(busy=0, due_ms=opened)
    [claim] = await store.deliveries.claim(10, LEASE_MS)
    assert await store.deliveries.standing() == Standing(busy=1, due_ms=0)
    await end(store, claim, each, FAILED, LATER)
    due = (await store.deliveries.read("d1")).due_ms
    assert await store.deliveries.standing() == Standing(busy=0, due_ms=due)


async def test_a_signing_secret_is_written_over_what_was_read_and_with_its_change(store):
    first = SigningSecret(
        owner_id="ann",
        revision="r1",
        current=Sealed(id="s1", sealed="x", sealed_by="k", created_ms=1),
    )
    made = change_of(Action.SIGNING_SECRET_SET, "s1", Actor(user_id="ann", key_id="k1"))
    for _ in range(2):
        await store.signing_secrets.put(first, None, made)
    assert await store.signing_secrets.get("ann") == first
    assert await store.signing_secrets.get("bob") is None
    with pytest.raises(Conflict, match="changed by somebody else"):
        await store.signing_secrets.put(
            SigningSecret(owner_id="ann", revision="r2", current=first.current), None
        )
    assert await store.signing_secrets.list() == [first]
    [recorded], _ = await store.audit.page("", 10)
    assert (recorded.change.action, recorded.change.target) == ("webhook.secret_set", "s1")
