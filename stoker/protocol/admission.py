"""Under which conditions a task is accepted, and what to raise when it is not."""

import hashlib
from typing import Final

from msgspec import Struct

from stoker.core.errors import Conflict, KeyQueueFull, ProtocolRefusal, QueueFull, StokerError
from stoker.protocol.sessions import session_error

QUEUE_RETRY_S: Final = 5
"""Sooner nothing much has changed in a queue that is full; later the workers might have run dry."""
_TAG_LENGTH: Final = 16


class Repeat(Struct, frozen=True, kw_only=True):
    """What makes a second request the same as the first: the caller's key, and what was asked with it.

    `kept_s`: how long the first one is remembered.
    """

    key: str
    body: bytes
    kept_s: float

    @property
    def body_hash(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class Room(Struct, frozen=True, kw_only=True):
    """How many tasks may wait, in all and of one API key. 0 = any number."""

    queue: int = 0
    key: int = 0

    def tag(self, key_id: str) -> str:
        """Under which name a key's waiting tasks are counted, '' = they are not. Engines see it, and no key by it."""
        return hashlib.sha256(key_id.encode()).hexdigest()[:_TAG_LENGTH] if self.key else ""


ANY_ROOM: Final = Room()


def submit_error(refusal: ProtocolRefusal, repeat: Repeat | None, room: Room) -> StokerError:
    """What to raise for a task that the script did not accept."""
    if refusal.refusal == "IDEMPOTENCY_MISMATCH" and repeat is not None:
        return Conflict(
            f"Idempotency-Key {repeat.key!r} was used with another request. Use a new key for a new request; "
            "to repeat the first one, send its body unchanged."
        )
    if refusal.refusal == "KEY_QUEUE_FULL":
        return KeyQueueFull(
            f"{_count(refusal)} tasks of this API key wait, and {room.key} may (setting max_queued_per_key). "
            "Wait until some have started, or cancel some.",
            retry_after=QUEUE_RETRY_S,
        )
    if refusal.refusal == "QUEUE_FULL":
        return QueueFull(
            f"{_count(refusal)} tasks wait, and {room.queue} may (setting max_queued). "
            "Try again when some have started, or add a worker.",
            retry_after=QUEUE_RETRY_S,
        )
    return session_error(refusal)


def _count(refusal: ProtocolRefusal) -> str:
    detail = refusal.fields["detail"]
    return detail[0].decode() if isinstance(detail, list) and detail else "?"
