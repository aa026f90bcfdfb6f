"""`stoker simulate`: the scheduler's decisions on a trace, in virtual time, and what other rules would give."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from stoker.core.errors import InvalidRequest
from stoker_cli.output import JsonFlag, out, print_json, print_table
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.compare import OURS, POLICIES, UNLIMITED, compare, sweep
from stoker_scheduler.simulation.engine import Outcome
from stoker_scheduler.simulation.fleet_file import FleetFile, Machine, read_fleet
from stoker_scheduler.simulation.page import page
from stoker_scheduler.simulation.summary import Summary
from stoker_scheduler.simulation.trace import faster, read_trace

DEFAULT_FLEET: Final = FleetFile(machines=(Machine(count=8, vram_gb=24),))
SWEEP_MAX: Final = 64
_SWEEP: Final = re.compile(r"workers=(\d+)\.\.(\d+)(?::(\d+))?")


def simulate(
    trace: Annotated[Path, typer.Argument(help="CSV or JSON lines; see docs/simulation.md.")],
    fleet: Annotated[
        Path | None, typer.Option(help="YAML of the workers; default: 8 with 24 GB each.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.001, help="Arrivals so many times as fast as recorded.")
    ] = 1.0,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(POLICIES)}; default: all.")
    ] = None,
    sweep_over: Annotated[
        str, typer.Option("--sweep", help="workers=4..16, or 4..16:4 in steps: what more workers would give.")
    ] = "",
    html: Annotated[Path | None, typer.Option(help="Write a report with charts here.")] = None,
    seed: Annotated[int, typer.Option(help="For loads and sizes that are drawn.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Play a trace with the scheduler's policy and with simpler ones, and compare.

    Exit status 2 when the trace, the fleet or an option cannot be used.
    """
    requests = faster(read_trace(trace), speed)
    machines = read_fleet(fleet) if fleet else DEFAULT_FLEET
    if sweep_over:
        found = sweep(requests, machines, counts(sweep_over), Rules(), seed)
        _print(found, json=json, by_workers=True)
        return
    drawn: dict[str, Outcome] = {}

    def on_done(summary: Summary, outcome: Outcome) -> None:
        if summary.policy in {OURS, "wait-or-load"}:
            drawn[summary.policy] = outcome
        if not json:
            out.print(f"[dim]{summary.policy}: done[/]")

    found = compare(requests, machines, policy or POLICIES, Rules(), seed, on_done)
    _print(found, json=json, by_workers=False)
    if html is not None:
        title = f"{trace.name}: {len(requests)} tasks on {machines.workers} workers"
        html.write_text(page(title, found, drawn, OURS, UNLIMITED), encoding="utf-8")
        if not json:
            out.print(f"report: {html}")


def counts(text: str) -> Iterable[int]:
    """The numbers of workers that `--sweep` asks for.

    Raises:
        InvalidRequest: it is not ``workers=4..16`` or ``workers=4..16:4``, or asks for too many runs.
    """
    match = _SWEEP.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"--sweep '{text}' is not of the form workers=4..16, or workers=4..16:4")
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if not 0 < first <= last or step < 1 or (last - first) // step >= SWEEP_MAX:
        raise InvalidRequest(f"--sweep '{text}': from 1 upwards, and {SWEEP_MAX} runs at most")
    return range(first, last + 1, step)


def _print(found: list[Summary], *, json: bool, by_workers: bool) -> None:
    if json:
        print_json([msgspec.to_builtins(each) for each in found])
        return
    first = "workers" if by_workers else "policy"
    heads = (
        first,
        "warm",
        "mean s",
        "p50",
        "p95",
        "p99",
        "max",
        "loads",
        "loading h",
        "evicted",
        "came back",
        "Jain",
    )
    rows: list[tuple[Any, ...]] = []
    for each in found:
        times = each.overhead
        numbers = (times.mean, times.p50, times.p95, times.p99, times.max)
        rows.append(
            (
                str(each.workers) if by_workers else each.policy,
                f"{each.warm:.1%}",
                *(f"{number:.1f}" for number in numbers),
                str(each.loads),
                f"{each.loading_h:.1f}",
                str(each.evictions),
                str(each.returns),
                f"{each.jain:.2f}",
            )
        )
    print_table("seconds: all of a task's time but its execution", heads, rows, empty="no task")
    if not by_workers:
        ours = next((each for each in found if each.policy == OURS), None)
        if ours is not None:
            if ours.unparks:
                out.print(f"[dim]{OURS}: {ours.unparks} tasks had their instance back from being parked.[/]")
            out.print(
                f"[dim]{OURS}: {ours.loads} loads; a clairvoyant eviction needs {ours.belady_loads} for the same tasks "
                f"on the same workers. The last row is a bound: everything stays loaded.[/]"
            )
