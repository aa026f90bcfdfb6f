"""What no policy can be expected to beat, and how far the scheduler is from it. Pure."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from stoker_scheduler.simulation.engine import Job, Outcome, SimWorker
from stoker_scheduler.simulation.exact import TASKS_MAX, WORKERS_MAX, optimum

NEVER: Final = float("inf")
UNLIMITED: Final = "no memory limit"
CLAIRVOYANT: Final = "clairvoyant eviction"
EXACT: Final = "exact optimum"
_WHAT: Final = {
    UNLIMITED: "the same policy where everything stays loaded: only first loads, second copies and queues are left",
    CLAIRVOYANT: "the same tasks in the same order on the same workers, evicting what is wanted again last (Belady)",
    EXACT: "the best plan of all, made with the whole future known",
}
_PARKS: Final = "not computed: it knows nothing of instances that are parked"


class Bound(Struct, frozen=True, kw_only=True):
    """A bound, and the distance of the scheduler's policy to it; `note` says why there are no numbers.

    `CLAIRVOYANT` is a good plan, and says how many loads are proven under that placement. The mean of `EXACT` is
    proven for every policy. That of `UNLIMITED` is no theorem: it is one policy's.
    """

    name: str
    what: str
    mean_s: float = 0.0
    loads: int = 0
    loading_h: float = 0.0
    above_s: float = 0.0
    """Mean overhead of the policy less that of the bound."""
    above_h: float = 0.0
    note: str = ""


def bounds_of(
    ours: Outcome,
    unlimited: Outcome,
    empty: Sequence[SimWorker],
    load_s: Callable[[int, str], float],
    size_of: Callable[[str], int],
) -> list[Bound]:
    """The bounds of a run.

    Args:
        ours: the run that is held against them.
        unlimited: the same one where everything stays loaded.
        empty: the workers without any instance.
        load_s: seconds that a load takes, by the number of the request that causes it and its setup.
        size_of: bytes of an instance, by setup, for requests that do not say so.
    """
    mean_s = _mean_s(ours.jobs)
    above_h = ours.loading_s / 3600

    def bound(name: str, at_s: float, loads: int, loading_s: float) -> Bound:
        return Bound(
            name=name,
            what=_WHAT[name],
            mean_s=at_s,
            loads=loads,
            loading_h=loading_s / 3600,
            above_s=mean_s - at_s,
            above_h=above_h - loading_s / 3600,
        )

    limitless = bound(UNLIMITED, _mean_s(unlimited.jobs), unlimited.loads, unlimited.loading_s)
    if any(worker.host.capacity for worker in empty):
        return [
            limitless,
            *(Bound(name=name, what=_WHAT[name], note=_PARKS) for name in (CLAIRVOYANT, EXACT)),
        ]
    found = [
        limitless,
        replace(
            bound(CLAIRVOYANT, *clairvoyant(ours, load_s)),
            what=f"{_WHAT[CLAIRVOYANT]}; without {least_loads(ours)} loads none can do",
        ),
    ]
    requests = [job.request for job in ours.jobs]
    best = optimum(requests, empty, load_s, size_of)
    if best is None:
        note = (
            f"too large for the exact solver: {len(requests)} tasks on {len(empty)} workers; it takes "
            f"about {TASKS_MAX} on {WORKERS_MAX}"
        )
        return [*found, Bound(name=EXACT, what=_WHAT[EXACT], note=note)]
    return [*found, bound(EXACT, *best)]


def clairvoyant(outcome: Outcome, load_s: Callable[[int, str], float]) -> tuple[float, int, float]:
    """(mean overhead, loads, seconds of loading) of a run that is played again with eviction that knows the future.

    Each worker runs what it ran, in that order; each task begins as soon as it is there and its worker is free. Fewest
    loads are not always least waiting, and where sizes differ no rule has the fewest: so each worker has the best of
    three plans, by the next use (Belady), by the next use and the size, and the one of the run itself.
    """
    overhead_s, loads, loading_s = 0.0, 0, 0.0
    for worker, jobs in by_worker(outcome):
        sizes = sizes_of(jobs)
        setups = [job.request.setup for job in jobs]
        plans = [
            belady(setups, sizes, worker),
            belady(setups, sizes, worker, by_size=True),
            [not job.warm for job in jobs],
        ]
        added_s, added, load = min(_replayed(jobs, misses, load_s) for misses in plans)
        overhead_s += added_s
        loads += added
        loading_s += load
    return overhead_s / len(outcome.jobs), loads, loading_s


def _replayed(
    jobs: Sequence[Job], misses: Sequence[bool], load_s: Callable[[int, str], float]
) -> tuple[float, int, float]:
    """(overhead, loads, seconds of loading) of a worker that runs its jobs as soon as it can."""
    overhead_s, loading_s, free_s = 0.0, 0.0, 0.0
    for job, missed in zip(jobs, misses, strict=True):
        load = (job.request.load_s or load_s(job.number, job.request.setup)) if missed else 0.0
        began_s = max(free_s, job.request.at_s) + load
        free_s = began_s + job.request.run_s
        overhead_s += began_s - job.request.at_s
        loading_s += load
    return overhead_s, sum(misses), loading_s


def least_loads(outcome: Outcome) -> int:
    """Loads without which no eviction can do, for the same tasks in the same order on each worker.

    Where sizes differ, all count as the least: a worker is taken to hold as many as its smallest ones.
    """
    total = 0
    for worker, jobs in by_worker(outcome):
        sizes = sizes_of(jobs)
        alike = SimWorker(worker.id, 1, _places(worker, sizes))
        total += sum(belady([job.request.setup for job in jobs], dict.fromkeys(sizes, 0), alike))
    return total


def belady(
    sequence: Sequence[str], sizes: dict[str, int], worker: SimWorker, *, by_size: bool = False
) -> list[bool]:
    """Which of a sequence of setups must be loaded when what goes is what is wanted again last (Belady 1966).

    No other eviction needs fewer loads where all sizes are equal. `by_size`: what is large goes sooner.
    """
    following: list[float] = [NEVER] * len(sequence)
    seen: dict[str, int] = {}
    for number in range(len(sequence) - 1, -1, -1):
        following[number] = seen.get(sequence[number], NEVER)
        seen[sequence[number]] = number
    weight = {setup: size if by_size else 1 for setup, size in sizes.items()}
    loaded: dict[str, float] = {}
    misses: list[bool] = []
    for number, setup in enumerate(sequence):
        misses.append(setup not in loaded)
        if misses[-1]:
            used = sum(sizes[each] for each in loaded)
            while loaded and (len(loaded) >= worker.models or used + sizes[setup] > worker.capacity):
                last = max(loaded, key=lambda known: ((loaded[known] - number) * weight[known], known))
                used -= sizes[last]
                del loaded[last]
        loaded[setup] = following[number]
    return misses


def by_worker(outcome: Outcome) -> list[tuple[SimWorker, list[Job]]]:
    """What each worker ran, in order."""
    jobs: dict[str, list[Job]] = defaultdict(list)
    for job in sorted(outcome.jobs, key=lambda job: (job.began_s, job.assigned_s, job.number)):
        jobs[job.worker].append(job)
    return [(worker, jobs[worker.id]) for worker in outcome.workers]


def sizes_of(jobs: Sequence[Job]) -> dict[str, int]:
    """Bytes by setup."""
    return {job.request.setup: job.size for job in jobs}


def _places(worker: SimWorker, sizes: dict[str, int]) -> int:
    """How many instances it could hold at most: its smallest ones."""
    used, places = 0, 0
    for size in sorted(sizes.values()):
        used += size
        if used > worker.capacity:
            break
        places += 1
    return max(1, min(places, worker.models))


def _mean_s(jobs: Sequence[Job]) -> float:
    return sum(job.overhead_s for job in jobs) / len(jobs)
