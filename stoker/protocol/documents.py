"""Durable documents with compare-and-set: flows, their runs, agents, chats. Each has one owner.

A document is a body (JSON) with a revision, and parts beside it: texts by name, for what grows and is seldom read
whole. Whoever changes it says which revision he read; of two writers one wins, and the other reads again.

A document that is under way has a time at which the jobs look at it whatever happened (`due_s`), so that nothing
that was lost on the way stays lost.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from stoker.core.errors import DocumentChanged, NotFound, ProtocolRefusal
from stoker.core.ids import check_name, new_id
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.pages import page_of
from stoker.protocol.streams import mapping
from stoker.protocol.sweeping import sweep

_encode = msgspec.json.Encoder().encode
DUE_LATER_S: Final = 60.0
"""When a document is looked at again that was just looked at, and did not change."""
DUE_BATCH: Final = 500


class Document(Struct, frozen=True, kw_only=True):
    """A document as read. Revisions count from 1; one that is not there yet has 0."""

    kind: str
    id: str
    owner_id: str
    revision: int
    body: bytes
    created_ms: int = 0
    updated_ms: int = 0


class Change(Struct, frozen=True, kw_only=True):
    """What to write."""

    body: bytes  # JSON
    parts: Mapping[str, str] = {}  # "" removes one; those that are not named stay
    due_s: float | None = None  # look at it then; None = no more
    wake: bool = False  # and look at it now
    keep_s: float = 0  # forget it then; 0 = until it is deleted


class Due(Struct, frozen=True, kw_only=True):
    """A document that is to be looked at, and when it was found."""

    kind: str
    id: str
    at_ms: int


class Documents:
    """The documents of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def put(self, kind: str, document_id: str, owner_id: str, revision: int, change: Change) -> int:
        """Write a document that has not changed since it was read; its new revision.

        Args:
            revision: that was read; 0 = there was none.

        Raises:
            DocumentChanged: it has another revision now.

        Cost: one round trip. Script: lua/put_document.lua.
        """
        keys = self._keys
        check_name("document", document_id)
        due_ms = -1 if change.due_s is None else int(change.due_s * 1000)
        fields = {"due_ms": due_ms, "keep_ms": int(change.keep_s * 1000), "wake": change.wake}
        try:
            result = await self._connection.script(
                "put_document",
                [
                    keys.document(kind, document_id),
                    keys.document_parts(kind, document_id),
                    keys.owner_documents(owner_id, kind),
                    keys.due_documents,
                    keys.outbox,
                    keys.owners,
                ],
                [
                    f"{kind} {document_id}",
                    revision,
                    new_id(),
                    owner_id,
                    change.body,
                    _encode(change.parts),
                    _encode(fields),
                ],
            )
        except ProtocolRefusal as refusal:
            raise DocumentChanged from refusal
        return int(result[0])

    async def get(self, kind: str, document_id: str) -> Document:
        """One document.

        Raises:
            NotFound: there is none, or its time is over.
        """
        [found] = await self.get_many(kind, [document_id])
        if found is None:
            raise _missing(kind, document_id)
        return found

    async def get_many(self, kind: str, ids: Sequence[str]) -> list[Document | None]:
        """Documents in the order asked, None for one that is not there. Cost: one batch."""
        calls = [self._connection.start("HGETALL", self._keys.document(kind, one)) for one in ids]
        return [_document(kind, one, mapping(await call)) for one, call in zip(ids, calls, strict=True)]

    async def owner(self, kind: str, document_id: str) -> str:
        """Whose a document is.

        Raises:
            NotFound: there is none, or its time is over.
        """
        found = await self._connection.command("HGET", self._keys.document(kind, document_id), "owner")
        if found is None:
            raise _missing(kind, document_id)
        return str(found, "utf-8")

    async def parts(self, kind: str, document_id: str, *names: str) -> dict[str, str]:
        """Parts of a document by name: those that are named and there, or all."""
        key = self._keys.document_parts(kind, document_id)
        if names:
            values = await self._connection.command("HMGET", key, *names)
            return {
                name: value.decode() for name, value in zip(names, values, strict=True) if value is not None
            }
        return _parts(await self._connection.command("HGETALL", key))

    async def whole(self, kind: str, document_id: str) -> tuple[Document, dict[str, str]]:
        """A document and all its parts, which are read after it: they may be newer than it, and are not older.

        Raises:
            NotFound: there is none, or its time is over.

        Cost: one batch.
        """
        head = self._connection.start("HGETALL", self._keys.document(kind, document_id))
        parts = self._connection.start("HGETALL", self._keys.document_parts(kind, document_id))
        document = _document(kind, document_id, mapping(await head))
        found = await parts
        if document is None:
            raise _missing(kind, document_id)
        return document, _parts(found)

    async def page(
        self, kind: str, owner_id: str, cursor: str = "", limit: int = 20
    ) -> tuple[list[str], str]:
        """Ids of an owner's documents, newest first, and the cursor of the next page ('' at the end)."""
        return await page_of(self._connection, self._keys.owner_documents(owner_id, kind), cursor, limit)

    async def count(self, kind: str, owner_id: str) -> int:
        """How many documents an owner's index holds."""
        return int(await self._connection.command("ZCARD", self._keys.owner_documents(owner_id, kind)))

    async def delete(self, kind: str, document_id: str, owner_id: str) -> None:
        """Forget a document; harmless when it is gone."""
        keys = self._keys
        await self._connection.script(
            "delete_document",
            [
                keys.document(kind, document_id),
                keys.document_parts(kind, document_id),
                keys.owner_documents(owner_id, kind),
                keys.due_documents,
            ],
            [f"{kind} {document_id}"],
        )

    async def rest(self, kind: str, document_id: str) -> None:
        """It is over and what followed from that is done: its time comes no more."""
        await self._connection.command("ZREM", self._keys.due_documents, f"{kind} {document_id}")

    async def look_by(self, kind: str, document_id: str, at_ms: int) -> None:
        """Have a document that is under way looked at no later than that, without writing it."""
        await self._connection.command(
            "ZADD", self._keys.due_documents, "XX", "LT", at_ms, f"{kind} {document_id}"
        )

    async def take_due(self, *, everything: bool = False) -> list[Due]:
        """The documents whose time has come, each due again `DUE_LATER_S` later; or all that are under way.

        Raises:
            StoreUnavailable: no answer. Some may be taken: look at everything the next time.
        """
        most = 100 * DUE_BATCH if everything else DUE_BATCH
        later_ms = int(DUE_LATER_S * 1000)
        now, names = await self._connection.script(
            "take_due", [self._keys.due_documents], [most, later_ms, int(everything)], once=True
        )
        due = []
        for name in names:
            kind, _, document_id = name.decode().partition(" ")
            due.append(Due(kind=kind, id=document_id, at_ms=int(now)))
        return due

    async def sweep(self, kind: str, owner_id: str) -> int:
        """Take the expired documents out of an owner's index; how many were taken. Cost: O(n)."""
        keys = self._keys
        index = keys.owner_documents(owner_id, kind)
        return await sweep(self._connection, index, lambda one: keys.document(kind, one))


def _missing(kind: str, document_id: str) -> NotFound:
    return NotFound(f"There is no {kind} {document_id!r}.")


def _parts(reply: Any) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in mapping(reply).items()}


def _document(kind: str, document_id: str, fields: dict[bytes, bytes]) -> Document | None:
    if b"body" not in fields:
        return None
    return Document(
        kind=kind,
        id=document_id,
        owner_id=fields[b"owner"].decode(),
        revision=int(fields[b"revision"]),
        body=fields[b"body"],
        created_ms=int(fields[b"created"]),
        updated_ms=int(fields[b"updated"]),
    )
