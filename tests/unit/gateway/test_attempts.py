"""Which refused attempts are recorded."""

import pytest

from stoker.core.audit import Action, Actor
from stoker.core.errors import StoreUnavailable
from stoker_gateway.attempts import Attempts
from stoker_gateway.door import part_of

pytestmark = pytest.mark.unit

ANN = Actor(user_id="ann", key_id="k1", address="192.0.2.1")


class Record:
    """Stands for the audit; `fails`: Redis is away."""

    def __init__(self):
        self.entries, self.fails = [], False

    async def refused(self, who, change):
        if self.fails:
            raise StoreUnavailable
        self.entries.append((who, change))
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def record():
    return Record()


@pytest.fixture
def clock():
    return Clock()


async def test_an_attempt_says_who_tried_what_and_why_not(record, clock):
    await Attempts(record, clock).lacks_scope(ANN, "POST /engines/{engine_id}/drain", "engines:write")
    [(who, change)] = record.entries
    assert (who, change.action, change.target, change.actor) == ("k1", Action.ACCESS_REFUSED, "k1", ANN)
    assert change.detail == {
        "request": "POST /engines/{engine_id}/drain",
        "reason": "the key lacks engines:write",
    }


async def test_a_key_has_one_entry_a_minute(record, clock):
    attempts = Attempts(record, clock)
    for _ in range(3):
        await attempts.lacks_scope(ANN, "GET /audit", "audit:read")
    await attempts.expired(ANN, "GET /tasks")
    await attempts.lacks_scope(Actor(key_id="k2"), "GET /audit", "audit:read")
    assert [who for who, _ in record.entries] == ["k1", "k2"]
    clock.now = 61
    await attempts.expired(ANN, "GET /tasks")
    assert [who for who, _ in record.entries] == ["k1", "k2", "k1"]


async def test_unknown_keys_have_one_entry_a_minute_and_address(record, clock):
    attempts = Attempts(record, clock)
    for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1"):
        await attempts.unknown_key(address, "GET /tasks")
    assert [change.actor.address for _, change in record.entries] == ["192.0.2.1", "2001:db8::1"]
    assert all(":" not in who and "192" not in who for who, _ in record.entries)


async def test_what_is_remembered_is_bounded(record, clock, monkeypatch):
    monkeypatch.setattr("stoker_gateway.attempts._REMEMBERED", 3)
    attempts = Attempts(record, clock)
    for number in range(10):
        await attempts.expired(Actor(key_id=f"k{number}"), "GET /tasks")
    assert len(record.entries) == 10
    assert len(attempts._noted) <= 3


async def test_an_attempt_is_refused_also_while_nobody_can_record_it(record, clock):
    record.fails = True
    await Attempts(record, clock).expired(ANN, "GET /tasks")


def test_of_a_path_nothing_is_recorded_that_may_be_a_secret():
    assert part_of("/secrets/reveal/API_TOKEN") == "/secrets"
    assert part_of("/") == "/"
