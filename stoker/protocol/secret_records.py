"""Secrets as they are kept: encrypted records of their owners, and which setups hold which.

Knows nothing of values. No engine reads these keys.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from stoker.core.audit import Change
from stoker.core.errors import Conflict, InvalidRequest, ProtocolRefusal
from stoker.core.messages import Secret, SetupKey
from stoker.protocol.audit import note
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping
from stoker.protocol.tokens import new_token

MAX_SECRETS: Final = 500
"""Of one owner. A list is read as a whole, and an app declares a handful."""
USES_KEPT: Final = 1000
"""Setups that are remembered for a secret, the latest ones: far more than live at a time."""
RETIRED_KEPT: Final = 10_000

_encode = msgspec.json.Encoder().encode
_secret = msgspec.json.Decoder(Secret)


class Secrets:
    """The secrets of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._call = connection.command
        self._keys = keys

    async def get_many(self, owner_id: str, names: Sequence[str]) -> dict[str, Secret]:
        """Those of `names` that the owner has. Cost: one round trip."""
        if not names:
            return {}
        found = await self._call("HMGET", self._keys.secrets(owner_id), *names)
        return {name: _secret.decode(raw) for name, raw in zip(names, found, strict=True) if raw is not None}

    async def owners(self) -> list[str]:
        """Everybody who has, or had, secrets."""
        return sorted(owner.decode() for owner in await self._call("SMEMBERS", self._keys.secret_owners))

    async def list(self, owner_id: str) -> "list[Secret]":
        """All of one owner, by name."""
        found = mapping(await self._call("HGETALL", self._keys.secrets(owner_id)))
        return sorted((_secret.decode(raw) for raw in found.values()), key=lambda secret: secret.key)

    async def put(self, new: Secret, read: Secret | None, change: Change | None = None) -> None:
        """Write a secret; with a new value, have the instances unloaded that may hold an older one.

        Args:
            new: its record, under a revision of its own. Another `version` is another value.
            read: what the writer has read; None = there was none.
            change: what is recorded with it.

        Raises:
            Conflict: it was changed meanwhile; read it again.
            InvalidRequest: the owner has `MAX_SECRETS`.

        Cost: one round trip, O(setups that were given it). Script: lua/put_secret.lua.
        """
        keys = self._keys
        try:
            await self._connection.script(
                "put_secret",
                [
                    keys.secrets(new.owner_id),
                    keys.secret_owners,
                    keys.secret_uses(new.owner_id, new.key),
                    keys.retired_setups,
                    keys.audit,
                ],
                [
                    new.key,
                    read.revision if read else "",
                    _encode(new),
                    new.owner_id,
                    MAX_SECRETS,
                    RETIRED_KEPT,
                    *note(change),
                ],
            )
        except ProtocolRefusal as refusal:
            if refusal.refusal == "SECRET_LIMIT":
                raise InvalidRequest(
                    f"Input validation failed: key: you have {MAX_SECRETS} secrets, which is the limit. "
                    "Delete some first."
                ) from refusal
            raise Conflict(
                f"The secret {new.key} was changed by somebody else just now. Read it again."
            ) from refusal

    async def delete(self, owner_id: str, name: str, change: Change | None = None) -> bool:
        """Forget a secret, with the record of that, and have the instances unloaded that hold it; whether there was one.

        Cost: one round trip. Script: lua/delete_secret.lua.
        """
        keys = self._keys
        [deleted] = await self._connection.script(
            "delete_secret",
            [
                keys.secrets(owner_id),
                keys.secret_uses(owner_id, name),
                keys.retired_setups,
                keys.audit,
                keys.removal(new_token()),
            ],
            [name, RETIRED_KEPT, *note(change)],
        )
        return bool(deleted)

    async def note_use(self, owner_id: str, names: Iterable[str], setup_key: SetupKey, now_ms: int) -> None:
        """Remember that instances of a setup may hold these secrets. Call it before their values are read."""
        for name in names:
            key = self._keys.secret_uses(owner_id, name)
            await self._call("ZADD", key, now_ms, setup_key)
            await self._call("ZREMRANGEBYRANK", key, 0, -USES_KEPT - 1)

    async def retired(self) -> frozenset[SetupKey]:
        """Setups that no new task has: a secret of theirs was changed or deleted. Cost: one round trip."""
        found = await self._call("ZRANGE", self._keys.retired_setups, 0, -1)
        return frozenset(SetupKey(setup.decode()) for setup in found)
