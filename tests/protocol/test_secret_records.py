"""Secrets in Redis: written by compare-and-set, listed by owner, and retired with the setups that held them."""

import pytest
from msgspec import structs
from protocol.faulty import lose_replies
from protocol_scene import once

from stoker.core.audit import Action, Actor, change_of
from stoker.core.errors import Conflict, InvalidRequest
from stoker.core.messages import Needs, Owner, Secret, SecretNeed, TaskRequest, TaskSpec
from stoker.protocol import secret_records

pytestmark = pytest.mark.protocol


def secret(key="A", revision="r1", **fields):
    return Secret(id="i", owner_id="ann", key=key, version=1, revision=revision, **fields)


async def test_a_secret_is_read_by_its_owner_and_name_alone(store):
    await store.secrets.put(secret(), None)
    await store.secrets.put(secret("B"), None)
    assert await store.secrets.get_many("ann", ["A", "C"]) == {"A": secret()}
    assert await store.secrets.get_many("bob", ["A"]) == {}
    assert await store.secrets.get_many("ann", []) == {}
    assert await store.secrets.list("ann") == [secret("A"), secret("B")]
    assert await store.secrets.owners() == ["ann"]


async def test_a_write_over_what_was_not_read_is_refused(store):
    await store.secrets.put(secret(), None)
    with pytest.raises(Conflict, match="changed by somebody else"):
        await store.secrets.put(secret(revision="r2"), None)
    second = secret(revision="r2")
    await store.secrets.put(second, secret())
    with pytest.raises(Conflict):
        await store.secrets.put(secret(revision="r3"), secret())
    assert await store.secrets.get_many("ann", ["A"]) == {"A": second}


async def test_a_write_that_is_repeated_after_a_lost_reply_does_no_harm(store):
    await store.secrets.put(secret(), None)
    await store.secrets.put(secret(), None)
    await store.secrets.put(secret(revision="r2"), secret())
    await store.secrets.put(secret(revision="r2"), secret())


async def test_a_deleted_secret_is_not_brought_back_by_a_late_write(store):
    await store.secrets.put(secret(), None)
    assert await store.secrets.delete("ann", "A")
    assert not await store.secrets.delete("ann", "A")
    with pytest.raises(Conflict):
        await store.secrets.put(secret(revision="r2"), secret())


async def test_an_owner_has_a_bounded_number(store, monkeypatch):
    monkeypatch.setattr(secret_records, "MAX_SECRETS", 2)
    await store.secrets.put(secret("A"), None)
    await store.secrets.put(secret("B"), None)
    with pytest.raises(InvalidRequest, match="limit"):
        await store.secrets.put(secret("C"), None)
    await store.secrets.put(structs.replace(secret("B"), revision="r2"), secret("B"))


def second(key="A", **fields):
    """The secret with its second value."""
    return structs.replace(secret(key, "r2"), version=2, **fields)


async def uses(store, owner_id="ann", name="A"):
    return await store._connection.command("ZCARD", store._keys.secret_uses(owner_id, name))


async def test_a_new_value_retires_the_setups_that_were_given_the_secret(store):
    await store.secrets.put(secret("A"), None)
    await store.secrets.put(secret("B"), None)
    await store.secrets.note_use("ann", ["A", "B"], "one", 1)
    await store.secrets.note_use("ann", ["A"], "two", 2)
    await store.secrets.note_use("bob", ["A"], "bobs", 3)
    assert await store.secrets.retired() == frozenset()
    await store.secrets.put(second("B"), secret("B"))
    assert await store.secrets.retired() == {"one"}
    await store.secrets.put(second("A"), secret("A"))
    assert await store.secrets.retired() == {"one", "two"}
    assert (await uses(store), await uses(store, "bob")) == (0, 1)


async def test_a_first_value_retires_the_setups_that_did_without(store):
    await store.secrets.note_use("ann", ["A"], "one", 1)
    await store.secrets.put(secret(), None)
    assert await store.secrets.retired() == {"one"}


