"""A word by which somebody is known again.

An engine proves by it that an attempt, or an order, is its own: Redis and the gateway know its hash. A script knows by
it who repeats a call whose reply was lost.
"""

import secrets
from typing import Final

BYTES: Final = 24
"""192 bits: nobody guesses one."""


def new_token() -> str:
    """A word that nobody had before."""
    return secrets.token_urlsafe(BYTES)
