"""What the gateway asks: submit, read, cancel, list, delete."""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from stoker.core.errors import Conflict, NotFound, ProtocolRefusal, Unauthorized
from stoker.core.explanations import Explanation
from stoker.core.groups import spec_group
from stoker.core.messages import (
    CANCEL_GRACE_MS,
    DeltaBatch,
    EngineId,
    Owner,
    TaskId,
    TaskRequest,
    TaskSpec,
    TaskView,
)
from stoker.core.sessions import SessionInfo
from stoker.core.states import ON_ENGINE, TaskState
from stoker.protocol.admission import ANY_ROOM, Repeat, Room, submit_error
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.pages import Place, beyond
from stoker.protocol.streams import entries, mapping
from stoker.protocol.sweeping import sweep
from stoker.protocol.task_hash import (
    STANDING_FIELDS,
    Standing,
    is_looked_at,
    moves_of,
    queue_reason,
    standing_of,
    view_of,
)
from stoker.protocol.task_logs import Tail, TaskLogs, engine_of
from stoker.protocol.tokens import new_token

_CANCEL_TRIES = 5
"""A task can change its engine between the read and the script; each try meets it at its new one."""

_encode = msgspec.json.Encoder().encode
_WHY = b"why:"
_owner = msgspec.json.Decoder(Owner)
_spec = msgspec.json.Decoder(TaskSpec)
_explanation = msgspec.json.Decoder(Explanation)
_raws = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


