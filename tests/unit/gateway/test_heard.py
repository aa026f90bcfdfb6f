"""Who reads a task and watches it afterwards learns of what changed between the two."""

import pytest

from stoker_gateway import streams
from stoker_gateway.streams import Heard


@pytest.fixture
def heard():
    made = Heard()
    made.add("early")
    return made


def test_what_was_announced_before_the_read_is_in_it(heard):
    assert not heard.since("early", heard.position)
    assert not heard.since("never", heard.position)


def test_what_was_announced_after_the_read_is_not(heard):
    read_at = heard.position
    heard.add("other")
    assert not heard.since("early", read_at)
    heard.add("early")
    assert heard.since("early", read_at)


def test_after_a_subscription_was_renewed_anything_may_have_changed(heard):
    read_at = heard.position
    heard.nothing_before_now()
    assert heard.since("early", read_at)
    assert heard.since("never", read_at)
    assert not heard.since("early", heard.position)


def test_what_was_forgotten_may_have_changed(heard, monkeypatch):
    monkeypatch.setattr(streams, "HEARD_KEPT", 2)
    read_at = heard.position
    for name in ("early", "b", "c"):
        heard.add(name)
    assert heard.since("early", read_at)
    assert not heard.since("c", heard.position)
