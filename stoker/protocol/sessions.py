"""Sessions in Redis: read, keep, bind, settle, end. Their tasks come in by `Tasks.submit`."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stoker.core.errors import (
    ProtocolRefusal,
    SessionEnded,
    SessionExpired,
    SessionNotFound,
    StokerError,
    WorkerLost,
)
from stoker.core.messages import EngineId, TaskId, WorkerId
from stoker.core.sessions import Session, SessionEnd, SessionInfo
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping

KEEP_S: Final = 86_400
"""How long it can be told how a session ended."""

_OVER: Final[dict[SessionEnd, type[StokerError]]] = {
    SessionEnd.ENDED: SessionEnded,
    SessionEnd.EXPIRED: SessionExpired,
    SessionEnd.WORKER_LOST: WorkerLost,
}
_info = msgspec.json.Decoder(SessionInfo)


def session_error(refusal: ProtocolRefusal) -> StokerError:
    """What to raise for a call of a session that is unknown or over; any other refusal as it is."""
    if refusal.refusal == "SESSION_UNKNOWN":
        return SessionNotFound()
    if refusal.refusal != "SESSION_OVER":
        return refusal
    detail = refusal.fields["detail"]
    why = detail[0].decode() if isinstance(detail, list) else ""
    return over_error(SessionEnd(why))


def over_error(end: SessionEnd) -> StokerError:
    """What a call of a session that is over gets."""
    return _OVER[end]()


class Sessions:
    """The sessions of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def read(self, session_id: str) -> Session:
        """One session, active or over.

        Raises:
            SessionNotFound: it never was, or it ended longer than `KEEP_S` ago.
        """
        found = (await self.read_many([session_id]))[0]
        if found is None:
            raise SessionNotFound
        return found

    async def read_many(self, session_ids: Sequence[str]) -> list[Session | None]:
        """Sessions in the order asked, None for an unknown one. Cost: one batch."""
        connection, keys = self._connection, self._keys
        time = connection.start("TIME")
        calls = [
            (
                connection.start("HGETALL", keys.session(session_id)),
                connection.start("SMEMBERS", keys.session_tasks(session_id)),
            )
            for session_id in session_ids
        ]
        seconds, micros = await time
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return [_session(mapping(await fields), await tasks, now_ms) for fields, tasks in calls]

    async def active(self) -> list[Session]:
        """All sessions that are not over, the one that expires first before the others."""
        ids = await self._connection.command("ZRANGE", self._keys.sessions, 0, -1)
        found = await self.read_many([i.decode() for i in ids])
        return [session for session in found if session is not None and session.end is None]

    async def keep(self, session_id: str) -> None:
        """Begin the idle time anew. Script: lua/keep_session.lua.

        Raises:
            SessionNotFound: no such session.
            SessionExpired, SessionEnded, WorkerLost: it is over.
        """
        try:
            await self._connection.script("keep_session", self._names(session_id), [session_id])
        except ProtocolRefusal as refusal:
            raise session_error(refusal) from refusal

    async def end(self, session_id: str, why: SessionEnd) -> bool:
        """Close a session; the scheduler takes its worker back. One that is over stays as it is.

        Returns:
            False when `why` is EXPIRED and its idle time is not over.

        Raises:
            SessionNotFound: no such session.

        Script: lua/end_session.lua.
        """
        names = [*self._names(session_id), self._keys.wake]
        try:
            await self._connection.script("end_session", names, [session_id, why, KEEP_S * 1000])
        except ProtocolRefusal as refusal:
            if refusal.refusal == "SESSION_ACTIVE":
                return False
            raise session_error(refusal) from refusal
        return True

    async def bind(self, epoch: int, session_id: str, engine_id: EngineId, worker_id: WorkerId) -> None:
        """Record which worker a session holds. Nothing happens when the session is unknown.

        Raises:
            ProtocolRefusal: NOT_LEADER.

        Script: lua/bind_session.lua.
        """
        names = [self._keys.session(session_id), self._keys.leader]
        try:
            await self._connection.script("bind_session", names, [epoch, engine_id, worker_id])
        except ProtocolRefusal as refusal:
            if refusal.refusal == "NOT_LEADER":
                raise

    async def settle(self, session_id: str, task_id: TaskId) -> None:
        """A task of a session has ended. Idempotent. Script: lua/settle_session.lua."""
        await self._connection.script("settle_session", self._names(session_id), [session_id, task_id])

    async def idle_over(self) -> list[str]:
        """Sessions whose idle time is over by the server's clock and that were not closed yet."""
        seconds, micros = await self._connection.command("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        raw = await self._connection.command("ZRANGEBYSCORE", self._keys.sessions, "-inf", f"({now_ms}")
        return [i.decode() for i in raw]

    def _names(self, session_id: str) -> list[str]:
        keys = self._keys
        return [keys.session(session_id), keys.session_tasks(session_id), keys.sessions]


def _session(fields: dict[bytes, bytes], tasks: Any, now_ms: int) -> Session | None:
    if b"info" not in fields:
        return None
    info = _info.decode(fields[b"info"])
    open_tasks = tuple(sorted(TaskId(task.decode()) for task in tasks))
    expires_ms, why = int(fields[b"expires"]), fields[b"end"].decode()
    end = SessionEnd(why) if why else None
    if end is None and open_tasks:
        expires_ms = max(expires_ms, now_ms + int(info.idle_s * 1000))
    elif end is None and expires_ms < now_ms:
        end = SessionEnd.EXPIRED  # nobody has closed it yet
    return Session(
        info=info,
        created_ms=int(fields[b"created"]),
        expires_ms=expires_ms,
        end=end,
        ended_ms=int(fields.get(b"ended", expires_ms if end else 0)),
        worker_id=WorkerId(fields[b"worker"].decode()),
        engine_id=EngineId(fields[b"engine"].decode()),
        last_task_id=TaskId(fields[b"task"].decode()),
        last_call_ms=int(fields[b"called"]),
        call_count=int(fields[b"calls"]),
        open_tasks=open_tasks,
    )