class Tasks:
    """The tasks of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._logs = TaskLogs(connection, keys)

    async def submit(
        self,
        request: TaskRequest,
        spec: TaskSpec,
        owner: Owner,
        *,
        retention_s: float = 0,
        repeat: Repeat | None = None,
        room: Room = ANY_ROOM,
        session: SessionInfo | None = None,
    ) -> TaskId:
        """Queue a task; once this returns it is not lost.

        Args:
            retention_s: how long the task is kept after its end; 0 = until it is deleted.
            repeat: a second request with the same key and body gives the first task again.
            room: how many tasks may wait.
            session: the session that the task opens; a later task of one has the id in its request alone.

        Returns:
            The id of the task, the first one's for a repeat.

        Raises:
            Conflict: the idempotency key came with another request before.
            KeyQueueFull, QueueFull: no room; a repeat of an accepted request needs none.
            SessionNotFound, SessionExpired, SessionEnded, WorkerLost: the task's session does not go on.
            StoreUnavailable: no answer; safe to repeat with the same request.

        Cost: one round trip, O(log n) of the queue. Script: lua/submit.lua, lua/call.lua.
        """
        keys = self._keys
        fields = task_fields(request, spec, owner, retention_s, repeat, room)
        names = [
            keys.task(request.id),
            keys.task_events(request.id),
            keys.control(request.id),
            keys.pending,
            keys.wake,
            keys.owner_tasks(owner.user_id),
            keys.idempotency(owner.user_id, repeat.key if repeat else ""),
        ]
        arguments: list[str | bytes] = [
            request.id,
            _encode(request),
            _encode(spec),
            _encode(owner),
            _encode(fields),
            repeat.body_hash if repeat else "",
        ]
        if not request.session_id:
            names += [keys.queued, keys.delayed, keys.owners]
        else:
            names += [
                keys.session(request.session_id),
                keys.session_tasks(request.session_id),
                keys.sessions,
                keys.queued,
                keys.delayed,
                keys.owners,
            ]
            arguments += [request.session_id, _encode(session) if session else ""]
        try:
            result = await self._connection.script(
                "call" if request.session_id else "submit", names, arguments
            )
        except ProtocolRefusal as refusal:
            raise submit_error(refusal, repeat, room) from refusal
        return TaskId(result[0].decode())

    async def first_of(self, owner: Owner, repeat: Repeat) -> TaskId | None:
        """The task that a request was accepted as before; None when it was not, or not with this body."""
        key = self._keys.idempotency(owner.user_id, repeat.key)
        task_id, body = await self._connection.command("HMGET", key, "task", "body")
        return TaskId(task_id.decode()) if body == repeat.body_hash.encode() else None

    async def read(self, task_id: TaskId, *, with_logs: bool = True) -> TaskView:
        """One task.

        Raises:
            NotFound: no such task, or its retention is over.
        """
        view = (await self.read_many([task_id], with_logs=with_logs))[0]
        if view is None:
            raise NotFound("Task not found")
        return view

    async def read_many(self, task_ids: Sequence[TaskId], *, with_logs: bool = True) -> list[TaskView | None]:
        """Tasks in the order asked, None for an unknown one and for one that a worker made unreadable.

        Cost: one batch, one more for logs, one more for the reasons of those that wait.
        """
        connection, keys = self._connection, self._keys
        calls = [connection.start("HGETALL", keys.task(task_id)) for task_id in task_ids]
        hashes = [mapping(await call) for call in calls]
        tails = {
            task_id: Tail() for task_id, fields in zip(task_ids, hashes, strict=True) if b"log_last" in fields
        }
        if with_logs and tails:
            await self._logs.read_tails(list(tails.items()))
        reasons = await read_reasons(connection, keys, hashes)
        return [
            view_of(task_id, fields, tails[task_id].lines if task_id in tails else (), reason)
            if b"request" in fields
            else None
            for task_id, fields, reason in zip(task_ids, hashes, reasons, strict=True)
        ]

    async def standings(
        self, task_ids: Sequence[TaskId], *, with_sessions: bool = False
    ) -> dict[TaskId, Standing]:
        """How far tasks have come; without those that are unknown, or made unreadable by a worker.

        Args:
            with_sessions: tell their sessions, for which the whole of each request is read.

        Cost: one batch.
        """
        fields = [*STANDING_FIELDS, *(["request"] if with_sessions else [])]
        calls = [self._connection.start("HMGET", self._keys.task(one), *fields) for one in task_ids]
        replies = [(task_id, await call) for task_id, call in zip(task_ids, calls, strict=True)]
        found = {task_id: standing_of(task_id, values) for task_id, values in replies}
        return {task_id: standing for task_id, standing in found.items() if standing is not None}

    async def known(self, task_id: TaskId) -> bool:
        """Whether there is such a task."""
        return bool(await self._connection.command("HEXISTS", self._keys.task(task_id), "request"))

    async def moves(self, task_ids: Sequence[TaskId]) -> dict[TaskId, tuple[tuple[int, int, int], ...]]:
        """The moves of tasks, (attempt, state, at_ms) in order, of those that are still kept. Cost: one batch."""
        calls = [self._connection.start("HGET", self._keys.task(task_id), "history") for task_id in task_ids]
        found = {task_id: await call for task_id, call in zip(task_ids, calls, strict=True)}
        return {
            task_id: moves_of(raw.decode(errors="replace"))
            for task_id, raw in found.items()
            if raw is not None
        }

    async def owner(self, task_id: TaskId) -> Owner:
        """Who asked for a task.

        Raises:
            NotFound: no such task.
        """
        raw = await self._connection.command("HGET", self._keys.control(task_id), "owner")
        if raw is None:
            raise NotFound("Task not found")
        return _owner.decode(raw)

    async def version_id(self, task_id: TaskId) -> str:
        """Which app version a task was accepted for, from where no engine can write.

        Raises:
            NotFound: no such task.
        """
        return (await self.spec(task_id)).version_id

    async def spec(self, task_id: TaskId) -> TaskSpec:
        """What the scheduler was told of a task, from where no engine can write.

        Raises:
            NotFound: no such task.
        """
        raw = await self._connection.command("HGET", self._keys.control(task_id), "spec")
        if raw is None:
            raise NotFound("Task not found")
        return _spec.decode(raw)

    async def explanations(self, task_id: TaskId) -> dict[int, Explanation]:
        """Attempt -> why it was given to its worker, from where no engine can write.

        Raises:
            NotFound: no such task.
        """
        control = mapping(await self._connection.command("HGETALL", self._keys.control(task_id)))
        if not control:
            raise NotFound("Task not found")
        found = {
            int(name.removeprefix(_WHY)): _explanation.decode(value)
            for name, value in control.items()
            if name.startswith(_WHY)
        }
        return dict(sorted(found.items()))

    async def after(
        self, owner_id: str, place: Place | None, limit: int, *, newer: bool = False
    ) -> tuple[list[tuple[int, TaskId]], bool]:
        """An owner's tasks beyond a place in their list, nearest first; older ones unless `newer`.

        Args:
            place: (created_ms, id) of a task of the list, which may be deleted meanwhile; None = its end.

        Returns:
            At most `limit` places, and whether more may follow. A task may have expired that is still in the list.
        """
        index = self._keys.owner_tasks(owner_id)
        found, more = await beyond(self._connection, index, place, limit, newer=newer)
        return [(at_ms, TaskId(member)) for at_ms, member in found], more

    async def count(self, owner_id: str) -> int:
        """How many tasks an owner's index holds."""
        return int(await self._connection.command("ZCARD", self._keys.owner_tasks(owner_id)))

    async def cancel(
        self, task_id: TaskId, *, force: bool = False, grace_ms: int = CANCEL_GRACE_MS
    ) -> TaskState:
        """End a queued task; ask the engine of a running one to end it. A task that has ended stays as it is.

        Raises:
            NotFound: no such task.
        """
        keys = self._keys
        for _ in range(_CANCEL_TRIES):
            found: bytes | None = await self._connection.command("HGET", keys.task(task_id), "engine")
            engine = EngineId((found or b"").decode())
            try:
                result = await self._connection.script(
                    "cancel",
                    [
                        keys.task(task_id),
                        keys.task_events(task_id),
                        keys.control(task_id),
                        keys.pending,
                        keys.wake,
                        keys.outbox,
                        keys.inbox(engine),
                        keys.engine_tasks(engine),
                        keys.queued,
                        keys.delayed,
                    ],
                    [task_id, engine, int(force), grace_ms],
                )
            except ProtocolRefusal as refusal:
                if refusal.refusal == "TASK_UNKNOWN":
                    raise NotFound("Task not found") from refusal
                continue
            return TaskState(int(result[0]))
        raise Conflict("The task moves between workers just now. Cancel it again.")

    async def delete(self, task_id: TaskId) -> None:
        """Forget a task that has ended.

        Raises:
            NotFound: no such task.
            Conflict: it has not ended.
        """
        owner = await self.owner(task_id)
        keys = self._keys
        try:
            await self._connection.script(
                "delete",
                [
                    keys.task(task_id),
                    keys.task_events(task_id),
                    keys.control(task_id),
                    keys.owner_tasks(owner.user_id),
                    keys.task_deltas(task_id),
                    keys.removal(new_token()),
                ],
                [task_id],
            )
        except ProtocolRefusal as refusal:
            if refusal.refusal == "NOT_ENDED":
                raise Conflict("The task has not ended. Cancel it first.") from refusal
            raise NotFound("Task not found") from refusal

    async def check_token(self, task_id: TaskId, token: str) -> TaskView:
        """The task, when `token` is the secret of its present attempt.

        Which engine and attempt that is, the scheduler has noted where no engine can write.

        Raises:
            NotFound: no such task.
            Unauthorized: the token is another attempt's, or none.
        """
        connection, keys = self._connection, self._keys
        have = connection.start("HGET", keys.task(task_id), "token_hash")
        noted = connection.start("HGETALL", keys.control(task_id))
        view = await self.read(task_id, with_logs=False)
        control = mapping(await noted)
        attempt = control.get(b"attempt", b"0")
        engine_id = engine_of(control.get(b"writer:" + attempt), token)
        digest = hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()
        if (await have or b"").decode() != digest or view.state not in ON_ENGINE:
            raise Unauthorized("This attempt does not own the task")
        return msgspec.structs.replace(view, engine_id=engine_id, attempt=int(attempt))

    async def sweep(self, owner_id: str) -> int:
        """Take the expired tasks out of an owner's index; how many were taken. Cost: O(n)."""
        keys = self._keys
        return await sweep(self._connection, keys.owner_tasks(owner_id), lambda one: keys.task(TaskId(one)))

    async def deltas(self, task_id: TaskId, after: str, count: int) -> list[DeltaBatch]:
        """Increments of a running task's output, in order, as far as they are still kept.

        Args:
            after: `DeltaBatch.id` of the last batch that was read; "0" = from the first that is kept.
            count: batches at most.
        """
        key = self._keys.task_deltas(task_id)
        reply = await self._connection.command("XRANGE", key, f"({after}", "+", "COUNT", count)
        return [
            DeltaBatch(
                id=entry.decode(),
                attempt=int(fields[b"a"]),
                first=int(fields[b"f"]),
                deltas=_raws.decode(fields[b"d"]),
            )
            for entry, fields in entries(reply)
        ]


