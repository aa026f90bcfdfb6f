"""What the gateway decides about secrets, on a real server: who may have them, and what a task gets at its start."""

import asyncio
import contextlib

import pytest

from stoker.core.apps import App, AppVersion
from stoker.core.audit import Actor
from stoker.core.errors import Conflict, Forbidden, NotFound, RequirementsNotMet, SecretUnreadable
from stoker.core.messages import IntegrationNeed, Owner, SecretNeed
from stoker.core.sessions import session_key
from stoker.runs.grants import Grants
from stoker.settings import GatewaySettings
from stoker_gateway.secret_store import UNREADABLE, SecretStore

ANN = Owner(user_id="ann", key_id="k1")
ANNS = Actor(user_id="ann", key_id="k1")
"""The same, as who changes something."""
BOB = Owner(user_id="bob", key_id="k2")
NEEDED = SecretNeed(key="A_KEY")
MAYBE = SecretNeed(key="B_KEY", optional=True)


def app(owner="ann"):
    return App(id="a", short_id="a", namespace="ns", name="app", owner_id=owner, visibility="public")


def version(*secrets, integrations=()):
    return AppVersion(
        id="v", short_id="v", app_id="a", created_ms=0, secrets=secrets, integrations=integrations
    )


@pytest.fixture
def make(store, tmp_path):
    """A function that makes a secret store with settings."""

    def make(**changes):
        settings = GatewaySettings(data_dir=tmp_path, **changes)
        made = SecretStore(store, settings)
        made.settings = settings
        return made

    return make


@pytest.fixture
def secrets(make):
    return make()


def grants_of(secrets):
    """What decides for runs, over the same store and settings."""
    return Grants(secrets._store, secrets.settings.verified_owners)


async def granted(secrets, *needs, owner=ANN, of="ann"):
    found = await grants_of(secrets).find(app(of), version(*needs), owner)
    return [need.key for need in found.needs], found.digest


async def test_an_app_that_wants_nothing_is_given_nothing(secrets):
    await secrets.set(ANNS, "A_KEY", "value", None)
    assert await granted(secrets) == ([], "")


async def test_a_missing_one_is_told_and_an_optional_one_is_not(secrets):
    with pytest.raises(RequirementsNotMet) as refusal:
        await granted(secrets, NEEDED, MAYBE)
    assert [entry["key"] for entry in refusal.value.missing] == ["A_KEY"]
    assert await granted(secrets, MAYBE) == (["B_KEY"], "")


async def test_the_digest_changes_with_the_value_and_the_owner_and_not_with_the_description(secrets):
    await secrets.set(ANNS, "A_KEY", "value", "one")
    names, first = await granted(secrets, NEEDED, MAYBE)
    assert names == ["A_KEY", "B_KEY"]
    await secrets.set(ANNS, "A_KEY", None, "two")
    assert (await granted(secrets, NEEDED, MAYBE))[1] == first
    await secrets.set(ANNS, "A_KEY", "value", None)
    second = (await granted(secrets, NEEDED, MAYBE))[1]
    await secrets.set(ANNS, "B_KEY", "value", None)
    third = (await granted(secrets, NEEDED, MAYBE))[1]
    await secrets.delete(ANNS, "A_KEY")
    await secrets.set(ANNS, "A_KEY", "value", None)
    fourth = (await granted(secrets, NEEDED, MAYBE))[1]
    await secrets.set(BOB, "A_KEY", "value", None)
    fifth = (await granted(secrets, NEEDED, owner=BOB, of="bob"))[1]
    assert len({first, second, third, fourth, fifth}) == 5


async def test_an_app_of_another_user_is_given_nothing_unless_its_owner_is_verified(secrets, make):
    await secrets.set(BOB, "A_KEY", "value", None)
    with pytest.raises(RequirementsNotMet, match="belongs to another user"):
        await granted(secrets, NEEDED, owner=BOB)
    assert await granted(secrets, SecretNeed(key="A_KEY", optional=True), owner=BOB) == ([], "")
    for verified in ("ann", "*"):
        names, digest = await granted(make(verified_owners=(verified,)), NEEDED, owner=BOB)
        assert (names, bool(digest)) == (["A_KEY"], True)


async def test_an_integration_is_satisfied_by_its_variables(secrets):
    wants = version(integrations=(IntegrationNeed(key="gcp.vertex_ai"),))
    with pytest.raises(RequirementsNotMet) as refusal:
        await grants_of(secrets).find(app(), wants, ANN)
    assert refusal.value.missing[0]["action"] == {"type": "connect", "provider": "gcp"}
    await secrets.set(ANNS, "GCP_ACCESS_TOKEN", "token", None)
    await secrets.set(ANNS, "GCP_PROJECT_NUMBER", "12", None)
    found = await grants_of(secrets).find(app(), wants, ANN)
    assert [need.key for need in found.needs] == ["GCP_ACCESS_TOKEN", "GCP_PROJECT_NUMBER"]


async def test_a_start_gets_the_present_values_of_what_was_granted_and_nothing_else(secrets):
    for name in ("A_KEY", "OTHER_KEY"):
        await secrets.set(ANNS, name, f"old {name}", None)
    owner = Owner(user_id="ann", key_id="k1", secrets=(NEEDED, MAYBE))
    await secrets.set(ANNS, "A_KEY", "new", None)
    assert await secrets.values_for("t", owner, "s") == {"A_KEY": "new"}
    await secrets.set(ANNS, "B_KEY", "late", None)
    assert await secrets.values_for("t", owner, "s") == {"A_KEY": "new", "B_KEY": "late"}


