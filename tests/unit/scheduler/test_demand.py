"""How likely a setup is wanted again: what many ask for counts for more than what one asks for in a row."""

import pytest
from board import Board
from hypothesis import given
from hypothesis import strategies as st

from stoker_scheduler.knowledge import DEMAND_HALF_S, VISIT_S, Demand

pytestmark = pytest.mark.unit

HOUR_MS = 3_600_000
SOON_MS = 1_000
"""Far less than a visit lasts."""


def asked(*callers, every_ms=SOON_MS):
    """A setup's demand, and the moment of its last task."""
    demand, at_ms = Demand(), 0
    for at_ms, caller in enumerate(callers):
        demand.note("a", at_ms * every_ms, caller)
    return demand, at_ms * every_ms


def chance(demand, now_ms, together=2):
    return demand.chance("a", now_ms, together)


def test_what_nobody_asked_for_is_not_wanted():
    assert chance(Demand(), HOUR_MS) == 0.0


def test_tasks_of_many_count_for_more_than_as_many_of_one():
    many, at_ms = asked(*"abcdefgh")
    one, _ = asked(*"aaaaaaaa")
    assert chance(many, at_ms + HOUR_MS) > chance(one, at_ms + HOUR_MS)


def test_a_row_of_whoever_came_last_is_one_visit():
    """Not of the first caller alone."""
    two, at_ms = asked("a", *"bbbbbbb")
    many, _ = asked(*"abababab")
    assert chance(two, at_ms + HOUR_MS) < chance(many, at_ms + HOUR_MS)


def test_the_scheduler_tells_callers_apart():
    board = Board()
    for caller in "abcd":
        board.submit("of_many", key_id=caller)
        board.submit("of_one", key_id="a")
    of_many, of_one = (board.mirror.knowledge.chance(key, board.now_ms, 2) for key in ("of_many", "of_one"))
    assert of_many > of_one


def test_further_tasks_of_one_count_too():
    few, _ = asked("a", "a")
    more, at_ms = asked(*"aaaaaaaa")
    assert chance(more, at_ms + HOUR_MS) > chance(few, SOON_MS + HOUR_MS)


def test_who_comes_again_after_a_while_visits_again():
    """Else the only key of a machine would never be more than one visitor."""
    later = int(VISIT_S * 1000) + 1
    again, again_ms = asked(*"aaaa", every_ms=later)
    row, row_ms = asked(*"aaaa")
    assert chance(again, again_ms + HOUR_MS) > chance(row, row_ms + HOUR_MS)


def test_a_visit_goes_on_for_as_long_as_its_tasks_follow_each_other():
    """Its end is counted from its last task, not from its first."""
    following = int(VISIT_S * 1000)
    slow, slow_ms = asked(*"aaaa", every_ms=following)
    quick, quick_ms = asked(*"aaaa")
    assert chance(slow, slow_ms + HOUR_MS) <= chance(quick, quick_ms + HOUR_MS)


def test_a_task_that_is_older_than_the_last_was_counted_before():
    demand, at_ms = asked(*"ab")
    before = chance(demand, at_ms + HOUR_MS)
    demand.note("a", at_ms - 1, "c")
    assert chance(demand, at_ms + HOUR_MS) == before


callers = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 2 * int(VISIT_S * 1000))), min_size=1, max_size=30
)


@given(callers, st.integers(0, 10 * HOUR_MS), st.integers(1, 8))
def test_a_chance_is_a_share_that_only_shrinks_while_nobody_asks(tasks, idle_ms, together):
    demand, at_ms = Demand(), 0
    for caller, after_ms in tasks:
        at_ms += after_ms
        demand.note("a", at_ms, caller)
    now = chance(demand, at_ms + idle_ms, together)
    later = chance(demand, at_ms + idle_ms + int(DEMAND_HALF_S * 1000), together)
    assert 0 <= later <= now < 1
    demand.note("a", at_ms + idle_ms, "d")
    assert chance(demand, at_ms + idle_ms, together) > now or idle_ms == 0
