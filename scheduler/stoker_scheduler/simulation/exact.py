"""The best that any policy could do on a small instance, by branch and bound over all placements. Pure.

What is searched is what the engine of the simulation allows: a worker does one thing at a time, a load begins when a
task that needs it is given to the worker, and evicting costs nothing. It knows the future, so that no policy can be
below it, and hardly one will reach it.

1. A plan is, for each worker, its tasks in an order and what it evicts for each load; each task begins as soon as its
   worker is free.  2. Plans are built in the order in which their tasks begin, so that each is built once.  3. What
   cannot become better than the best plan so far is left, and so is a state that was reached at less cost before.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from stoker_scheduler.simulation.engine import SimWorker
from stoker_scheduler.simulation.trace import Request

TASKS_MAX: Final = 10
WORKERS_MAX: Final = 3
STATES_MAX: Final = 100_000
"""States that are looked at before the search is given up: about 20 s, and 100 MB."""
_LESS: Final = 1e-9
"""By how much a plan must be better to count: sums of floats differ in their last digits."""


class Optimum(NamedTuple):
    """The least mean overhead of all plans, in seconds, and the loads of a plan that has it, with their seconds."""

    mean_s: float
    loads: int
    loading_s: float


class _Task(NamedTuple):
    at_s: float
    setup: str
    run_s: float
    load_s: float


class _Place(NamedTuple):
    """A worker in a plan: when it is free, what is loaded there. Workers with equal `kind` are alike."""

    free_s: float
    loaded: tuple[str, ...]
    kind: tuple[int, int]  # bytes, instances


class _TooLarge(Exception):
    """The search has looked at too many states."""


def is_small(tasks: int, workers: int) -> bool:
    """Whether an instance is small enough to be tried."""
    return tasks <= TASKS_MAX and workers <= WORKERS_MAX


def optimum(
    requests: Sequence[Request],
    workers: Sequence[SimWorker],
    load_s: Callable[[int, str], float],
    size_of: Callable[[str], int],
) -> Optimum | None:
    """The optimum, or None when the instance is too large for the search, or a model fits on no worker."""
    if not requests or not is_small(len(requests), len(workers)):
        return None
    sizes = {each.setup: each.vram_bytes or size_of(each.setup) for each in requests}
    if max(sizes.values()) > max(worker.capacity for worker in workers):
        return None
    tasks = [
        _Task(each.at_s, each.setup, each.run_s, each.load_s or load_s(number, each.setup))
        for number, each in enumerate(requests)
    ]
    search = _Search(tasks, sizes)
    try:
        search.visit(
            frozenset(range(len(tasks))),
            [_Place(0.0, (), (worker.capacity, worker.models)) for worker in workers],
            0.0,
            (),
        )
    except _TooLarge:
        return None
    return Optimum(search.best_s / len(tasks), len(search.loads_s), sum(search.loads_s))


class _Search:
    """The best plan so far, and the states that were seen."""

    def __init__(self, tasks: list[_Task], sizes: dict[str, int]) -> None:
        self.best_s = float("inf")
        self.loads_s: tuple[float, ...] = ()
        self._tasks = tasks
        self._sizes = sizes
        self._seen: dict[tuple[frozenset[int], tuple[_Place, ...]], float] = {}

    def visit(
        self, left: frozenset[int], places: list[_Place], cost_s: float, loads_s: tuple[float, ...]
    ) -> None:
        """Complete a plan in every way that may be better than the best one."""
        if not left:
            if cost_s < self.best_s - _LESS:
                self.best_s, self.loads_s = cost_s, loads_s
            return
        wanted = {self._tasks[number].setup for number in left}
        places = sorted(
            each._replace(loaded=tuple(setup for setup in each.loaded if setup in wanted)) for each in places
        )
        if cost_s + self._at_least_s(left, places) >= self.best_s - _LESS:
            return
        state = left, tuple(places)
        if self._seen.get(state, float("inf")) <= cost_s + _LESS:
            return
        self._seen[state] = cost_s
        if len(self._seen) > STATES_MAX:
            raise _TooLarge
        for added_s, number, at, place, load_s in sorted(self._steps(left, places)):
            task = self._tasks[number]
            begin_s = max(task.at_s, places[at].free_s)
            after = [each._replace(free_s=max(each.free_s, begin_s)) for each in places]
            after[at] = place
            self.visit(left - {number}, after, cost_s + added_s, loads_s + load_s)

    def _steps(
        self, left: frozenset[int], places: list[_Place]
    ) -> Iterator[tuple[float, int, int, _Place, tuple[float, ...]]]:
        """What may begin next: (overhead, task, which place, the place afterwards, its load, if any)."""
        for at, place in enumerate(places):
            if at and place == places[at - 1]:
                continue  # alike: one of them is enough
            for number in left:
                task = self._tasks[number]
                begin_s = max(task.at_s, place.free_s)
                if task.setup in place.loaded:
                    after = place._replace(free_s=begin_s + task.run_s)
                    yield begin_s - task.at_s, number, at, after, ()
                    continue
                free_s = begin_s + task.load_s + task.run_s
                for loaded in self._room(place, task.setup):
                    after = place._replace(free_s=free_s, loaded=loaded)
                    yield begin_s + task.load_s - task.at_s, number, at, after, (task.load_s,)

    def _room(self, place: _Place, setup: str) -> Iterator[tuple[str, ...]]:
        """What may be loaded there together with one more instance, without any that need not go."""
        capacity, models = place.kind
        kept: list[set[str]] = []
        for count in range(min(len(place.loaded), models - 1), -1, -1):
            for stay in combinations(place.loaded, count):
                if any(set(stay) <= more for more in kept):
                    continue
                if sum(self._sizes[each] for each in stay) + self._sizes[setup] <= capacity:
                    kept.append(set(stay))
                    yield tuple(sorted((*stay, setup)))

    def _at_least_s(self, left: frozenset[int], places: list[_Place]) -> float:
        """What the tasks that are left cost in any case.

        None begins before a worker is free, and each setup that is loaded nowhere is loaded once.
        """
        free_s = min(place.free_s for place in places)
        loaded = {setup for place in places for setup in place.loaded}
        waits_s = 0.0
        loads: dict[str, float] = {}
        for number in left:
            task = self._tasks[number]
            waits_s += max(0.0, free_s - task.at_s)
            if task.setup not in loaded:
                loads[task.setup] = min(task.load_s, loads.get(task.setup, task.load_s))
        return waits_s + sum(loads.values())
