"""The comparison over shifts of the arrivals: differences of pairs, with their 95 % intervals. Pure.

One run is one sample: a trace has rare bursts, and who was better in one of them is no finding. A shift begins the
trace at another place, its first part after its last, so that each burst meets other instances. All policies run on
each shift, with the same loads and sizes, and are compared shift by shift.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.compare import OURS, play
from stoker_scheduler.simulation.fleet_file import FleetFile
from stoker_scheduler.simulation.summary import Summary, summary_of
from stoker_scheduler.simulation.trace import Request, shifted

SHIFTS_MIN: Final = 2
"""One has no interval."""
SHIFTS_MAX: Final = 100
_T_975: Final = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t at 97.5 % for 1 to 10 degrees of freedom (tables; the series below is too coarse there)."""
_NORMAL_975: Final = 1.959964
_LESS: Final = 0.01
"""By how many seconds or hours a mean must be less to be better: what is shown is not finer."""


class Shift(Struct, frozen=True, kw_only=True):
    """One run of the comparison: all that a process needs for it."""

    policy: str
    share: float
    """Where the trace begins, from 0 to 1."""
    requests: tuple[Request, ...]
    fleet: FleetFile
    rules: Rules
    seed: int


class Interval(Struct, frozen=True, kw_only=True):
    """The mean of some differences, and its 95 % interval."""

    mean: float
    low: float
    high: float


class Row(Struct, frozen=True, kw_only=True):
    """A policy over all shifts. Differences are this policy's number less that of the scheduler's on the same shift."""

    policy: str
    shifts: int
    warm: float
    mean_s: float
    p95_s: float
    loading_h: float
    mean_diff: Interval
    p95_diff: Interval
    loading_diff: Interval
    ours_lower: Interval
    """By which share of this policy's mean overhead the scheduler's is lower."""
    better_in: tuple[str, ...]
    """In which of mean, p95 and loading hours this policy is better than the scheduler's, on average."""


def run(shift: Shift) -> Summary:
    """One run."""
    requests = shifted(list(shift.requests), shift.share)
    outcome = play(requests, shift.fleet, shift.policy, shift.rules, shift.seed)
    return summary_of(shift.policy, outcome)


def shifts_of(
    requests: Sequence[Request],
    fleet: FleetFile,
    policies: Iterable[str],
    rules: Rules,
    count: int,
    seed: int = 0,
) -> list[Shift]:
    """The runs of a comparison; the scheduler's policy is always among them."""
    return [
        Shift(
            policy=policy,
            share=number / count,
            requests=tuple(requests),
            fleet=fleet,
            rules=rules,
            seed=seed,
        )
        for number in range(count)
        for policy in dict.fromkeys((*policies, OURS))
    ]


def rows_of(found: Iterable[Summary]) -> list[Row]:
    """The comparison, from the results of `shifts_of` in their order."""
    by_policy: dict[str, list[Summary]] = {}
    for each in found:
        by_policy.setdefault(each.policy, []).append(each)
    ours = by_policy[OURS]
    return [_row(policy, runs, ours) for policy, runs in by_policy.items()]


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval by Student's t, of two values at least."""
    count = len(values)
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = student_t(count - 1) * deviation / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def student_t(degrees: int) -> float:
    """Student's t at 97.5 %; beyond the table by Fisher's series (Abramowitz and Stegun, 26.7.5), to four digits."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = _NORMAL_975
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / float(degrees) ** power for power, term in enumerate(terms))


def _row(policy: str, runs: Sequence[Summary], ours: Sequence[Summary]) -> Row:
    measures: dict[str, Callable[[Summary], float]] = {
        "mean": lambda each: each.overhead.mean,
        "p95": lambda each: each.overhead.p95,
        "loading": lambda each: each.loading_h,
    }
    means = {name: sum(map(of, runs)) / len(runs) for name, of in measures.items()}
    diffs = {
        name: interval([of(his) - of(our) for his, our in zip(runs, ours, strict=True)])
        for name, of in measures.items()
    }
    shares = [
        1 - our.overhead.mean / his.overhead.mean if his.overhead.mean else 0.0
        for his, our in zip(runs, ours, strict=True)
    ]
    return Row(
        policy=policy,
        shifts=len(runs),
        warm=sum(each.warm for each in runs) / len(runs),
        mean_s=means["mean"],
        p95_s=means["p95"],
        loading_h=means["loading"],
        mean_diff=diffs["mean"],
        p95_diff=diffs["p95"],
        loading_diff=diffs["loading"],
        ours_lower=interval(shares),
        better_in=tuple(name for name, diff in diffs.items() if diff.mean < -_LESS),
    )
