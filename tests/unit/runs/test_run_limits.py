import pytest

from stoker.core.errors import InvalidRequest
from stoker.runs.run_limits import AHEAD_MAX_S, read_run_at

pytestmark = pytest.mark.unit

NOW_S = 1_900_000_000


@pytest.mark.parametrize(
    ("value", "at_ms"),
    [
        (None, 0),
        ("", 0),
        (0, 0),
        ("2030-03-17T17:46:40Z", 1_900_000_000_000),
        ("2030-03-17T19:46:40.5+02:00", 1_900_000_000_500),
        ("2030-03-17T17:46:40", 1_900_000_000_000),
        (1_900_000_000, 1_900_000_000_000),
        (1_900_000_000.25, 1_900_000_000_250),
        ("1900000000", 1_900_000_000_000),
        ("2001-01-01", 978_307_200_000),
        (-5, 0),
        (-1e308, 0),
        ("-1e308", 0),
        ("0001-01-01T00:00:00+14:00", 0),
    ],
)
def test_a_time_is_iso_or_seconds(value, at_ms):
    assert read_run_at(value, None, NOW_S) == at_ms


@pytest.mark.parametrize("value", ["tomorrow", "2030-13-01", "nan", "inf", "12:00"])
def test_what_is_no_time_is_refused_with_an_example(value):
    with pytest.raises(InvalidRequest, match=r"run_at: .* is no time; give ISO 8601 \(2030"):
        read_run_at(value, None, NOW_S)


@pytest.mark.parametrize("value", [NOW_S + AHEAD_MAX_S + 1, 1e308, "9999-12-31T23:59:59-14:00"])
def test_a_time_too_far_ahead_is_refused(value):
    with pytest.raises(InvalidRequest, match="366 days ahead"):
        read_run_at(value, None, NOW_S)


def test_a_sessions_tasks_run_as_they_come():
    with pytest.raises(InvalidRequest, match="session"):
        read_run_at(NOW_S + 60, "new", NOW_S)
