"""The record of changes: who changed what, when, from where. Never a secret's value, and no key's text."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

KEPT: Final = 20_000
"""Changes that are kept, the latest ones: some 6 MB of Redis."""
REFUSALS_KEPT: Final = 5_000
"""Refused attempts that are kept, apart: who tries keys by the thousand pushes no change out."""
REFUSAL_S: Final = 60
"""Within this time one who tries has one entry."""
DETAIL_CHARS: Final = 200
"""Of one value; names are what people typed."""


class Action(StrEnum):
    """What was done."""

    KEY_CREATED = "key.created"
    KEY_DELETED = "key.deleted"
    KEY_EXPIRED = "key.expired"
    """The background work removed a key that had expired long ago."""
    SECRET_SET = "secret.set"
    SECRET_DELETED = "secret.deleted"
    SECRET_REVEALED = "secret.revealed"
    SIGNING_SECRET_SET = "webhook.secret_set"
    """A user has another secret that signs webhooks."""
    APP_DEPLOYED = "app.deployed"
    APP_CHANGED = "app.changed"
    APP_COPIED = "app.copied"
    APP_DELETED = "app.deleted"
    APP_VISIBILITY = "app.visibility"
    APP_PINNED = "app.pinned"
    APP_UNPINNED = "app.unpinned"
    APP_LOADED = "app.loaded"
    """Somebody wanted it to be loaded, without a task."""
    APP_UNLOADED = "app.unloaded"
    VERSION_USED = "app.version_used"
    """Another version is the current one."""
    VERSION_DELETED = "app.version_deleted"
    ACCESS_REFUSED = "access.refused"
    """Somebody tried something with a key that is none, has expired, or lacks the scope."""
    WORKER_INVITED = "worker.invited"
    WORKER_JOINED = "worker.joined"
    WORKER_REVOKED = "worker.revoked"
    WORKER_DRAINED = "worker.drained"
    WORKER_RELEASED = "worker.released"
    WORKER_RESTARTED = "worker.restarted"


class Actor(Struct, frozen=True, kw_only=True):
    """Who does something: a key of a user, and the address that it came from. Empty = the system itself."""

    user_id: str = ""
    key_id: str = ""
    address: str = ""


class Change(Struct, frozen=True, kw_only=True):
    """One change. `target`: a key's id, a secret's name, an app's reference, a machine's name."""

    action: Action
    target: str
    actor: Actor = Actor()
    detail: dict[str, str] = {}


class Recorded(Struct, frozen=True, kw_only=True):
    """A change with its place in the record and its time, by the server's clock."""

    id: str
    at_ms: int
    change: Change


def change_of(action: Action, target: str, actor: Actor, **detail: object) -> Change:
    """A change to record; what is empty is left out, what is long is cut."""
    shown = {name: str(value)[:DETAIL_CHARS] for name, value in detail.items() if value not in {None, ""}}
    return Change(action=action, target=target[:DETAIL_CHARS], actor=actor, detail=shown)
