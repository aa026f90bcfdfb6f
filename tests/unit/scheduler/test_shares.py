"""Fairness between keys: what each was given, and where one begins that comes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stoker_scheduler.shares import Shares


def test_a_key_that_was_away_has_saved_nothing():
    shares = Shares()
    shares.join("busy")
    for _ in range(10):
        shares.charge("busy", 10)
    shares.join("new")
    assert shares.used_s("new") == shares.used_s("busy") == 100.0


def test_what_one_was_given_while_others_waited_is_held_against_it():
    shares = Shares()
    shares.join("busy")
    shares.join("waiting")
    shares.charge("busy", 10)
    shares.join("new")
    assert (shares.used_s("waiting"), shares.used_s("new"), shares.used_s("busy")) == (0.0, 5.0, 10.0)


@given(debt_s=st.floats(0, 1000), others=st.integers(1, 6), run_s=st.floats(1, 50))
def test_a_key_that_was_given_much_has_its_turn_again_however_many_new_ones_come(debt_s, others, run_s):
    """One worker; ever new keys, of which a few wait at a time. What the others get meanwhile is bounded by the debt."""
    shares, given_s = Shares(), 0.0
    names = iter(f"new {number}" for number in itertools.count())
    waiting = [next(names) for _ in range(others)]
    for name in ("heavy", *waiting):
        shares.join(name)
    shares.correct("heavy", debt_s)
    while (turn := min(waiting, key=shares.used_s)) and shares.used_s(turn) < shares.used_s("heavy"):
        shares.charge(turn, run_s)
        given_s += run_s
        shares.leave(turn)
        waiting.remove(turn)
        waiting.append(next(names))
        shares.join(waiting[-1])
        assert given_s <= (others + 1) * (debt_s + run_s)


def test_a_wrong_estimate_is_corrected():
    shares = Shares()
    shares.join("k")
    shares.charge("k", 10)
    shares.correct("k", -4)
    assert shares.used_s("k") == 6.0
