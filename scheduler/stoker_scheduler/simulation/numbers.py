"""Bounds of what a simulation reads. A number that is none, or has no bound, would be played for ever."""

from math import nan
from typing import Final, NamedTuple


class Bounds(NamedTuple):
    """The least and the most of a number, and what it counts."""

    least: float
    most: float
    unit: str


SECONDS: Final = Bounds(0, 1_000_000_000, "seconds")
"""Of a run or a load: 31 years. Floats tell single seconds apart in the sum of a million of them."""
MOMENTS: Final = Bounds(-1_000_000_000_000, 1_000_000_000_000, "seconds")
"""When a task arrives, since whatever moment."""
GIGABYTES: Final = Bounds(0, 100_000, "GB")


def within(name: str, value: str | float | None, bounds: Bounds) -> float:
    """A number as a file has it, when it is one and within its bounds.

    Raises:
        ValueError: says the field, what it is, and what it should be.
    """
    try:
        found = nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        found = nan
    if not bounds.least <= found <= bounds.most:
        what = "missing" if value is None else repr(value)
        raise ValueError(
            f"{name} is {what}; it must be a number of {bounds.unit} from {bounds.least:,} to {bounds.most:,}"
        )
    return found
