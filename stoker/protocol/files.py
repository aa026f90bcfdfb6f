"""The records of stored files. The bytes are in the file store (`stoker.files`).

An output belongs to an attempt of a task and lives as long as that task. A task that names a file in its input
uses it, and so does a flow run: an output that somebody uses outlives its own task.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from stoker.core.errors import NotFound
from stoker.core.ids import may_be_id
from stoker.core.messages import StoredFile, TaskId
from stoker.core.states import TaskState
from stoker.protocol.connection import Arg, Connection
from stoker.protocol.keys import Keys
from stoker.protocol.pages import Place, beyond
from stoker.protocol.streams import pairs

USE_GRACE_MS: Final = 3_600_000
"""A use is noted before its task is stored: until this age it counts although nobody knows the task."""
USERS_AT_ONCE: Final = 1000
"""Users of a file that are looked at together: a file may have any number, and one process few calls at a time."""

_encode = msgspec.json.Encoder().encode
_file = msgspec.json.Decoder(StoredFile)


class Standing(msgspec.Struct, frozen=True):
    """How far a task is, as its files need to know."""

    state: TaskState
    attempt: int


def document_user(kind: str, document_id: str) -> str:
    """A document as a user of files; no id of a task holds a space."""
    return f"{kind} {document_id}"


class Files:
    """Records of stored files."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._call = connection.command
        self._keys = keys

    async def put(self, file: StoredFile) -> None:
        """Store a record, or replace it. The indexes go first: a record is never out of the sweep's reach."""
        keys = self._keys
        await self._batch(
            ("ZADD", keys.files, file.created_ms, file.id),
            ("ZADD", keys.owner_files(file.owner_id), file.created_ms, file.id),
            ("SET", keys.file(file.id), _encode(file)),
        )

    async def get(self, file_id: str) -> StoredFile:
        """One record.

        Raises:
            NotFound: no file has this id.
        """
        raw = await self._call("GET", self._keys.file(file_id)) if may_be_id(file_id) else None
        if raw is None:
            raise NotFound("File not found")
        return _file.decode(raw)

    async def get_many(self, file_ids: Sequence[str]) -> list[StoredFile | None]:
        """Records in the order asked, None for an unknown one."""
        if not file_ids:
            return []
        raw = await self._call("MGET", *map(self._keys.file, file_ids))
        return [None if value is None else _file.decode(value) for value in raw]

    async def after(
        self, owner_id: str, place: Place | None, limit: int, *, newer: bool = False
    ) -> tuple[list[StoredFile], bool]:
        """An owner's files beyond a place in their list, nearest first; older ones unless `newer`.

        Args:
            place: (created_ms, id) of a file of the list, which may be deleted meanwhile; None = its end.

        Returns:
            At most `limit` records, and whether more may follow.
        """
        index = self._keys.owner_files(owner_id)
        places, more = await beyond(self._connection, index, place, limit, newer=newer)
        found = await self.get_many([file_id for _, file_id in places])
        return [file for file in found if file is not None], more

    async def oldest(self, offset: int, limit: int) -> list[str]:
        """Ids of all files of the pool by age, oldest first."""
        raw = await self._call("ZRANGE", self._keys.files, offset, offset + limit - 1)
        return [member.decode() for member in raw]

    async def count(self) -> int:
        """How many records the pool has."""
        return int(await self._call("ZCARD", self._keys.files))

    async def delete(self, file: StoredFile) -> None:
        """Forget a record. Its bytes are deleted first: bytes without a record are found a day later only."""
        keys = self._keys
        await self._batch(
            ("DEL", keys.file(file.id), keys.file_users(file.id)),
            ("ZREM", keys.owner_files(file.owner_id), file.id),
            ("ZREM", keys.files, file.id),
        )

    async def unlist(self, file_id: str) -> None:
        """Take an id without a record out of the sweep's index."""
        await self._call("ZREM", self._keys.files, file_id)

    async def use(self, file_ids: Iterable[str], user: str, now_ms: int) -> None:
        """Note that a task (its id) or a document (`document_user`) names these files. Done before it is stored."""
        await self._batch(*(("ZADD", self._keys.file_users(one), now_ms, user) for one in file_ids))

    async def is_used(self, file_id: str, now_ms: int) -> bool:
        """Whether a task or a document that is kept names this file. Uses by those that are gone are forgotten.

        The oldest come first, and nothing is looked at behind the part in which somebody is left.
        """
        key = self._keys.file_users(file_id)
        while users := pairs(await self._call("ZRANGE", key, 0, USERS_AT_ONCE - 1, "WITHSCORES")):
            names = [member.decode() for member, _ in users]
            calls = [self._connection.start("EXISTS", self._user_key(name)) for name in names]
            gone = [
                name
                for name, call, (_, noted_ms) in zip(names, calls, users, strict=True)
                if not await call and noted_ms + USE_GRACE_MS < now_ms
            ]
            if gone:
                await self._call("ZREM", key, *gone)
            if len(gone) < len(names):
                return True
        return False

    def _user_key(self, name: str) -> str:
        kind, _, document_id = name.rpartition(" ")
        return self._keys.document(kind, document_id) if kind else self._keys.task(TaskId(name))

    async def standings(self, task_ids: Sequence[TaskId]) -> list[Standing | None]:
        """State and attempt of tasks, in one batch; None for one that is gone."""
        start = self._connection.start
        calls = [start("HMGET", self._keys.task(task_id), "state", "attempt") for task_id in task_ids]
        return [_standing(await call) for call in calls]

    async def _batch(self, *commands: tuple[Arg, ...]) -> None:
        """Commands that leave together, in this order."""
        for call in [self._connection.start(*command) for command in commands]:
            await call


def _standing(reply: Sequence[Any]) -> Standing | None:
    state, attempt = reply
    return None if state is None else Standing(TaskState(int(state)), int(attempt or 0))
