"""The queue as an index: groups of tasks that placement cannot tell apart, found by what may free them.

Nothing here walks the whole queue. A change leads to the groups of a setup key, or to a bounded window of the
groups that a worker could serve; every visit moves a group to the end of its row, so that windows rotate.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from stoker.core.groups import spec_group
from stoker.core.messages import Needs, SetupKey, TaskId, TaskSpec, WorkerId
from stoker.core.sessions import plain_key, session_of
from stoker_scheduler.actions import GroupId, Reason, Why
from stoker_scheduler.shares import Shares

GROUPS_OF_KEY: Final = 32
"""Groups that share a setup and are looked at when one of its workers changes."""
WINDOW: Final = 32
"""Groups that one changed worker leads to, at most, in one look."""
WINDOW_LOWER: Final = 8
"""The same for each lower level of priority."""


class Shape(NamedTuple):
    """What makes a worker fit."""

    needs: Needs
    workers: tuple[str, ...]


_Line = OrderedDict[TaskId, TaskSpec]


@dataclass(slots=True, eq=False)
class Group:
    """Tasks alike in setup, needs, workers, priority and key; oldest first."""

    id: GroupId
    setup_key: SetupKey
    shape: Shape
    priority: int
    key_id: str
    env_key: str
    app: str
    session: str  # the session whose tasks these are, or ''
    warm_key: SetupKey  # what an instance has loaded that can serve them; of a session, its first one
    tasks: _Line = field(default_factory=OrderedDict)
    by_no_match: dict[float, _Line] = field(default_factory=dict)  # the same, apart by that timeout
    reason: Reason | None = None
    unmatched_ms: int = 0  # since when no worker could ever run it; 0 = one could
    waiting_ms: int = 0  # since when some of its tasks wait, whichever; 0 = nobody has looked yet

    @property
    def head(self) -> TaskSpec:
        return next(iter(self.tasks.values()))


_Row = OrderedDict[GroupId, Group]


class Queues:
    """All waiting tasks."""

    def __init__(self) -> None:
        self.shares = Shares()
        self._groups: dict[GroupId, Group] = {}
        self._group_of: dict[TaskId, Group] = {}
        self._by_key: dict[SetupKey, dict[GroupId, Group]] = {}
        self._backlog: dict[SetupKey, int] = {}
        self._rows: dict[Shape, dict[int, _Row]] = {}
        self._named: dict[str, dict[Shape, None]] = {}
        self._unnamed: dict[Shape, None] = {}
        self._claims: dict[WorkerId, GroupId] = {}
        self._unmatched: dict[GroupId, None] = {}
        self._round: OrderedDict[GroupId, None] = OrderedDict()

    # What a decision reads.

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._group_of

    def group(self, group_id: GroupId) -> Group | None:
        return self._groups.get(group_id)

    def group_of(self, task_id: TaskId) -> Group | None:
        return self._group_of.get(task_id)

    def groups(self) -> Iterator[Group]:
        """All groups; for display and start-up, never for a decision."""
        return iter(self._groups.values())

    def backlog(self, key: SetupKey) -> int:
        """How many tasks wait for a setup."""
        return self._backlog.get(key, 0)

    def of_key(self, key: SetupKey, limit: int) -> Iterator[Group]:
        """Groups that wait for a setup."""
        return islice(self._by_key.get(key, {}).values(), limit)

    def claimant(self, worker_id: WorkerId) -> Group | None:
        """The first group in rank that waits for this very worker."""
        group = self._groups.get(self._claims.get(worker_id, GroupId("")))
        if group is None or group.reason is None or group.reason.worker_id != worker_id:
            return None
        return group

    def shapes(self, names: Iterable[str]) -> Iterator[Shape]:
        """Shapes that name no worker, then those that name one of `names`."""
        yield from self._unnamed
        for name in names:
            yield from self._named.get(name, ())

    def window(self, shape: Shape, skip: Callable[[GroupId], bool]) -> Iterator[Group]:
        """A bounded look at the groups of a shape, each level of priority from its least lately visited."""
        levels = self._rows.get(shape, {})
        for rank, level in enumerate(sorted(levels, reverse=True)):
            fresh = (group for group_id, group in levels[level].items() if not skip(group_id))
            yield from islice(fresh, WINDOW if rank == 0 else WINDOW_LOWER)

    def oldest_visited(self, limit: int) -> list[GroupId]:
        """Groups whose last visit is the longest ago: the clock's share of decisions."""
        return list(islice(self._round, limit))

    def unmatched(self) -> list[Group]:
        """Groups that no known worker could ever run."""
        return [self._groups[group_id] for group_id in self._unmatched]

    # What events and actions change.

    def add(self, spec: TaskSpec, *, front: bool = False) -> GroupId:
        """Queue a task; one that is queued already stays where it is. `front`: it was first once before."""
        known = self._group_of.get(spec.id)
        if known is not None:
            return known.id
        group_id = GroupId(spec_group(spec))
        group = self._groups.get(group_id) or self._new_group(group_id, spec)
        alike = group.by_no_match.setdefault(spec.no_match_timeout_s, OrderedDict())
        oldest = next(iter(alike.values()), spec)
        group.tasks[spec.id] = alike[spec.id] = spec
        if front:
            group.tasks.move_to_end(spec.id, last=False)
        # What waited for its time is first in line and yet the youngest: these lines go by age.
        if front and queued_since_ms(spec) <= queued_since_ms(oldest):
            alike.move_to_end(spec.id, last=False)
        self._group_of[spec.id] = group
        self._backlog[group.setup_key] = self._backlog.get(group.setup_key, 0) + 1
        self.shares.join(group.key_id)
        return group_id

    def remove(self, task_id: TaskId) -> TaskSpec | None:
        """Take a task out, whatever the reason; None when it does not wait."""
        group = self._group_of.pop(task_id, None)
        if group is None:
            return None
        spec = group.tasks.pop(task_id)
        alike = group.by_no_match[spec.no_match_timeout_s]
        del alike[task_id]
        if not alike:
            del group.by_no_match[spec.no_match_timeout_s]
        self.shares.leave(group.key_id)
        left = self._backlog[group.setup_key] - 1
        if left:
            self._backlog[group.setup_key] = left
        else:
            del self._backlog[group.setup_key]
        if group.tasks:
            self._rotate(group)
        else:
            self._drop_group(group)
        return spec

    def waits(self, group_id: GroupId, reason: Reason, now_ms: int) -> None:
        """Record why a group waits, and which worker it waits for."""
        group = self._groups.get(group_id)
        if group is None:
            return
        group.reason = reason
        group.waiting_ms = group.waiting_ms or now_ms
        self._rotate(group)
        if reason.why is Why.NO_MATCH:
            group.unmatched_ms = group.unmatched_ms or now_ms
            self._unmatched[group_id] = None
        else:
            group.unmatched_ms = 0
            self._unmatched.pop(group_id, None)
        if reason.worker_id:
            holder = self.claimant(reason.worker_id)
            if holder is None or _rank(group) < _rank(holder):
                self._claims[reason.worker_id] = group_id

    def _new_group(self, group_id: GroupId, spec: TaskSpec) -> Group:
        shape = Shape(spec.needs, spec.workers)
        group = Group(
            id=group_id,
            setup_key=spec.setup_key,
            shape=shape,
            priority=spec.priority,
            key_id=spec.key_id,
            env_key=spec.env_key,
            app=spec.app,
            session=session_of(spec.setup_key),
            warm_key=plain_key(spec.setup_key),
        )
        self._groups[group_id] = group
        self._round[group_id] = None
        self._by_key.setdefault(group.setup_key, {})[group_id] = group
        self._rows.setdefault(shape, {}).setdefault(group.priority, OrderedDict())[group_id] = group
        if shape.workers:
            for name in shape.workers:
                self._named.setdefault(name, {})[shape] = None
        else:
            self._unnamed[shape] = None
        return group

    def _drop_group(self, group: Group) -> None:
        del self._groups[group.id], self._round[group.id]
        self._unmatched.pop(group.id, None)
        if group.reason is not None and self._claims.get(group.reason.worker_id) == group.id:
            del self._claims[group.reason.worker_id]
        keyed = self._by_key[group.setup_key]
        del keyed[group.id]
        if not keyed:
            del self._by_key[group.setup_key]
        levels = self._rows[group.shape]
        del levels[group.priority][group.id]
        if not levels[group.priority]:
            del levels[group.priority]
        if not levels:
            self._drop_shape(group.shape)

    def _drop_shape(self, shape: Shape) -> None:
        del self._rows[shape]
        self._unnamed.pop(shape, None)
        for name in set(shape.workers):
            del self._named[name][shape]
            if not self._named[name]:
                del self._named[name]

    def _rotate(self, group: Group) -> None:
        self._rows[group.shape][group.priority].move_to_end(group.id)
        self._round.move_to_end(group.id)


def queued_since_ms(spec: TaskSpec) -> int:
    """Since when a task is in the queue: not while it waited for its own time, or for that of its next attempt."""
    return max(spec.created_ms, spec.queued_ms)


def _rank(group: Group) -> tuple[int, int]:
    return -group.priority, group.head.created_ms
