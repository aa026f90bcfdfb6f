"""What runs and what waits, of everybody, for whoever looks after the machines. Reads alone; nothing decides by it."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.messages import TaskId, TaskSpec
from stoker.core.states import TERMINAL, TaskState
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import id_of
from stoker.protocol.task_hash import moves_of
from stoker.protocol.tasks import read_reasons

_FIELDS: Final = ("state", "attempt", "history", "created", "worker", "group", "due")
"""Not why an attempt failed: that may be what an app said about its user's input."""
_LATEST_MS: Final = 10**14
_spec = msgspec.json.Decoder(TaskSpec)


class WorkItem(Struct, frozen=True, kw_only=True):
    """A task that has not ended, in short. `since_ms`: when it entered its state."""

    task_id: TaskId
    app: str
    state: TaskState
    attempt: int
    since_ms: int
    created_ms: int
    worker_id: str = ""
    reason: str = ""  # why it waits
    due_ms: int = 0


class Waiting(Struct, frozen=True, kw_only=True):
    """The head of the queue, in order, then of what waits for a time; and how many there are of each."""

    items: tuple[WorkItem, ...]
    pending: int
    delayed: int


class Work:
    """That of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def waiting(self, limit: int) -> Waiting:
        """At most `limit` tasks that wait, without those that were given to a worker while they were read.

        Cost: three batches, O(limit + log of the queue).
        """
        start, keys = self._connection.start, self._keys
        counts = [start("ZCARD", keys.pending), start("ZCARD", keys.delayed)]
        heads = [start("ZRANGE", index, 0, limit - 1) for index in (keys.pending, keys.delayed)]
        pending, delayed = [int(await count) for count in counts]
        ids = [TaskId(i) for head in heads for member in await head if (i := id_of(member))][:limit]
        items = tuple(item for item in await self.read(ids) if item.state is TaskState.QUEUED)
        return Waiting(items=items, pending=pending, delayed=delayed)

    async def read(self, task_ids: Sequence[TaskId]) -> tuple[WorkItem, ...]:
        """Tasks as they are now, without their inputs and outputs; those that have ended are left out.

        Cost: one batch, one more when some wait.
        """
        start, keys = self._connection.start, self._keys
        calls = [
            (each, start("HMGET", keys.task(each), *_FIELDS), start("HGET", keys.control(each), "spec"))
            for each in task_ids
        ]
        found = [(each, _known(await fields), await spec) for each, fields, spec in calls]
        reasons = await read_reasons(self._connection, self._keys, [fields for _, fields, _ in found])
        items = (
            _item(each, fields, spec, reason)
            for (each, fields, spec), reason in zip(found, reasons, strict=True)
        )
        return tuple(item for item in items if item is not None)


def _known(values: Sequence[bytes | None]) -> dict[bytes, bytes]:
    """What a task has of `_FIELDS`."""
    named = zip(_FIELDS, values, strict=True)
    return {name.encode(): value for name, value in named if value is not None}


def _item(task_id: TaskId, fields: Mapping[bytes, bytes], spec: bytes | None, reason: str) -> WorkItem | None:
    """A task; None when it has ended, is gone, or an engine has put nonsense into it."""
    try:
        state = TaskState(int(fields[b"state"]))
        if spec is None or state in TERMINAL:
            return None
        return WorkItem(
            task_id=task_id,
            app=_spec.decode(spec).app,
            state=state,
            attempt=int(fields[b"attempt"]),
            since_ms=_time(moves_of(fields[b"history"].decode())[-1][2]),
            created_ms=_time(fields[b"created"]),
            worker_id=fields.get(b"worker", b"").decode(),
            reason=reason,
            due_ms=_time(fields.get(b"due") or 0) if state is TaskState.QUEUED else 0,
        )
    except (ValueError, KeyError, IndexError, msgspec.MsgspecError):
        return None


def _time(text: str | bytes | int) -> int:
    """Milliseconds, of a year that calendars know.

    Raises:
        ValueError: it is none.
    """
    at_ms = int(text)
    if not 0 <= at_ms < _LATEST_MS:
        raise ValueError(f"{at_ms} ms is no time")
    return at_ms
