"""Tasks that no worker runs: a document of the jobs does, for instance the flow run of the same id.

To clients they are tasks like any other: states, streams, cancel, webhook, retention.
"""

import msgspec

from stoker.core.errors import NotFound, ProtocolRefusal
from stoker.core.messages import Owner, TaskId, TaskRequest, TaskSpec
from stoker.core.states import TaskState
from stoker.protocol.admission import ANY_ROOM, Repeat, submit_error
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.tasks import task_fields

_encode = msgspec.json.Encoder().encode
_NOTHING = msgspec.Raw(b"null")


class Carried:
    """The tasks of one pool that documents carry."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def begin(
        self,
        request: TaskRequest,
        spec: TaskSpec,
        owner: Owner,
        kind: str,
        *,
        retention_s: float = 0,
        repeat: Repeat | None = None,
    ) -> TaskId:
        """Accept a task, and have the document of this kind and the task's id looked at; it need not exist yet.

        Returns:
            The id of the task, the first one's for a repeat.

        Raises:
            Conflict: the idempotency key came with another request before.
            StoreUnavailable: no answer; safe to repeat with the same request.

        Cost: one round trip. Script: lua/begin.lua.
        """
        keys = self._keys
        try:
            result = await self._connection.script(
                "begin",
                [
                    keys.task(request.id),
                    keys.task_events(request.id),
                    keys.control(request.id),
                    keys.owner_tasks(owner.user_id),
                    keys.idempotency(owner.user_id, repeat.key if repeat else ""),
                    keys.outbox,
                    keys.due_documents,
                    keys.owners,
                ],
                [
                    request.id,
                    _encode(request),
                    _encode(spec),
                    _encode(owner),
                    _encode(task_fields(request, spec, owner, retention_s, repeat, ANY_ROOM)),
                    repeat.body_hash if repeat else "",
                    f"{kind} {request.id}",
                ],
            )
        except ProtocolRefusal as refusal:
            raise submit_error(refusal, repeat, ANY_ROOM) from refusal
        return TaskId(result[0].decode())

    async def carry(
        self,
        task_id: TaskId,
        state: TaskState,
        *,
        output: msgspec.Raw = _NOTHING,
        error: str = "",
        error_code: str = "",
    ) -> TaskState:
        """Move a task to RUNNING, or to its end; the state that it has now. One that has ended stays as it is.

        Raises:
            NotFound: no such task.
            ProtocolRefusal: a worker runs it.

        Script: lua/carry.lua.
        """
        keys = self._keys
        try:
            result = await self._connection.script(
                "carry",
                [keys.task(task_id), keys.task_events(task_id), keys.control(task_id), keys.outbox],
                [task_id, int(state), bytes(output), error, error_code],
            )
        except ProtocolRefusal as refusal:
            if refusal.refusal == "TASK_UNKNOWN":
                raise NotFound("Task not found") from refusal
            raise
        return TaskState(int(result[0]))
