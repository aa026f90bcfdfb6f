"""What a run was worth, in numbers. Pure."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from msgspec import Struct

from stoker_scheduler.simulation.bounds import least_loads
from stoker_scheduler.simulation.engine import Job, Outcome, Span, Stay


class Times(Struct, frozen=True, kw_only=True):
    """Seconds: mean, quantiles, the longest."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class Summary(Struct, frozen=True, kw_only=True):
    """One policy on one trace."""

    policy: str
    tasks: int
    workers: int
    warm: float
    """Share of tasks that found their instance loaded."""
    overhead: Times
    """All of a task's time but the execution: waiting, and loading for it."""
    total: Times
    loads: int
    loading_h: float
    """Hours of GPUs, for loads and for parked instances that came back."""
    evictions: int
    returns: int
    """Loads of what the same worker had evicted less than ten minutes before."""
    belady_loads: int
    """Loads that a clairvoyant eviction would have needed with the same tasks in the same order on each worker."""
    jain: float
    """Fairness between tenants by their mean overhead: 1 = all alike (Jain, Chiu and Hawe 1984)."""
    worst_tenant: str
    worst_overhead_s: float
    unparks: int = 0
    """Tasks whose instance was parked, and came back."""


def summary_of(policy: str, outcome: Outcome) -> Summary:
    """The numbers of a finished run."""
    jobs = outcome.jobs
    by_tenant: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        by_tenant[job.request.tenant].append(job.overhead_s)
    means = {tenant: sum(found) / len(found) for tenant, found in by_tenant.items()}
    worst = max(means, key=lambda tenant: (means[tenant], tenant))
    return Summary(
        policy=policy,
        tasks=len(jobs),
        workers=len(outcome.workers),
        warm=sum(job.warm for job in jobs) / len(jobs),
        overhead=times([job.overhead_s for job in jobs]),
        total=times([job.ended_s - job.request.at_s for job in jobs]),
        loads=outcome.loads,
        loading_h=outcome.loading_s / 3600,
        evictions=outcome.evictions,
        returns=outcome.returns,
        belady_loads=least_loads(outcome),
        jain=jain(list(means.values())),
        worst_tenant=worst,
        worst_overhead_s=means[worst],
        unparks=outcome.unparks,
    )


def times(seconds: Sequence[float]) -> Times:
    """Nearest-rank quantiles."""
    ordered = sorted(seconds)

    def at(percent: int) -> float:
        return ordered[-(-percent * len(ordered) // 100) - 1]  # rounded up, in whole numbers

    mean = sum(ordered) / len(ordered)
    return Times(mean=mean, p50=at(50), p95=at(95), p99=at(99), max=ordered[-1])


def jain(values: Sequence[float]) -> float:
    """Jain's index of some amounts that are better small: 1 when they are equal, 1/n when one has all."""
    square = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * square) if square else 1.0


def waiting_over_time(jobs: Sequence[Job], points: int) -> list[tuple[float, int]]:
    """(time, tasks that wait), the most in each of so many parts of the trace, whether or not anything happens in it."""
    changes: dict[float, int] = defaultdict(int)
    for job in jobs:
        changes[job.request.at_s] += 1
        changes[job.assigned_s] -= 1
    end_s = max(changes) or 1.0
    most = [0] * (points + 1)
    waiting, begun = 0, 0  # parts whose begin has passed
    for at_s in sorted(changes):
        place = at_s / end_s * points
        while begun < place:  # at its begin as many wait as after what happened last
            most[begun] = max(most[begun], waiting)
            begun += 1
        waiting += changes[at_s]
        most[int(place)] = max(most[int(place)], waiting)
    return [(number * end_s / points, count) for number, count in enumerate(most)]


def copies_over_time(
    stays: Sequence[Stay], end_s: float, parts: int, group: Callable[[str], str]
) -> list[dict[str, float]]:
    """How many instances of each group of setups were loaded, on average in each of so many parts of the time."""
    length_s = end_s / parts
    found: list[dict[str, float]] = [defaultdict(float) for _ in range(parts)]
    for stay in stays:
        name = group(stay.setup)
        for part in range(int(stay.begin_s / length_s), min(int(stay.end_s / length_s) + 1, parts)):
            inside_s = min(stay.end_s, (part + 1) * length_s) - max(stay.begin_s, part * length_s)
            found[part][name] += max(0.0, inside_s) / length_s
    return found


def busiest(spans: Sequence[Span], length_s: float) -> tuple[float, float]:
    """The stretch of that length with the most work in it."""
    if not spans:
        return 0.0, length_s
    parts: dict[int, float] = defaultdict(float)
    for span in spans:
        parts[int(span.begin_s // (length_s / 2))] += span.end_s - span.begin_s
    best = max(parts, key=lambda part: (parts[part] + parts.get(part + 1, 0.0), -part))
    return best * length_s / 2, best * length_s / 2 + length_s
