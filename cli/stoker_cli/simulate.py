"""`stoker simulate`: the scheduler's decisions on a trace, in virtual time, and what other rules would give."""

import multiprocessing
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from stoker.core.errors import InvalidRequest
from stoker.service import die_with_parent
from stoker_cli.output import JsonFlag, out, print_json
from stoker_cli.simulation_view import print_bounds, print_shifts, print_summaries
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import UNLIMITED
from stoker_scheduler.simulation.compare import (
    OURS,
    POLICIES,
    check_policies,
    compare,
    distances,
    sweep,
)
from stoker_scheduler.simulation.engine import Outcome
from stoker_scheduler.simulation.fleet_file import FleetFile, Machine, Sizes, measured_loads, read_fleet
from stoker_scheduler.simulation.numbers import GIGABYTES, within
from stoker_scheduler.simulation.page import page
from stoker_scheduler.simulation.shifts import SHIFTS_MAX, SHIFTS_MIN, Row, rows_of, run, shifts_of
from stoker_scheduler.simulation.summary import Summary
from stoker_scheduler.simulation.trace import Request, faster, read_trace

DEFAULT_FLEET: Final = FleetFile(machines=(Machine(count=8, vram_gb=24),))
SWEEP_MAX: Final = 64
_SWEEP: Final = re.compile(r"workers=(\d+)\.\.(\d+)(?::(\d+))?")
_SIZES: Final = re.compile(r"(\d+(?:\.\d+)?)(?:\.\.(\d+(?:\.\d+)?))?")


class LoadsFrom(StrEnum):
    """Where the seconds of a load come from."""

    FIXED = "fixed"
    MEASURED = "measured"


def simulate(
    trace: Annotated[Path, typer.Argument(help="CSV or JSON lines; see docs/simulation.md.")],
    *,
    fleet: Annotated[
        Path | None, typer.Option(help="YAML of the workers; default: 8 with 24 GB each.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.001, help="Arrivals so many times as fast as recorded.")
    ] = 1.0,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(POLICIES)}; default: all. Not with --sweep.")
    ] = None,
    sweep_over: Annotated[
        str, typer.Option("--sweep", help="workers=4..16, or 4..16:4 in steps: what more workers would give.")
    ] = "",
    shifts: Annotated[
        int,
        typer.Option(
            min=0, max=SHIFTS_MAX, help="Compare over so many shifts of the arrivals, with 95 % intervals."
        ),
    ] = 0,
    loads: Annotated[
        LoadsFrom,
        typer.Option(
            help="fixed: as the fleet says; measured: drawn from load_latency_quantiles.csv beside the trace."
        ),
    ] = LoadsFrom.FIXED,
    sizes: Annotated[
        str, typer.Option(help="GB of a model, or a range from which each is drawn: 12, 4..24.")
    ] = "",
    html: Annotated[Path | None, typer.Option(help="Write a report with charts here.")] = None,
    seed: Annotated[int, typer.Option(help="For loads and sizes that are drawn.")] = 0,
    processes: Annotated[
        int, typer.Option(min=0, help="For --shifts; 0 = as many as there are processors.")
    ] = 0,
    json: JsonFlag = False,
) -> None:
    """Play a trace with the scheduler's policy and with simpler ones, and compare.

    Exit status 2 when the trace, the fleet or an option cannot be used.
    """
    check_policies(policy or ())
    _check_options(speed, policy, sweep_over, shifts, html)
    requests = faster(read_trace(trace), speed)
    machines = read_fleet(fleet) if fleet else DEFAULT_FLEET
    if loads is LoadsFrom.MEASURED:
        machines = msgspec.structs.replace(machines, loads=measured_loads(trace))
    if sizes:
        machines = msgspec.structs.replace(machines, sizes=sizes_of(sizes))
    policies = tuple(policy or POLICIES)
    if sweep_over:
        found = sweep(requests, machines, counts(sweep_over), Rules(), seed)
        if json:
            print_json([msgspec.to_builtins(each) for each in found])
        else:
            print_summaries(found, by_workers=True)
    elif shifts:
        rows = compare_shifts(requests, machines, policies, shifts, seed, processes)
        if json:
            print_json([msgspec.to_builtins(row) for row in rows])
        else:
            print_shifts(rows)
    else:
        title = f"{trace.name}: {len(requests)} tasks on {machines.workers} workers"
        _compare(requests, machines, policies, seed, title, html, json=json)


