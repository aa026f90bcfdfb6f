"""The record of changes: bounded, in order, and written with the change."""

import asyncio

import pytest
from msgspec import json, structs

from stoker.core import audit
from stoker.core.audit import Action, Actor, change_of
from stoker.core.enrolments import digest
from stoker.core.errors import Conflict, InvalidRequest, NotFound, Unauthorized
from stoker.core.messages import ApiKey, Secret

ME = Actor(user_id="u", key_id="k", address="192.0.2.1")
SECRET = Secret(id="1", owner_id="u", key="A", version=1, revision="r1")


def did(action, target="x"):
    return change_of(action, target, ME)


async def actions(store):
    found, _ = await store.audit.page("", 100)
    return [(each.change.action, each.change.target) for each in reversed(found)]


async def test_pages_lead_from_the_latest_change_to_the_first(store):
    for number in range(5):
        await store.audit.add(did(Action.APP_CHANGED, f"app {number}"))
    seen, cursor = [], ""
    while True:
        found, cursor = await store.audit.page(cursor, 2)
        seen += [each.change.target for each in found]
        if not cursor:
            break
    assert seen == [f"app {number}" for number in (4, 3, 2, 1, 0)]
    assert await store.audit.count() == 5


@pytest.mark.parametrize("cursor", ["x", "-", "+", "1", "(1-1", "1-1 COUNT"])
async def test_a_cursor_of_somebody_else_is_refused(store, cursor):
    with pytest.raises(InvalidRequest, match="next_cursor"):
        await store.audit.page(cursor, 1)


async def test_the_record_is_bounded(store, monkeypatch):
    monkeypatch.setattr("stoker.protocol.audit.KEPT", 100)
    for _ in range(400):
        store.audit.start(did(Action.APP_CHANGED))
    await store.audit.add(did(Action.APP_DELETED))
    assert await store.audit.count() < 300
    assert (await actions(store))[-1] == (Action.APP_DELETED, "x")


async def test_a_secret_and_its_record_are_one_step(store):
    await store.secrets.put(SECRET, None, did(Action.SECRET_SET, "A"))
    await store.secrets.put(SECRET, None, did(Action.SECRET_SET, "A"))  # a repeat after a lost reply
    with pytest.raises(Conflict):
        await store.secrets.put(structs.replace(SECRET, revision="r2"), None, did(Action.SECRET_SET, "A"))
    assert await actions(store) == [(Action.SECRET_SET, "A")]


async def test_a_machine_and_its_record_are_one_step(store):
    enrolments = store.enrolments
    await enrolments.invite("box", digest("token"), 60, "u", did(Action.WORKER_INVITED, "box"))
    with pytest.raises(Unauthorized):
        await enrolments.join("box", digest("wrong"), "p", "k", did(Action.WORKER_JOINED, "box"))
    for _ in range(2):
        await enrolments.join("box", digest("token"), "p", "k", did(Action.WORKER_JOINED, "box"))
    with pytest.raises(Conflict):
        await enrolments.invite("box", digest("token"), 60, "u", did(Action.WORKER_INVITED, "box"))
    for _ in range(2):
        await enrolments.revoke("box", "u", did(Action.WORKER_REVOKED, "box"))
    with pytest.raises(NotFound):
        await enrolments.revoke("ghost", "u", did(Action.WORKER_REVOKED, "ghost"))
    assert await actions(store) == [
        (Action.WORKER_INVITED, "box"),
        (Action.WORKER_JOINED, "box"),
        (Action.WORKER_REVOKED, "box"),
    ]


async def test_a_key_is_recorded_from_its_making_to_its_end(store):
    key = ApiKey(id="k1", name="n", user_id="u", sha256="0", prefix="inf_", expires_ms=1)
    await store.keys.put(key, did(Action.KEY_CREATED, "k1"))
    await store.keys.put(structs.replace(key, id="k2", sha256="1"), did(Action.KEY_CREATED, "k2"))
    await store.keys.delete("k1", did(Action.KEY_DELETED, "k1"))
    with pytest.raises(NotFound):
        await store.keys.delete("k1", did(Action.KEY_DELETED, "k1"))
    await store.keys.sweep(2)
    assert await actions(store) == [
        (Action.KEY_CREATED, "k1"),
        (Action.KEY_CREATED, "k2"),
        (Action.KEY_DELETED, "k1"),
        (Action.KEY_EXPIRED, "k2"),
    ]


async def test_a_first_key_is_stored_and_recorded_once_and_only_where_there_is_none(store):
    key = ApiKey(id="k1", name="n", user_id="u", sha256="0", prefix="inf_")
    for _ in range(2):  # a reply may be lost
        assert await store.keys.put_first(key, did(Action.KEY_CREATED, "k1"))
    other = structs.replace(key, id="k2", sha256="1")
    assert not await store.keys.put_first(other, did(Action.KEY_CREATED, "k2"))
    assert await store.keys.list() == [key]
    assert await actions(store) == [(Action.KEY_CREATED, "k1")]
    await store.keys.delete("k1")
    assert await store.keys.put_first(other)


def test_what_people_typed_is_cut():
    recorded = change_of(Action.KEY_CREATED, "t" * 1000, ME, name="n" * 1000, empty="", nothing=None)
    assert (len(recorded.target), len(recorded.detail["name"])) == (audit.DETAIL_CHARS, audit.DETAIL_CHARS)
    assert set(recorded.detail) == {"name"}


def refusal(target="k1"):
    return change_of(
        Action.ACCESS_REFUSED, target, ME, request="GET /audit", reason="the key lacks audit:read"
    )


async def test_a_refused_attempt_is_recorded_once_for_each_who_tries(store):
    assert await store.audit.refused("k1", refusal())
    assert not await store.audit.refused("k1", refusal())
    assert await store.audit.refused("k2", refusal("k2"))
    assert await actions(store) == [(Action.ACCESS_REFUSED, "k1"), (Action.ACCESS_REFUSED, "k2")]
    left_ms = await store._connection.command("PTTL", store._keys.refused("k1"))
    assert 0 < left_ms <= audit.REFUSAL_S * 1000


async def test_refused_attempts_are_read_among_the_changes_and_push_none_out(store, monkeypatch):
    monkeypatch.setattr("stoker.protocol.audit.REFUSALS_KEPT", 10)
    await store.audit.add(did(Action.APP_DEPLOYED, "first"))
    await asyncio.sleep(0.002)  # two streams tell the order of entries by their milliseconds alone
    for number in range(300):
        await store.audit.refused(f"k{number}", refusal(f"k{number}"))
    await asyncio.sleep(0.002)
    await store.audit.add(did(Action.APP_DELETED, "last"))
    assert await store.audit.count() < 250
    seen, cursor = [], ""
    while True:
        found, cursor = await store.audit.page(cursor, 7)
        seen += [(each.id, each.change.target) for each in found]
        if not cursor:
            break
    assert {seen[0][1], seen[1][1]} == {"last", "k299"}  # in any order where one millisecond saw both
    assert seen[-1][1] == "first"
    assert len({target for _, target in seen}) == len(seen) == await store.audit.count()


async def test_what_was_recorded_in_one_moment_is_on_one_page(store):
    keys, text = store._keys, json.encode(did(Action.APP_CHANGED))
    for key in (keys.audit, keys.audit_refused):
        for at in ("5-1", "6-1"):
            await store._connection.command("XADD", key, at, "change", text)
    first, cursor = await store.audit.page("", 1)
    second, end = await store.audit.page(cursor, 1)
    assert [each.id for each in (*first, *second)] == ["6-1", "6-1", "5-1", "5-1"]
    assert end == ""
