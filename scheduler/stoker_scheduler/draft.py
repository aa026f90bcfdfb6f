"""One decision in the making: facts as they would be once the actions so far are carried out.

The queues and the fleet are only read. What this decision has given away already is kept here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from stoker.core.messages import SetupKey, TaskId, WorkerId
from stoker_scheduler.actions import Assign, GroupId, Reason, Start
from stoker_scheduler.eviction import Facts
from stoker_scheduler.fleet import Worker
from stoker_scheduler.matching import explain
from stoker_scheduler.queues import Group, Shape
from stoker_scheduler.residents import Phase


@dataclass(frozen=True, slots=True)
class Begun:
    """A load that this decision starts."""

    worker: Worker
    seconds: float


class Draft:
    """What this decision has assigned so far."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.given: dict[WorkerId, int] = {}  # tasks that a worker got in this decision
        self.given_s: dict[WorkerId, float] = {}  # and how long they take it
        self.evicted: set[tuple[WorkerId, SetupKey]] = set()
        self.begun: dict[SetupKey, list[Begun]] = {}
        self.warm_given: dict[SetupKey, list[Worker]] = {}  # got one warm task; may take another ahead
        self.claims: dict[WorkerId, Group] = {}  # worker -> the first group that waits for it
        self._idle_given: dict[SetupKey, int] = {}  # instances on workers that were idle
        self._taken: dict[GroupId, set[TaskId]] = {}
        self._taken_of_key: dict[SetupKey, int] = {}
        self._used_s: dict[str, float] = {}
        self._scans: dict[tuple[str, SetupKey, Shape], Iterator[Worker]] = {}
        self._ready: dict[tuple[SetupKey, Shape], list[tuple[float, int, Worker]]] = {}
        self._count = count()
        self._explained: dict[Shape, Reason] = {}

    def left(self, group: Group) -> int:
        """How many tasks of a group still wait."""
        return len(group.tasks) - len(self._taken.get(group.id, ()))

    def backlog(self, key: SetupKey) -> int:
        """How many tasks still wait for a setup."""
        return self.facts.queues.backlog(key) - self._taken_of_key.get(key, 0)

    def has_idle(self, key: SetupKey) -> bool:
        """Whether an instance of a setup is idle and was not given away with its worker."""
        return len(self.facts.fleet.idle_with.at(key)) > self._idle_given.get(key, 0)

    def task(self, group: Group, position: int = 0) -> TaskId:
        """The task at a position among those that still wait, or the last one."""
        taken = self._taken.get(group.id, ())
        found = TaskId("")
        for task_id in group.tasks:
            if task_id in taken:
                continue
            found = task_id
            if position == 0:
                break
            position -= 1
        return found

    def head_ms(self, group: Group) -> int:
        """When the oldest task that still waits was created."""
        if group.id not in self._taken:
            return group.head.created_ms
        return group.tasks[self.task(group)].created_ms

    def used_s(self, key_id: str) -> float:
        """The virtual time of an API key."""
        used = self._used_s.get(key_id)
        return self.facts.queues.shares.used_s(key_id) if used is None else used

    def scan(
        self, what: str, group: Group, begin: Callable[[], Iterator[Worker]], fit: Callable[[Worker], bool]
    ) -> Worker | None:
        """The next fitting worker of an index; each is met once a decision: many tasks cost one pass."""
        name = (what, group.setup_key, group.shape)
        workers = self._scans.get(name)
        if workers is None:
            workers = self._scans[name] = begin()
        for worker in workers:
            if worker.id not in self.given and fit(worker):
                return worker
        return None

    def scan_least(
        self,
        group: Group,
        begin: Callable[[], Iterator[Worker]],
        fit: Callable[[Worker], bool],
        cost: Callable[[Worker], float],
        look: int,
    ) -> Worker | None:
        """Of the next `look` idle workers of an index that fit, the one with the least cost; else as `scan`."""
        ready = self._ready.setdefault((group.setup_key, group.shape), [])
        while len(ready) < look and (worker := self.scan("idle", group, begin, fit)) is not None:
            heappush(ready, (cost(worker), next(self._count), worker))
        while ready:
            worker = heappop(ready)[2]
            if worker.id not in self.given:
                return worker
        return None

    def explain(self, shape: Shape) -> Reason:
        """Why nothing could run a shape; worked out once a decision."""
        reason = self._explained.get(shape)
        if reason is None:
            reason = self._explained[shape] = explain(shape, self.facts.fleet)
        return reason

    def claim(self, group: Group, worker_id: WorkerId) -> None:
        """A group waits for a worker; those that come later in line are lower in rank."""
        if worker_id:
            self.claims.setdefault(worker_id, group)

    def record(self, group: Group, assign: Assign, worker: Worker) -> None:
        """Count an assignment as done."""
        key = group.setup_key
        if worker.free and worker.id not in self.given:
            for resident in worker.residents.values():
                if resident.phase is Phase.READY:
                    self._idle_given[resident.setup_key] = self._idle_given.get(resident.setup_key, 0) + 1
        self.given[worker.id] = self.given.get(worker.id, 0) + 1
        self.given_s[worker.id] = self.given_s.get(worker.id, 0.0) + assign.estimate_s
        self.evicted.update((worker.id, gone) for gone in assign.evict)
        self._taken.setdefault(group.id, set()).add(assign.task_id)
        self._taken_of_key[key] = self._taken_of_key.get(key, 0) + 1
        self._used_s[group.key_id] = self.used_s(group.key_id) + assign.estimate_s
        if assign.start is Start.COLD:
            self.begun.setdefault(key, []).append(Begun(worker, assign.estimate_s))
        elif len(worker.held) + self.given[worker.id] <= self.facts.rules.look_ahead:
            self.warm_given.setdefault(key, []).append(worker)
