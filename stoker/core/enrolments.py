"""What is kept of a machine that may join: its name, its state, and hashes of its secrets."""

import hashlib
from enum import StrEnum

from msgspec import Struct

from stoker.core.messages import EngineId


class EnrolmentState(StrEnum):
    """Where the enrolment of one machine is."""

    INVITED = "invited"
    """A token was made; the machine has not come."""
    JOINED = "joined"
    """It has its identity."""
    REVOKED = "revoked"
    """Its identity is good for nothing any more."""


class Enrolment(Struct, frozen=True, kw_only=True):
    """The enrolment of one machine. The secrets themselves are with the machine alone."""

    name: EngineId
    state: EnrolmentState
    created_ms: int = 0
    joined_ms: int = 0
    revoked_ms: int = 0
    expires_ms: int = 0
    """Until when the token of an invited one is good, by the server's clock."""
    by: str = ""
    password_sha256: str = ""
    key_sha256: str = ""


class Identity(Struct, frozen=True, kw_only=True):
    """What a machine gets for its token, once, and keeps.

    `redis_url` names no user; `gateway_key` goes with every request to the gateway.
    """

    engine_id: EngineId
    pool: str
    redis_url: str
    redis_user: str
    redis_password: str
    gateway_url: str
    gateway_key: str
    joined_with: str = ""
    """SHA-256 of the token: a later start with the same one does not join again."""


def digest(secret: str) -> str:
    """What is stored in the place of a random secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
