"""Whose indexes hold tasks and documents that expire.

An owner is noted by the scripts that store a task or a document, since his API keys may be gone before what he made.
"""

from typing import Final

from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys

SWEPT_KINDS: Final = ("flowrun", "chat")
"""Documents that expire."""


class Owners:
    """Those of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def list(self) -> set[str]:
        """All that are noted."""
        return {owner.decode() for owner in await self._connection.command("SMEMBERS", self._keys.owners)}

    async def note(self, owner_id: str) -> None:
        """Note an owner who has something that may expire, and forget one who has nothing.

        Cost: one round trip. Script: lua/note_owner.lua.
        """
        keys = self._keys
        documents = [keys.owner_documents(owner_id, kind) for kind in SWEPT_KINDS]
        names = [keys.owners, keys.owner_tasks(owner_id), *documents]
        await self._connection.script("note_owner", names, [owner_id])
