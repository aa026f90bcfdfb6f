import pytest

from stoker.core.errors import InvalidRequest
from stoker.core.limits import (
    BadLimit,
    Bounds,
    Retry,
    Timeouts,
    decide_limits,
    read_retry,
    read_timeouts,
)

pytestmark = pytest.mark.unit

BOUNDS = Bounds(attempts=3, attempts_max=10, delay_s=1.0, timeout_max_s=100)


NOTHING = (Timeouts(), Retry())


def decided(timeouts=NOTHING[0], retry=NOTHING[1], app_timeouts=NOTHING[0], app_retry=NOTHING[1]):
    return decide_limits(timeouts, retry, app_timeouts, app_retry, BOUNDS)


def test_nothing_said_is_the_systems_default():
    found = decided()
    assert (found.timeouts, found.max_attempts, found.retry_delay_s) == (Timeouts(), 3, 1.0)
    assert not found.retry_app_errors


def test_a_request_counts_before_its_app():
    found = decided(
        Timeouts(run=5),
        Retry(max_attempts=1),
        Timeouts(run=9, setup=7),
        Retry(max_attempts=4, app_errors=True),
    )
    assert found.timeouts == Timeouts(run=5, setup=7)
    assert (found.max_attempts, found.retry_app_errors) == (1, True)


def test_a_request_may_take_back_what_its_app_says():
    found = decided(retry=Retry(delay=0, app_errors=False), app_retry=Retry(delay=60, app_errors=True))
    assert (found.retry_delay_s, found.retry_app_errors) == (0, False)


def test_an_app_gets_what_there_is():
    found = decided(app_timeouts=Timeouts(run=1000), app_retry=Retry(max_attempts=50))
    assert (found.timeouts.run, found.max_attempts) == (100, 10)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"timeouts": Timeouts(upload=101)}, r"timeouts\.upload: 101 s is too long.*100 s \(STOKER_TIMEOUT"),
        ({"retry": Retry(max_attempts=11)}, r"11 are too many.*10 \(STOKER_RETRY_ATTEMPTS_MAX"),
    ],
)
def test_a_request_that_asks_for_more_is_refused_with_the_bound(asked, words):
    with pytest.raises(InvalidRequest, match=words):
        decided(**asked)


@pytest.mark.parametrize("value", [None, {}, {"run": None}])
def test_an_empty_part_says_nothing(value):
    assert read_timeouts(value) == Timeouts()


def test_what_is_said_is_read():
    assert read_timeouts({"queue": 60, "run": 1.5}) == Timeouts(queue=60, run=1.5)
    assert read_retry({"max_attempts": 5, "delay": 0, "app_errors": True}) == Retry(
        max_attempts=5, delay=0, app_errors=True
    )


@pytest.mark.parametrize(
    "value", [3, [], {"run": 0}, {"run": -1}, {"run": True}, {"run": "5"}, {"run": float("inf")}, {"walk": 1}]
)
def test_what_is_no_timeout_is_refused(value):
    with pytest.raises(BadLimit, match="timeouts"):
        read_timeouts(value)


@pytest.mark.parametrize(
    "value",
    [
        3,
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"delay": -1},
        {"delay": 3601},
        {"delay": "1"},
        {"app_errors": "yes"},
        {"times": 3},
    ],
)
def test_what_is_no_retry_rule_is_refused(value):
    with pytest.raises(BadLimit, match="retry"):
        read_retry(value)