async def test_a_start_without_a_required_one_fails_with_the_reason(secrets):
    await secrets.set(ANNS, "A_KEY", "value", None)
    await secrets.delete(ANNS, "A_KEY")
    owner = Owner(user_id="ann", key_id="k1", secrets=(NEEDED,))
    with pytest.raises(RequirementsNotMet, match="deleted while the task waited"):
        await secrets.values_for("t", owner, "s")


async def test_a_change_retires_the_setups_that_were_given_the_value(secrets, store):
    await secrets.set(ANNS, "A_KEY", "value", None)
    owner = Owner(user_id="ann", key_id="k1", secrets=(NEEDED,))
    await secrets.values_for("t", owner, "plain")
    await secrets.values_for("t", owner, session_key("other", "sess_1"))
    await secrets.set(ANNS, "A_KEY", None, "only the description")
    assert await store.secrets.retired() == frozenset()
    await secrets.set(ANNS, "A_KEY", "value 2", None)
    assert await store.secrets.retired() == {"plain", "other"}  # a session's instance goes with the session


@contextlib.contextmanager
def dying_after(monkeypatch, records, verb):
    """What is done here ends as soon as a verb was carried out, before anybody learns of it."""
    carry_out = getattr(records, verb)

    async def last(*args):
        await carry_out(*args)
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(records, verb, last)
        with pytest.raises(asyncio.CancelledError):
            yield


async def test_a_gateway_that_dies_once_a_secret_is_set_has_retired_what_holds_the_old_value(
    secrets, store, monkeypatch
):
    await secrets.set(ANNS, "A_KEY", "value", None)
    await secrets.values_for("t", Owner(user_id="ann", key_id="k1", secrets=(NEEDED,)), "s")
    with dying_after(monkeypatch, store.secrets, "put"):
        await secrets.set(ANNS, "A_KEY", "value 2", None)
    assert await store.secrets.retired() == {"s"}


async def test_a_gateway_that_dies_once_a_secret_is_deleted_has_retired_and_recorded_it(
    secrets, store, monkeypatch
):
    await secrets.set(ANNS, "A_KEY", "value", None)
    await secrets.values_for("t", Owner(user_id="ann", key_id="k1", secrets=(NEEDED,)), "s")
    with dying_after(monkeypatch, store.secrets, "delete"):
        await secrets.delete(ANNS, "A_KEY")
    with pytest.raises(NotFound):
        await secrets.delete(ANNS, "A_KEY")
    assert await store.secrets.retired() == {"s"}
    recorded, _ = await store.audit.page("", 10)
    assert [each.change.action for each in recorded] == ["secret.deleted", "secret.set"]


async def test_a_late_value_does_not_escape_its_retirement(secrets, store, monkeypatch):
    """A change between the note and the reading of values retires the setup all the same."""
    await secrets.set(ANNS, "A_KEY", "value", None)
    read = store.secrets.get_many

    async def changed_meanwhile(owner_id, names):
        monkeypatch.setattr(store.secrets, "get_many", read)
        found = await read(owner_id, names)
        await secrets.set(ANNS, "A_KEY", "changed", None)
        return found

    monkeypatch.setattr(store.secrets, "get_many", changed_meanwhile)
    owner = Owner(user_id="ann", key_id="k1", secrets=(NEEDED,))
    assert await secrets.values_for("t", owner, "s") == {"A_KEY": "value"}
    assert await store.secrets.retired() == {"s"}


async def test_two_writers_of_one_secret_both_succeed_and_the_later_one_wins(secrets, store, monkeypatch):
    await secrets.set(ANNS, "A_KEY", "first", None)
    put = store.secrets.put

    async def overtaken(new, read, change):
        monkeypatch.setattr(store.secrets, "put", put)
        await secrets.set(ANNS, "A_KEY", "second", None)
        await put(new, read, change)

    monkeypatch.setattr(store.secrets, "put", overtaken)
    made = await secrets.set(ANNS, "A_KEY", "third", None)
    assert made.version == 3
    recorded, _ = await store.audit.page("", 10)
    assert [each.change.detail["version"] for each in reversed(recorded)] == ["1", "2", "3"]
    owner = Owner(user_id="ann", key_id="k1", secrets=(NEEDED,))
    assert await secrets.values_for("t", owner, "s") == {"A_KEY": "third"}


async def test_a_new_one_does_not_overwrite(secrets):
    await secrets.set(ANNS, "A_KEY", "value", None, only_new=True)
    with pytest.raises(Conflict):
        await secrets.set(ANNS, "A_KEY", "value", None, only_new=True)


async def test_values_are_revealed_only_when_the_setting_says_so(secrets, make):
    await secrets.set(ANNS, "A_KEY", "value", None)
    with pytest.raises(Forbidden):
        await secrets.reveal(ANNS, "A_KEY")
    open_store = make(secrets_reveal=True)
    assert (await open_store.reveal(ANNS, "A_KEY"))[1] == "value"
    with pytest.raises(NotFound):
        await open_store.reveal(BOB, "A_KEY")


async def test_a_gateway_with_another_key_says_so_and_still_lists(secrets, make, tmp_path):
    await secrets.set(ANNS, "A_KEY", "value", None)
    other = make(secrets_key_file=tmp_path / "other-key")
    assert [masked for _, masked in await other.list(ANN)] == [UNREADABLE]
    owner = Owner(user_id="ann", key_id="k1", secrets=(NEEDED,))
    with pytest.raises(SecretUnreadable, match="STOKER_SECRETS_KEY"):
        await other.values_for("t", owner, "s")
    await other.set(ANN, "A_KEY", "anew", None)
    assert await other.values_for("t", owner, "s") == {"A_KEY": "anew"}
