"""How a webhook is signed, when it is tried again, and what is shown of it."""

import random

import pytest

from stoker.core.states import DELIVERY_ALLOWED, DeliveryState
from stoker.core.webhooks import (
    LANES,
    Outcome,
    Policy,
    Sealed,
    SigningSecret,
    Try,
    decide_next,
    excerpt_of,
    judge,
    lane_of,
    pause_after,
    shown_receiver,
    signature,
    without_secrets,
)

pytestmark = pytest.mark.unit

POLICY = Policy(pause_s=2, pause_max_s=3600, give_up_s=86_400, tries=100)
FAILED = Outcome(done=Try(at_ms=0, status=500, error="it answered 500"))


@pytest.mark.parametrize(
    ("secret", "timestamp", "body", "expected"),
    [
        # printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_known
        (
            "whsec_known",
            1700000000,
            b'{"a":1}',
            "cf0f6e6b48afcb0cb17721cbc9dd3e6ebac32e5352fdb7f22aaa622a454b1fc4",
        ),
        ("key", 1, b"", "53123bc365c2fe4bee48bc5cc6cd6c19699147d43513154ed34277c7c063e80f"),
        (
            "whsec_known",
            1700000000,
            '{"b":"ü"}'.encode(),
            "9094f7e875e01a6514808034432697e0a66f0db53b7d54ee776dcdc892248218",
        ),
    ],
)
def test_the_signature_has_the_known_values(secret, timestamp, body, expected):
    assert signature(secret, timestamp, body) == f"sha256={expected}"


def test_pauses_double_up_to_the_longest_and_are_at_least_half_of_that():
    chance = random.Random(7)  # noqa: S311 - no secret
    pauses = [pause_after(tries, POLICY, chance.random()) for tries in range(1, 30)]
    assert [round(pause, 3) for pause in pauses[:4]] == [1.324, 2.302, 6.604, 8.579]
    for tries, pause in enumerate(pauses, start=1):
        longest = min(2 * 2 ** (tries - 1), 3600)
        assert longest / 2 <= pause <= longest


def test_two_deliveries_that_failed_together_are_not_tried_together():
    chance = random.Random(1)  # noqa: S311 - no secret
    assert len({pause_after(12, POLICY, chance.random()) for _ in range(100)}) == 100


def test_a_receiver_that_fails_twenty_times_is_called_again_hours_later():
    age_s = 0.0
    for tries in range(1, 21):
        then = decide_next(FAILED, tries, age_s, POLICY, 1.0)
        assert then.state is DeliveryState.PENDING
        age_s += then.pause_s
    assert 6 * 3600 < age_s < 24 * 3600


def test_a_delivery_is_given_up_before_it_is_too_old():
    age_s, tries = 0.0, 0
    while (then := decide_next(FAILED, (tries := tries + 1), age_s, POLICY, 0.5)).pause_s:
        age_s += then.pause_s
        assert age_s <= POLICY.give_up_s
    assert then.state is DeliveryState.DEAD
    assert age_s > POLICY.give_up_s - 3600


@pytest.mark.parametrize(
    ("outcome", "tries", "state"),
    [
        (Outcome(done=Try(at_ms=0, status=204)), 1, DeliveryState.DELIVERED),
        (Outcome(done=Try(at_ms=0, status=204)), 100, DeliveryState.DELIVERED),
        (FAILED, 1, DeliveryState.PENDING),
        (FAILED, 99, DeliveryState.PENDING),
        (FAILED, 100, DeliveryState.DEAD),
        (Outcome(done=Try(at_ms=0, error="no"), hopeless=True), 1, DeliveryState.DEAD),
        (Outcome(done=Try(at_ms=0, status=302, error="a redirect")), 1, DeliveryState.PENDING),
    ],
)
def test_what_becomes_of_a_delivery(outcome, tries, state):
    then = decide_next(outcome, tries, 0.0, POLICY, 0.5)
    assert then.state is state
    assert then.state in DELIVERY_ALLOWED[DeliveryState.PENDING]


