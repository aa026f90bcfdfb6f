"""What an instance is counted with, before and after it was measured."""

import pytest

from stoker.core import vram
from stoker.core.vram import GIB, Peaks, device_type, wanted_bytes


def test_before_anything_was_measured_it_is_what_is_declared_and_a_margin():
    assert Peaks().need("s", "L4", 10 * GIB) == 11 * GIB
    assert Peaks().need("s", "L4", 0) == 0


def test_what_was_measured_counts_as_it_is_on_its_type_of_device_and_with_a_margin_on_others():
    peaks = Peaks()
    peaks.learn("s", "L4", 20 * GIB)
    assert peaks.need("s", "L4", 5 * GIB) == 20 * GIB
    assert peaks.need("s", "A100", 5 * GIB) == 22 * GIB
    assert peaks.need("other", "L4", 5 * GIB) == int(5.5 * GIB)


def test_a_larger_measurement_counts_at_once_and_a_smaller_one_little_by_little():
    peaks = Peaks()
    for measured in (10, 20, 10):
        peaks.learn("s", "L4", measured * GIB)
    assert peaks.need("s", "L4", 0) == 19 * GIB


def test_what_was_inferred_holds_until_something_is_measured():
    peaks = Peaks()
    peaks.learn("s", "L4", 10 * GIB)
    peaks.infer("s", "L4", 24 * GIB)
    assert peaks.need("s", "L4", 0) == 24 * GIB
    assert peaks.need("s", "A100", 0) == 11 * GIB  # it ran out on the other
    peaks.learn("s", "L4", 14 * GIB)
    assert peaks.need("s", "L4", 0) == 14 * GIB
    peaks.infer("s", "L4", 12 * GIB)
    assert peaks.need("s", "L4", 0) == 14 * GIB
    for seen, counted in ((12, 14), (15, 15)):
        peaks.at_least("s", "L4", seen * GIB)
        assert peaks.need("s", "L4", 0) == counted * GIB


def test_the_number_of_setups_is_bounded(monkeypatch):
    monkeypatch.setattr(vram, "MAX_KEYS", 2)
    peaks = Peaks()
    for key in ("a", "b", "a", "c"):
        peaks.learn(key, "L4", GIB)
    peaks.infer("d", "L4", GIB)
    known = [key for key in "abcd" if peaks.need(key, "L4", 0) == GIB]
    assert known == ["c", "d"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], ""), (["L4"], "L4"), (["L4", "L4"], "2 x L4"), (["L4", "A100", "L4"], "A100 + 2 x L4")],
)
def test_workers_with_the_same_gpus_are_of_one_type(names, expected):
    assert device_type(names) == expected


@pytest.mark.parametrize(
    ("need", "other", "wanted"),
    [(10, 0, 10), (30, 0, 24), (24, 1, 23), (24, 2, 24), (30, 12, 24), (8, 1, 8)],
)
def test_no_more_is_wanted_than_an_empty_device_has(need, other, wanted):
    assert wanted_bytes(need * GIB, 24 * GIB, other * GIB) == wanted * GIB


def test_the_drivers_of_many_large_devices_hold_more():
    assert wanted_bytes(640 * GIB, 640 * GIB, 5 * GIB) == 635 * GIB