async def read_reasons(
    connection: Connection, keys: Keys, hashes: Sequence[Mapping[bytes, bytes]]
) -> list[str]:
    """Why each task waits, by its hash; '' for one that does not. Those of one kind wait for the same reason.

    Cost: one round trip, none when the scheduler is to say nothing.
    """
    kinds = sorted({fields.get(b"group", b"") for fields in hashes if is_looked_at(fields)})
    found = await connection.command("HMGET", keys.reasons, *kinds) if kinds else []
    known = {kind: raw.decode() for kind, raw in zip(kinds, found, strict=True) if raw}
    return [queue_reason(fields, known) for fields in hashes]


def task_fields(
    request: TaskRequest, spec: TaskSpec, owner: Owner, retention_s: float, repeat: Repeat | None, room: Room
) -> dict[str, object]:
    """What the scripts that accept a task want to know of it."""
    return {
        "priority": spec.priority,
        "max_attempts": spec.max_attempts,
        "retry_delay_ms": spec.retry_delay_s * 1000,
        "run_at_ms": request.run_at_ms,
        "retention_ms": retention_s * 1000,
        "group": spec_group(spec),
        "notify": request.webhook,
        "waiter": _encode(request.waiter).decode() if request.waiter else "",
        "idempotency_ms": int(repeat.kept_s * 1000) if repeat else 0,
        "queue_limit": room.queue,
        "key_limit": room.key,
        "counted": room.tag(owner.key_id),
    }
