"""Numbers that strangers write."""

from typing import Final

MAX_DIGITS: Final = 18
"""Fits 64 bits. `int` itself refuses what has thousands of digits, with an error of ours to answer for."""


def whole(text: str) -> int | None:
    """A number without a sign in plain digits, or None."""
    return int(text) if len(text) <= MAX_DIGITS and text.isascii() and text.isdecimal() else None
