"""What the clock asks of the leader once a second: leases, deadlines, idle instances, second looks."""

import asyncio
from typing import Final

from stoker.core.errors import NoCapacity
from stoker.core.events import Event
from stoker.core.messages import EvictOrder, TaskId
from stoker.log import Logger
from stoker.protocol import Store
from stoker_scheduler.deadlines import no_match_text, overdue_unmatched, queue_timeout_text
from stoker_scheduler.eviction import decide_unload
from stoker_scheduler.mirror import Mirror

LOOKS: Final = 64
"""Waiting groups that get a second look each second: times pass, and with them reasons."""


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
        queues = self._mirror.queues
        late: dict[TaskId, str] = {}
        for task_id in self._mirror.deadlines.due(now_ms):
            group = queues.group_of(task_id)
            if group is not None:
                late[task_id] = queue_timeout_text(group.tasks[task_id], group.reason)
        for task_id in overdue_unmatched(now_ms, queues):
            group = queues.group_of(task_id)
            if group is not None:
                late.setdefault(task_id, no_match_text(group.tasks[task_id], group.reason))
        await asyncio.gather(*(self._fail(task_id, text) for task_id, text in late.items()))
        return len(late)

    async def unload(self, now_ms: int) -> int:
        """Tell engines to unload what nobody has used for long; how many instances."""
        mirror = self._mirror
        evicts = decide_unload(now_ms, mirror.queues, mirror.fleet, mirror.rules)
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

    def look_again(self) -> None:
        """Have the groups decided about whose last look is the longest ago."""
        for group_id in self._mirror.queues.oldest_visited(LOOKS):
            self._mirror.changed.groups[group_id] = None

    async def _fail(self, task_id: TaskId, text: str) -> None:
        if await self._store.scheduling.fail_queued(self._epoch, task_id, NoCapacity.code, text):
            self._log.warning(Event.TASK_FAILED, task_id=task_id, reason=text)
        self._mirror.queues.remove(task_id)
