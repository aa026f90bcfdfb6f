"""Identifiers: random, lower-case, without the characters that separate Redis keys."""

import base64
import hashlib
import re
import secrets
from typing import Final

from stoker.core.errors import InvalidRequest

DEFAULT_POOL: Final = "default"
"""The pool that ids and places without a pool in them belong to."""
SHORT_LENGTH = 8
_SAFE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def new_id(prefix: str = "") -> str:
    """A fresh identifier: `prefix` and 26 characters that carry 128 random bits."""
    return prefix + base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def derived_id(*parts: str, prefix: str = "") -> str:
    """The identifier that always belongs to `parts`: whoever makes something under it twice makes it once."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return prefix + base64.b32encode(digest[:16]).decode().rstrip("=").lower()


def short_id(long_id: str) -> str:
    """The first characters, enough for people."""
    return long_id[:SHORT_LENGTH]


def check_name(what: str, name: str) -> str:
    """`name` when it can stand in Redis keys and ACL patterns.

    Raises:
        InvalidRequest: it holds other characters than a-z 0-9 . _ - or is longer than 63.
    """
    if not _SAFE.fullmatch(name):
        raise InvalidRequest(
            f"{what} {name!r} is not usable: it must be 1 to 63 of a-z, 0-9, '.', '_', '-' "
            "and start with one of a-z, 0-9"
        )
    return name


def may_be_id(text: str) -> bool:
    """Whether a text of a stranger may be an id: what holds ``:`` would lead to another key than it names."""
    return ":" not in text
