"""What sessions ask of the leader: write what the book notes, close what is over, see what has expired."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from stoker.core.errors import SessionNotFound
from stoker.core.events import Event
from stoker.core.messages import EngineId, EvictOrder, SetupKey, TaskId, WorkerId
from stoker.core.sessions import Session, SessionEnd, session_of
from stoker.core.states import ON_ENGINE, TaskState
from stoker.log import Logger
from stoker.protocol import Store
from stoker.protocol.sessions import over_error
from stoker_scheduler.fleet import Worker
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.queues import GROUPS_OF_KEY
from stoker_scheduler.residents import Phase
from stoker_scheduler.sessions import Known

_REASONS: Final = {
    SessionEnd.ENDED: "its session was ended",
    SessionEnd.EXPIRED: "its session has expired",
    SessionEnd.WORKER_LOST: "its session was lost",
}


class SessionChores:
    """The work of one leadership on its mirror's sessions."""

    def __init__(
        self, store: Store, mirror: Mirror, epoch: int, log: Logger, clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._book = mirror.sessions
        self._epoch = epoch
        self._log = log
        self._clock = clock

    async def restore(self) -> None:
        """At the start of a leadership: every session that goes on, and those that queued tasks name."""
        for session in await self._store.sessions.active():
            await self._restore(session)
        await self.run()

    async def run(self) -> None:
        """Read, write and close until nothing of it is left that can be done now."""
        book = self._book
        while book.errands:
            errands = book.take_errands()
            await asyncio.gather(*(self._read(session_id) for session_id in errands.read))
            sessions = self._store.sessions
            await asyncio.gather(
                *(sessions.bind(self._epoch, s, *where) for s, where in errands.bind.items()),
                *(sessions.settle(s, task_id) for task_id, s in errands.settle.items()),
                *(self._end(s, why) for s, why in errands.end.items()),
            )
        for known in book.over():
            await self._close(known)

    async def tick(self) -> None:
        """The clock's part: idle times that are over, workers that are gone, instances without a session."""
        for session_id in await self._store.sessions.idle_over():
            if await self._end(session_id, SessionEnd.EXPIRED):
                self._book.was_ended(session_id, SessionEnd.EXPIRED)
        self._mirror.end_lost_sessions()
        await self.run()
        for worker, key in self._strays():
            await self._evict(worker, key, "its session is over")

    async def _read(self, session_id: str) -> None:
        try:
            session = await self._store.sessions.read(session_id)
        except SessionNotFound:
            self._book.was_ended(session_id, SessionEnd.ENDED)
            return
        if session.end is not None:
            self._book.was_ended(session_id, session.end)
        else:
            await self._restore(session)

    async def _restore(self, session: Session) -> None:
        """Take a session over from Redis, and settle those of its tasks that ended unseen.

        The end of a task that the mirror has on a worker is not unseen: its event comes, and says more.
        """
        self._mirror.restore_session(await self._bound(session))
        views = await self._store.tasks.read_many(session.open_tasks, with_logs=False)
        for task_id, view in zip(session.open_tasks, views, strict=True):
            if self._mirror.fleet.held(task_id) is not None:
                continue
            if view is None or (view.state not in ON_ENGINE and view.state is not TaskState.QUEUED):
                self._book.settle(task_id)

    async def _bound(self, session: Session) -> Session:
        """With the worker of its first task, when the leader that assigned it could not write that down."""
        if session.worker_id:
            return session
        [first] = await self._store.tasks.read_many([session.info.spec.id], with_logs=False)
        if first is None or not first.worker_id:
            return session
        return msgspec.structs.replace(
            session, engine_id=EngineId(first.engine_id), worker_id=WorkerId(first.worker_id)
        )

    async def _end(self, session_id: str, why: SessionEnd) -> bool:
        try:
            return await self._store.sessions.end(session_id, why)
        except SessionNotFound:
            return True

    async def _close(self, known: Known) -> None:
        """Fail what waits; once nothing runs there, give the worker back and unload the instance."""
        mirror, why = self._mirror, known.over or SessionEnd.ENDED
        error = over_error(why)
        groups = list(mirror.queues.of_key(known.key, GROUPS_OF_KEY))
        waiting: list[TaskId] = [task_id for group in groups for task_id in group.tasks]
        for task_id in waiting:
            if await self._store.scheduling.fail_queued(self._epoch, task_id, error.code, error.message):
                self._log.warning(Event.TASK_FAILED, task_id=task_id, reason=error.message)
            mirror.queues.remove(task_id)
            await self._store.sessions.settle(known.id, task_id)
        worker = mirror.fleet.leaseholder(known.key)
        if worker is not None and any(held.setup_key == known.key for held in worker.held):
            return
        mirror.release(known.key)
        self._book.forget(known)
        self._log.info(
            Event.SESSION_OVER, session_id=known.id, worker=known.where and known.where[1], reason=why
        )
        if worker is not None and worker.engine.running:
            await self._evict(worker, known.key, _REASONS[why])

    def _strays(self) -> list[tuple[Worker, SetupKey]]:
        """Instances whose session nobody knows: an order to unload them was lost with its inbox."""
        return [
            (worker, key)
            for worker in self._mirror.fleet.workers.values()
            if worker.engine.available and not worker.held
            for key, resident in worker.residents.items()
            if resident.phase is Phase.READY and session_of(key) and session_of(key) not in self._book
        ]

    async def _evict(self, worker: Worker, key: SetupKey, reason: str) -> None:
        order = EvictOrder(worker_id=worker.id, setup_key=key, reason=reason)
        await self._store.scheduling.send(worker.engine.id, order)
        self._mirror.fleet.stopping(worker, key, self._clock())
        self._log.info(Event.INSTANCE_EVICTED, worker=worker.id, setup_key=key, reason=reason)
