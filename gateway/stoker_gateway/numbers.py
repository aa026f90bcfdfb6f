"""Numbers that strangers write."""

from typing import Final

from stoker.core.errors import InvalidRequest

MAX_DIGITS: Final = 18
"""Fits 64 bits. `int` itself refuses what has thousands of digits, with an error of ours to answer for."""


def whole(text: str) -> int | None:
    """A number without a sign in plain digits, or None."""
    return int(text) if len(text) <= MAX_DIGITS and text.isascii() and text.isdecimal() else None


def check_cursor(cursor: str) -> str:
    """`cursor` when it can be one of a list's that goes by time.

    Raises:
        InvalidRequest: it is none.
    """
    if cursor and whole(cursor) is None:
        raise InvalidRequest("Input validation failed: cursor: take it from next_cursor of the page before")
    return cursor
