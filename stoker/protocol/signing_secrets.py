"""The secrets that sign webhooks as they are kept: one encrypted record an owner. Knows nothing of values."""

import msgspec

from stoker.core.audit import Change
from stoker.core.errors import Conflict, ProtocolRefusal
from stoker.core.webhooks import SigningSecret
from stoker.protocol.audit import note
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SigningSecret).decode


class SigningSecrets:
    """Those of one pool. No engine reads them."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def get(self, owner_id: str) -> SigningSecret | None:
        """An owner's record; None = there was never one. Cost: one round trip."""
        raw = await self._connection.command("HGET", self._keys.signing_secrets, owner_id)
        return None if raw is None else _decode(raw)

    async def list(self) -> "list[SigningSecret]":
        """The records of all owners."""
        found = mapping(await self._connection.command("HGETALL", self._keys.signing_secrets))
        return [_decode(raw) for raw in found.values()]

    async def put(self, new: SigningSecret, read: SigningSecret | None, change: Change | None = None) -> None:
        """Write a record.

        Args:
            new: under a revision of its own.
            read: what the writer has read; None = there was none.
            change: what is recorded with it.

        Raises:
            Conflict: it was changed meanwhile; read it again.
        """
        try:
            await self._connection.script(
                "put_signing_secret",
                [self._keys.signing_secrets, self._keys.audit],
                [new.owner_id, read.revision if read else "", _encode(new), *note(change)],
            )
        except ProtocolRefusal as refusal:
            raise Conflict(
                "The secret that signs your webhooks was changed by somebody else just now. Read it again."
            ) from refusal