async def test_what_keeps_the_value_or_is_refused_retires_nothing(store):
    await store.secrets.put(secret(), None)
    await store.secrets.note_use("ann", ["A"], "one", 1)
    await store.secrets.put(secret(revision="r2", description="other"), secret())
    with pytest.raises(Conflict):
        await store.secrets.put(second(), secret(revision="r0"))
    assert (await store.secrets.retired(), await uses(store)) == (frozenset(), 1)


async def test_a_value_whose_reply_was_lost_is_set_and_retires_once(store, monkeypatch):
    await store.secrets.put(secret(), None)
    await store.secrets.note_use("ann", ["A"], "one", 1)
    lose_replies(store, monkeypatch)
    await store.secrets.put(second(), secret(), change_of(Action.SECRET_SET, "A", Actor(user_id="ann")))
    assert await store.secrets.get_many("ann", ["A"]) == {"A": second()}
    assert await store.secrets.retired() == {"one"}
    assert await store.audit.count() == 1


async def test_a_deletion_retires_the_setups_of_that_secret_and_is_recorded_once(store):
    gone = change_of(Action.SECRET_DELETED, "A", Actor(user_id="ann"))
    await store.secrets.put(secret(), None)
    await store.secrets.note_use("ann", ["A"], "one", 1)
    await store.secrets.note_use("ann", ["B"], "two", 1)
    assert not await store.secrets.delete("ann", "C", gone)
    assert await store.secrets.retired() == frozenset()
    assert await store.secrets.delete("ann", "A", gone)
    assert not await store.secrets.delete("ann", "A", gone)
    assert await store.secrets.retired() == {"one"}
    assert await uses(store) == 0
    assert [each.change for each in (await store.audit.page("", 10))[0]] == [gone]


async def test_a_deletion_whose_reply_was_lost_is_whole(store, monkeypatch):
    await store.secrets.put(secret(), None)
    await store.secrets.note_use("ann", ["A"], "one", 1)
    lose_replies(store, monkeypatch)
    gone = change_of(Action.SECRET_DELETED, "A", Actor(user_id="ann"))
    assert await store.secrets.delete("ann", "A", gone)
    assert not await store.secrets.delete("ann", "A", gone)
    assert await store.secrets.get_many("ann", ["A"]) == {}
    assert await store.secrets.retired() == {"one"}
    assert await store.audit.count() == 1


async def test_the_setups_that_deletions_retire_are_bounded(store, monkeypatch):
    monkeypatch.setattr(secret_records, "RETIRED_KEPT", 2)
    await store.secrets.put(secret(), None)
    for number in range(5):
        await store.secrets.note_use("ann", ["A"], f"s{number}", number)
    assert await store.secrets.delete("ann", "A")
    assert len(await store.secrets.retired()) == 2


async def test_what_is_remembered_of_uses_is_bounded(store, monkeypatch):
    monkeypatch.setattr(secret_records, "USES_KEPT", 3)
    monkeypatch.setattr(secret_records, "RETIRED_KEPT", 2)
    await store.secrets.put(secret(), None)
    for number in range(5):
        await store.secrets.note_use("ann", ["A"], f"s{number}", number)
    assert await uses(store) == 3
    await store.secrets.put(second(), secret())
    assert len(await store.secrets.retired()) == 2


async def test_a_repeat_under_one_idempotency_key_is_the_first_task_also_after_a_secret_was_changed(store):
    def submit(task_id, setup_key):
        facts = {"version_id": "v", "env_key": "e", "app": "a/b", "setup_key": setup_key}
        request = TaskRequest(
            id=task_id, app_id="a", function="run", input={}, setup={}, has_secrets=True, **facts
        )
        owner = Owner(user_id="ann", key_id="k", secrets=(SecretNeed(key="A"),))
        spec = TaskSpec(id=task_id, needs=Needs(), **facts)
        return store.tasks.submit(request, spec, owner, repeat=once(b"body"))

    first = await submit("t1", "one")
    assert await submit("t2", "two") == first
    assert (await store.tasks.owner(first)).secrets == (SecretNeed(key="A"),)
