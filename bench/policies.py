"""The policies of `stoker simulate` on a trace, four fleets, over shifts of the arrivals: the tables of docs/simulation.md.

`python bench/policies.py TRACE [--shifts 10] [--fleets 8-gpus-2-models ...]` takes about ten minutes on two cores at the lowest
priority. Beside the trace lies load_latency_quantiles.csv, from which the mixed fleets draw their loads. What it prints is
Markdown; it exits with 1 when a policy is better than the scheduler's in mean, p95 or loading hours.
"""

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

from stoker_cli.simulation_view import ranged
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.compare import OURS, POLICIES, distances, limitless, play
from stoker_scheduler.simulation.fleet_file import measured_loads, read_fleet
from stoker_scheduler.simulation.shifts import Interval, rows_of, run, shifts_of
from stoker_scheduler.simulation.trace import faster, read_trace

FLEETS = Path(__file__).parents[1] / "examples" / "fleets"
SCENARIOS = {
    "8-gpus-2-models": (2.0, "fixed"),
    "8-gpus-4-models": (2.0, "fixed"),
    "16-mixed-gpus": (4.0, "measured"),
    "64-mixed-gpus": (16.0, "measured"),
}
"""Fleet -> arrivals so many times as fast as recorded (as many tasks a GPU everywhere), where loads come from."""
AIMS = {"8-gpus-2-models": (7.0, 26.4, 0.82), "8-gpus-4-models": (4.2, 22.0, 0.91)}
"""Mean, p95, warm: of the trace as it was recorded, without a shift."""


def bounds(requests, fleet, rules, seed):
    """How far the scheduler's policy is from its bounds; on the trace as it was recorded."""
    ours, unlimited = (play(requests, each, OURS, rules, seed) for each in (fleet, limitless(fleet)))
    return distances(ours, unlimited, fleet, seed)


def percent(found):
    return Interval(mean=found.mean * 100, low=found.low * 100, high=found.high * 100)


def show(name, plain, rows, found_bounds, rules):
    speed, loads = SCENARIOS[name]
    option = " --loads measured" if loads == "measured" else ""
    print(f"\n### {name}: arrivals {speed:g} times as fast, {loads} loads\n")
    print(
        f"`stoker simulate TRACE --fleet examples/fleets/{name}.yml --speed {speed:g}{option} --shifts {rows[0].shifts}`\n"
    )
    print("As recorded, one run:\n")
    print("| policy | mean s | p95 s | p99 s | max s | warm | loads | loading h | Jain | worst tenant s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for each in plain:
        times = each.overhead
        print(
            f"| {each.policy} | {times.mean:.2f} | {times.p95:.1f} | {times.p99:.1f} | {times.max:.0f} | {each.warm:.1%} "
            f"| {each.loads} | {each.loading_h:.1f} | {each.jain:.2f} | {each.worst_overhead_s:.0f} |"
        )
    if name in AIMS:
        mean, p95, warm = AIMS[name]
        ours = next(each for each in plain if each.policy == OURS)
        met = (ours.overhead.mean <= mean, ours.overhead.p95 <= p95 + 0.05, ours.warm >= warm)
        words = ", ".join("met" if each else "**not met**" for each in met)
        print(
            f"\nAims: mean {mean:g} s, p95 {p95:g} s, warm {warm:.0%}: {words} (age cap {rules.age_cap_s:g} s)."
        )
    print("\n| bound | mean s | loads | loading h | above it |\n|---|---|---|---|---|")
    for each in found_bounds:
        numbers = f"{each.mean_s:.2f} | {each.loads} | {each.loading_h:.1f} | {each.above_s:+.2f} s, {each.above_h:+.1f} h"
        print(f"| {each.name} | {(each.note and f'{each.note} | - | - | -') or numbers} |")
    print(
        f"\nOver {rows[0].shifts} shifts; differences are the policy's less {OURS}'s, with 95 % intervals:\n"
    )
    print(
        f"| policy | mean s | p95 s | loading h | warm | mean, difference | p95, difference | loading h, difference | {OURS} is lower by | better in |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            row.policy,
            f"{row.mean_s:.2f}",
            f"{row.p95_s:.1f}",
            f"{row.loading_h:.1f}",
            f"{row.warm:.1%}",
        ]
        if row.policy != OURS:
            cells += [ranged(row.mean_diff), ranged(row.p95_diff), ranged(row.loading_diff)]
            cells += [f"{ranged(percent(row.ours_lower), 1)} %", ", ".join(row.better_in) or "nothing"]
        else:
            cells += ["", "", "", "", ""]
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trace", type=Path)
    parser.add_argument("--shifts", type=int, default=10)
    parser.add_argument("--fleets", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.nice(19)
    rules, begun = Rules(), time.time()
    recorded, better = read_trace(options.trace), []
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in options.fleets:
            speed, loads = SCENARIOS[name]
            fleet = read_fleet(FLEETS / f"{name}.yml")
            if loads == "measured":
                fleet = msgspec.structs.replace(fleet, loads=measured_loads(options.trace))
            requests = faster(recorded, speed)
            runs = shifts_of(requests, fleet, POLICIES, rules, options.shifts, options.seed)
            of_bounds = pool.submit(bounds, requests, fleet, rules, options.seed)
            found = list(pool.map(run, runs))
            rows = rows_of(found)
            show(name, found[: len(rows)], rows, of_bounds.result(), rules)
            better += [f"{name}: {row.policy} in {', '.join(row.better_in)}" for row in rows if row.better_in]
    print(
        f"\n{time.time() - begun:.0f} s. Better than {OURS}: {'; '.join(better) or 'no policy in anything'}."
    )
    sys.exit(bool(better))


if __name__ == "__main__":
    main()