@pytest.mark.parametrize(
    ("done", "rest_s"),
    [
        (Try(at_ms=0, took_ms=15_000, error="no answer"), 45),
        (Try(at_ms=0, took_ms=120_000, error="no answer"), 60),
        (Try(at_ms=0, took_ms=2, error="nobody listens"), 0.006),
        (Try(at_ms=0, took_ms=15_000, status=500, error="it answered 500"), 0),
        (Try(at_ms=0, took_ms=15_000, status=200), 0),
    ],
)
def test_a_lane_rests_when_its_receiver_was_silent(done, rest_s):
    for tries in (1, 100):
        assert decide_next(Outcome(done=done), tries, 0.0, POLICY, 0.5).rest_s == rest_s


@pytest.mark.parametrize(
    ("status", "after", "wait_s"),
    [(429, "90", 90), (503, "7200", 3600), (503, "soon", 2), (500, "90", 2), (503, "9" * 30, 2)],
)
def test_a_receiver_that_says_when_is_called_no_earlier(status, after, wait_s):
    outcome = judge(status, {"retry-after": after}, Try(at_ms=0))
    assert decide_next(outcome, 1, 0.0, POLICY, 1.0).pause_s == wait_s


@pytest.mark.parametrize(
    ("status", "says", "hopeless"),
    [(500, "it answered 500", False), (302, "not followed", False), (410, "wants no more", True)],
)
def test_an_answer_that_is_no_success_says_what_it_was(status, says, hopeless):
    outcome = judge(status, {}, Try(at_ms=1, took_ms=2, excerpt="because"))
    assert not outcome.arrived
    assert says in outcome.done.error
    assert (outcome.hopeless, outcome.done.status, outcome.done.excerpt) == (hopeless, status, "because")


def test_nothing_is_kept_of_what_a_receiver_says_to_a_success():
    assert judge(200, {}, Try(at_ms=1, excerpt="thanks")).done == Try(at_ms=1, status=200)


def test_deliveries_to_one_receiver_share_its_lanes_and_no_other_ones():
    one = {lane_of(f"https://A.example/{n}?x={n}", f"id{n}") for n in range(200)}
    other = {lane_of("https://b.example/", f"id{n}") for n in range(200)}
    assert len(one) == len(other) == LANES
    assert not one & other
    assert lane_of("https://user:pw@a.example/x", "d") == lane_of("https://a.example/", "d")
    assert all("example" not in lane for lane in one)


HOOK = "https://bob:hunter2@hooks.example:8443/services/T0SECRET/x?token=abcdef#frag"


def test_of_an_address_the_receiver_alone_is_shown():
    assert shown_receiver(HOOK) == "https://hooks.example:8443"


def test_a_text_holds_nothing_of_the_address_but_the_host():
    text = f"cannot get {HOOK}: hooks.example knows no T0SECRET, abcdef or hunter2"
    assert without_secrets(text, HOOK) == "cannot get ...: hooks.example knows no ..., ... or ..."
    assert "geheim ä" not in without_secrets("no geheim ä", "http://a/geheim%20%C3%A4")


def test_an_excerpt_is_one_short_line_that_does_no_harm():
    assert excerpt_of(b"\x1b[31mno\r\n\x00 such\xff hook T0SECRET\n", HOOK) == "[31mno such hook ..."
    assert excerpt_of("\u202eevil \u2066x".encode(), HOOK) == "evil x"
    assert len(excerpt_of(b"a " * 5000, HOOK)) == 200


def test_the_secret_before_signs_too_until_its_time_is_over():
    old = Sealed(id="old", sealed="s", sealed_by="k", created_ms=0)
    new = Sealed(id="new", sealed="s", sealed_by="k", created_ms=5)
    both = SigningSecret(owner_id="ann", revision="r", current=new, previous=old, previous_until_ms=100)
    assert both.good(99) == (new, old)
    assert both.good(100) == (new,)
    assert SigningSecret(owner_id="ann", revision="r", current=old).good(0) == (old,)


def test_what_is_no_address_has_a_lane_and_shows_nothing():
    assert lane_of("http://[bad", "d1")
    assert shown_receiver("http://[bad") == "://"
    assert without_secrets("no http://[bad/x", "http://[bad/x") == "no ..."
