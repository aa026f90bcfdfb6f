"""The decision: which waiting tasks go to which workers now, and why the others wait.

Pure: facts in, actions out. No Redis, no clock, no randomness, no logging; the arguments are not changed. A
decision visits the groups that the change touches, never the whole queue.

Order of groups: priority (waiting raises it in steps), then groups whose instance is warm or that are past their age
cap, then keys within their fair share before those that are ahead of it, then the key that had the least worker time,
then the oldest. Warm starts go first because an idle worker that was given away for a load costs whoever could have
started there, and the age cap bounds what others wait for it.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from stoker.core.messages import SetupKey, WorkerId
from stoker_scheduler.actions import Action, Assign, Changed, GroupId, Rules, Start, Wait
from stoker_scheduler.draft import Draft
from stoker_scheduler.eviction import Facts
from stoker_scheduler.fleet import Fleet, Worker
from stoker_scheduler.knowledge import Knowledge
from stoker_scheduler.matching import admits
from stoker_scheduler.placement import is_short, is_startable, place
from stoker_scheduler.queues import GROUPS_OF_KEY, Group, Queues, Shape

VISITS_MAX: Final = 2_048
"""Groups that one decision may visit; the others are visited by the next ones."""

_Order = tuple[int, bool, bool, float, int, str]

DEFAULT_RULES: Final = Rules()


def decide(
    now_ms: int,
    queues: Queues,
    fleet: Fleet,
    knowledge: Knowledge,
    changed: Changed,
    rules: Rules = DEFAULT_RULES,
) -> tuple[Action, ...]:
    """Decide about what `changed` touches.

    Args:
        now_ms: the time, wall clock.
        changed: groups with new tasks, and workers that joined, became free, or carry other instances.

    Returns:
        Assignments in the order to carry them out, then one Wait for each group that was looked at and
        still has tasks. Nothing for a group that was not looked at.
    """
    draft = Draft(Facts(now_ms, queues, fleet, knowledge, rules))
    visited: dict[GroupId, None] = {}
    assigns: list[Assign] = []
    waits: list[Wait] = []
    groups = _touched(draft, changed)
    while groups:
        visited.update((group.id, None) for group in groups)
        found, left = _settle(draft, groups, changed)
        assigns += found
        waits += left
        # Where tasks went, further groups may find a free worker: look on until nothing moves.
        groups = _further(draft, changed, visited) if found and len(visited) < VISITS_MAX else []
    return (*assigns, *waits)


def _settle(draft: Draft, groups: list[Group], changed: Changed) -> tuple[list[Assign], list[Wait]]:
    """Give each group its turn, in order, until none of them can start a task.

    Groups that a free worker led to have nothing to gain once it is taken; they are left as they were.
    """
    free = {worker_id for worker_id in changed.workers if _servable(draft, worker_id) is not None}
    fair_s = min(draft.used_s(group.key_id) for group in groups)
    line = [(_order(draft, group, fair_s), group) for group in groups]
    heapify(line)
    assigns: list[Assign] = []
    waits: list[Wait] = []
    while line:
        _, group = heappop(line)
        if not free and group.id not in changed.groups:
            continue
        placed = place(group, draft)
        if isinstance(placed, Wait):
            waits.append(placed)
            draft.claim(group, placed.reason.worker_id)
            continue
        assign, worker = placed
        draft.record(group, assign, worker)
        assigns.append(assign)
        if assign.start is not Start.WARM or not is_short(group.setup_key, draft.facts):
            free.discard(worker.id)
        if draft.left(group):
            heappush(line, (_order(draft, group, fair_s), group))
    return assigns, waits


def _order(draft: Draft, group: Group, fair_s: float) -> _Order:
    rules = draft.facts.rules
    created_ms = draft.head_ms(group)
    waited_s = (draft.facts.now_ms - created_ms) / 1000
    used_s = draft.used_s(group.key_id)
    ahead = used_s > fair_s + rules.fair_slack_s
    raised = 0 if ahead else int(waited_s // rules.priority_step_s)
    later = waited_s <= rules.age_cap_s and not is_startable(group, draft)
    return (-(group.priority + raised), later, ahead, used_s, created_ms, group.id)


def _touched(draft: Draft, changed: Changed) -> list[Group]:
    """The groups that a change may have freed: its own, and those that its workers could serve."""
    queues = draft.facts.queues
    found: dict[GroupId, Group] = {}
    for group_id in changed.groups:
        group = queues.group(group_id)
        if group is not None:
            found[group_id] = group
    for worker_id in changed.workers:
        claimant = queues.claimant(worker_id)
        if claimant is not None:
            found[claimant.id] = claimant
        for key in _servable(draft, worker_id) or ():
            found.update((group.id, group) for group in queues.of_key(key, GROUPS_OF_KEY))
    _look(draft, changed, found, found)
    return list(found.values())


def _further(draft: Draft, changed: Changed, visited: dict[GroupId, None]) -> list[Group]:
    found: dict[GroupId, Group] = {}
    _look(draft, changed, found, visited)
    return list(found.values())


def _look(
    draft: Draft,
    changed: Changed,
    found: dict[GroupId, Group],
    skip: dict[GroupId, Group] | dict[GroupId, None],
) -> None:
    """Add a window of the groups that the changed workers could serve; once a kind, or a name."""
    queues = draft.facts.queues
    seen: set[tuple[Shape, object]] = set()
    for worker in _idle(draft, changed):
        for shape in queues.shapes(worker.names):
            mark = (shape, worker.id if shape.workers else worker.kind)
            if mark in seen or not admits(shape, worker):
                continue
            seen.add(mark)
            for group in queues.window(shape, skip.__contains__):
                found[group.id] = group


def _servable(draft: Draft, worker_id: WorkerId) -> list[SetupKey] | None:
    """The setups that a worker could serve without loading, or None when it has no place for a task.

    An idle worker serves its residents, a leased one its session alone; a busy one takes a task only behind
    its own short ones.
    """
    worker = draft.facts.fleet.workers.get(worker_id)
    if worker is None or not worker.engine.available:
        return None
    if worker.lease:
        return None if worker.held or worker_id in draft.given else [worker.lease]
    if not worker.available:
        return None
    if not worker.held:
        return list(worker.residents)
    key = worker.held[0].setup_key
    room = len(worker.held) + draft.given.get(worker_id, 0) <= draft.facts.rules.look_ahead
    return [key] if room and is_short(key, draft.facts) else None


def _idle(draft: Draft, changed: Changed) -> list[Worker]:
    """Changed workers that have nothing to do yet."""
    found = map(draft.facts.fleet.workers.get, changed.workers)
    return [w for w in found if w and w.free and w.available and w.id not in draft.given]
