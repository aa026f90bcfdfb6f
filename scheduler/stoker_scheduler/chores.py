"""What the clock asks of the leader once a second: leases, deadlines, idle instances, second looks."""

import asyncio
from typing import Final

from stoker.core.errors import NoMatchTimeout, QueueTimeout
from stoker.core.events import Event
from stoker.core.messages import EngineId, EvictOrder, TaskId, TaskView
from stoker.core.states import ON_ENGINE, TaskState
from stoker.log import Logger
from stoker.protocol import Store
from stoker_scheduler.deadlines import (
    Deadline,
    deadline_of,
    no_match_text,
    overdue_unmatched,
    queue_timeout_text,
    stuck_text,
)
from stoker_scheduler.eviction import decide_unload
from stoker_scheduler.mirror import Mirror

LOOKS: Final = 64
"""Waiting groups that get a second look each second: times pass, and with them reasons."""
STUCK_CODE: Final = "worker_stuck"
"""Of the error of a task whose last attempt was taken from a worker that did not end it."""
AUDITS: Final = 200
"""Tasks read in one audit."""


class Chores:
    """The clock's work of one leadership, on the loop's mirror."""

    def __init__(self, store: Store, mirror: Mirror, epoch: int, log: Logger) -> None:
        self._store = store
        self._mirror = mirror
        self._epoch = epoch
        self._log = log

    async def reap(self) -> None:
        """Declare engines lost whose lease is over; what they had comes back as events."""
        for engine_id in await self._store.scheduling.expired():
            if await self._store.scheduling.reap(self._epoch, engine_id):
                self._log.warning(Event.LEASE_LOST, engine=engine_id)

    async def fail_late(self, now_ms: int) -> int:
        """End tasks whose time in the queue is over; how many."""
        queues, limits = self._mirror.queues, self._mirror.deadlines.limits
        late: dict[TaskId, tuple[str, str]] = {}
        for task_id in self._mirror.deadlines.due(now_ms):
            group = queues.group_of(task_id)
            if group is not None and limits.queue_deadline_ms(group.tasks[task_id]) <= now_ms:
                waited_s = limits.queue_s(group.tasks[task_id])
                late[task_id] = (QueueTimeout.code, queue_timeout_text(waited_s, group.reason))
        for task_id in overdue_unmatched(now_ms, queues, limits):
            group = queues.group_of(task_id)
            if group is not None:
                waited_s = limits.no_match_s(group.tasks[task_id])
                late.setdefault(task_id, (NoMatchTimeout.code, no_match_text(waited_s, group.reason)))
        await asyncio.gather(*(self._fail(task_id, *why) for task_id, why in late.items()))
        return len(late)

    async def unload(self, now_ms: int) -> int:
        """Tell engines to unload what nobody has used for long, or will use again; how many instances."""
        mirror = self._mirror
        book = mirror.pins
        retired = book.retired = await self._store.secrets.retired()
        evicts = decide_unload(now_ms, mirror.queues, mirror.fleet, mirror.rules, retired, book.keep_alives)
        for evict in evicts:
            order = EvictOrder(worker_id=evict.worker_id, setup_key=evict.setup_key, reason=evict.reason)
            await self._store.scheduling.send(evict.engine_id, order)
            mirror.apply_evict(evict, now_ms)
            self._log.info(
                Event.INSTANCE_EVICTED,
                worker=evict.worker_id,
                setup_key=evict.setup_key,
                reason=evict.reason,
            )
        return len(evicts)

    async def audit(self, now_ms: int) -> int:
        """Look at tasks that an engine has had for long, ever more seldom each; how many were taken back.

        Three things are put right: an assignment that a living engine never started (a lost message), a part of a
        task that takes longer than the task says (an engine that lives and is stuck), and a task that is held
        beyond every limit. The last is not asked while the task's present part has a deadline of its own.
        """
        due = [held for held in self._mirror.fleet.heads() if now_ms >= held.audit_ms][:AUDITS]
        if not due:
            return 0
        views = await self._store.tasks.read_many([held.task_id for held in due], with_logs=False)
        taken, limits = 0, self._mirror.deadlines.limits
        for held, view in zip(due, views, strict=True):
            held.audit_ms = 2 * now_ms - held.assigned_ms
            if view is None or view.attempt != held.attempt or view.state not in ON_ENGINE:
                self._mirror.on_taken_back(held.task_id, now_ms)
                continue
            fetch_s = self._mirror.fleet.fetch_timeout_s(EngineId(view.engine_id))
            if (deadline := deadline_of(view, limits, fetch_s)) is None:
                if why := stuck_text(now_ms, view, limits, fetch_s):
                    taken += await self._take_back(view, why, now_ms)
            elif deadline.at_ms <= now_ms:
                taken += await self._expire(view, deadline, now_ms)
            else:
                held.audit_ms = min(held.audit_ms, deadline.at_ms)
        return taken

    async def _expire(self, view: TaskView, deadline: Deadline, now_ms: int) -> bool:
        task_id = view.request.id
        state = await self._store.scheduling.expire(
            self._epoch, task_id, EngineId(view.engine_id), view.attempt, deadline.code, deadline.text
        )
        self._mirror.on_stuck(task_id, now_ms)
        self._log.warning(Event.TASK_FAILED, task_id=task_id, worker=view.worker_id, reason=deadline.text)
        return state is not None

    async def _take_back(self, view: TaskView, why: str, now_ms: int) -> bool:
        code = "" if view.state is TaskState.SCHEDULED else STUCK_CODE
        state = await self._store.scheduling.requeue(
            self._epoch, view.request.id, EngineId(view.engine_id), view.attempt, why, code=code
        )
        ended = self._mirror.fleet.held(view.request.id)
        if ended is not None:
            self._mirror.on_stuck(view.request.id, now_ms)
        self._log.warning(Event.TASK_REQUEUED, task_id=view.request.id, worker=view.worker_id, reason=why)
        return state is not None

    def look_again(self) -> None:
        """Have the groups decided about whose last look is the longest ago."""
        for group_id in self._mirror.queues.oldest_visited(LOOKS):
            self._mirror.changed.groups[group_id] = None

    async def _fail(self, task_id: TaskId, code: str, text: str) -> None:
        if await self._store.scheduling.fail_queued(self._epoch, task_id, code, text):
            self._log.warning(Event.TASK_FAILED, task_id=task_id, reason=text)
        self._mirror.on_cancelled(task_id)