def _check_options(
    speed: float, policy: Sequence[str] | None, sweep_over: str, shifts: int, html: Path | None
) -> None:
    """That what was asked for goes together.

    Raises:
        InvalidRequest: says what does not.
    """
    if sum(map(bool, (sweep_over, shifts, html))) > 1:
        raise InvalidRequest("--sweep, --shifts and --html are three reports; give one of them at a time")
    if shifts and shifts < SHIFTS_MIN:
        raise InvalidRequest(f"--shifts {shifts}: there is no interval of one; {SHIFTS_MIN} at least")
    if sweep_over and set(policy or (OURS,)) != {OURS}:
        raise InvalidRequest(f"--sweep plays '{OURS}' alone; leave --policy out, or --sweep")
    if not speed < inf:  # the option itself bounds it from below alone
        raise InvalidRequest(
            f"--speed {speed}: arrivals must be so many times as fast, in a number: 0.5, or 2"
        )


def compare_shifts(
    requests: Sequence[Request],
    fleet: FleetFile,
    policies: Sequence[str],
    shifts: int,
    seed: int = 0,
    processes: int = 0,
) -> list[Row]:
    """The comparison over shifts, in several processes: a run takes seconds, and none needs another."""
    runs = shifts_of(requests, fleet, policies, Rules(), shifts, seed)
    count = min(processes or os.cpu_count() or 1, len(runs))
    if count == 1:
        return rows_of(map(run, runs))
    # Started from this thread, which lives as long as the process: the kernel's signal follows the thread.
    with ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    ) as pool:
        return rows_of(pool.map(run, runs))


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


def sizes_of(text: str) -> Sizes:
    """The sizes of models that `--sizes` asks for.

    Raises:
        InvalidRequest: it is not ``12`` or ``4..24``, in GB.
    """
    match = _SIZES.fullmatch(text)
    if match is None or (match[2] and not 0 < float(match[1]) <= float(match[2])):
        raise InvalidRequest(f"--sizes '{text}' is not of the form 12, or 4..24, in GB")
    try:
        gb, to_gb = (within("a size", each or 0, GIGABYTES) for each in match.groups())
    except ValueError as error:
        raise InvalidRequest(f"--sizes '{text}': {error}") from error
    return Sizes(gb=gb, to_gb=to_gb)


def _compare(
    requests: Sequence[Request],
    fleet: FleetFile,
    policies: Sequence[str],
    seed: int,
    title: str,
    html: Path | None,
    *,
    json: bool,
) -> None:
    """One run of each policy, the bounds, and the page with the charts."""
    runs: dict[str, Outcome] = {}

    def on_done(summary: Summary, outcome: Outcome) -> None:
        if summary.policy in {OURS, UNLIMITED, "wait-or-load"}:
            runs[summary.policy] = outcome
        if not json:
            out.print(f"[dim]{summary.policy}: done[/]")

    found = compare(requests, fleet, policies, Rules(), seed, on_done)
    unlimited = runs.pop(UNLIMITED)
    bounds = distances(runs[OURS], unlimited, fleet, seed) if OURS in runs else []
    if json:
        print_json(
            {
                "policies": [msgspec.to_builtins(each) for each in found],
                "bounds": [msgspec.to_builtins(each) for each in bounds],
            }
        )
    else:
        print_summaries(found, by_workers=False)
        ours = next((each for each in found if each.policy == OURS), None)
        if ours is not None and ours.unparks:
            out.print(f"[dim]{OURS}: {ours.unparks} tasks had their instance back from being parked.[/]")
        if bounds:
            print_bounds(bounds)
    if html is not None:
        html.write_text(page(title, found, bounds, runs, OURS, UNLIMITED), encoding="utf-8")
        if not json:
            out.print(f"report: {html}")
