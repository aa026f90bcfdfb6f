"""What `stoker simulate` prints: the tables of its comparison."""

from collections.abc import Sequence
from typing import Final

from stoker_cli.output import out, print_table
from stoker_scheduler.simulation.bounds import Bound
from stoker_scheduler.simulation.compare import OURS
from stoker_scheduler.simulation.shifts import Interval, Row
from stoker_scheduler.simulation.summary import Summary, Times

_HEADS: Final = (
    "warm", "mean s", "p50", "p95", "p99", "max", "loads", "loading h", "evicted", "came back", "Jain", "worst s",
)  # fmt: skip


def print_summaries(found: Sequence[Summary], *, by_workers: bool) -> None:
    """One row for each policy, or for each number of workers."""
    rows = [(str(each.workers) if by_workers else each.policy, *_cells(each)) for each in found]
    heads = ("workers" if by_workers else "policy", *_HEADS)
    print_table("seconds: all of a task's time but its execution", heads, rows, empty="no task")
    totals = [
        (row[0], *(f"{number:.1f}" for number in _of(each.total)))
        for row, each in zip(rows, found, strict=True)
    ]
    out.print()
    print_table("seconds: a task's total time", (heads[0], *_HEADS[1:6]), totals, empty="no task")


def print_bounds(bounds: Sequence[Bound]) -> None:
    """How far the scheduler's policy is from each bound, and what each is."""
    rows = [
        (
            each.name,
            *(("-",) * 5 if each.note else _numbers(each)),
            each.note or each.what,
        )
        for each in bounds
    ]
    heads = ("bound", "mean s", "loads", "loading h", f"{OURS} above s", "above h", "what it is")
    out.print()
    print_table(f"the bounds, and how far {OURS} is from them", heads, rows, empty="no bound")


def print_shifts(rows: Sequence[Row]) -> None:
    """The comparison over shifts, with the intervals of its differences."""
    cells = [
        (
            row.policy,
            f"{row.warm:.1%}",
            f"{row.mean_s:.2f}",
            f"{row.p95_s:.1f}",
            f"{row.loading_h:.1f}",
            *(("-",) * 4 if row.policy == OURS else _differences(row)),
            "-" if row.policy == OURS else ", ".join(row.better_in) or "nothing",
        )
        for row in rows
    ]
    heads = (
        "policy", "warm", "mean s", "p95 s", "loading h", "mean less ours", "p95 less ours", "loading h less ours",
        "ours lower by", "better than ours in",
    )  # fmt: skip
    title = (
        f"means of {rows[0].shifts} shifts of the arrivals; differences of pairs [95 % interval, Student t]"
    )
    print_table(title, heads, cells, empty="no shift")


def ranged(found: Interval, digits: int = 2) -> str:
    """A mean with its interval, for people."""
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def _differences(row: Row) -> tuple[str, ...]:
    share = row.ours_lower
    percent = Interval(mean=share.mean * 100, low=share.low * 100, high=share.high * 100)
    return (
        ranged(row.mean_diff),
        ranged(row.p95_diff),
        ranged(row.loading_diff),
        f"{ranged(percent, 1)} %",
    )


def _cells(each: Summary) -> tuple[str, ...]:
    return (
        f"{each.warm:.1%}",
        *(f"{number:.1f}" for number in _of(each.overhead)),
        str(each.loads),
        f"{each.loading_h:.1f}",
        str(each.evictions),
        str(each.returns),
        f"{each.jain:.2f}",
        f"{each.worst_overhead_s:.0f}",
    )


def _of(times: Times) -> tuple[float, ...]:
    return (times.mean, times.p50, times.p95, times.p99, times.max)


def _numbers(each: Bound) -> tuple[str, ...]:
    return (
        f"{each.mean_s:.2f}",
        str(each.loads),
        f"{each.loading_h:.1f}",
        f"{each.above_s:+.2f}",
        f"{each.above_h:+.1f}",
    )
