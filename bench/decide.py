"""What one decision costs: 1,000 workers, 200 models, up to 100,000 queued tasks, no Redis.

`python bench/decide.py` prints microseconds for the events that matter, the ratio of a long queue to a short one, and
draws docs/pictures/decide.svg (`--svg ''` leaves it). Run it on a quiet machine; it takes a minute.
"""

import argparse
import gc
import math
import random
import time
from pathlib import Path

from stoker.core.measures import Measures
from stoker.core.messages import (
    EngineId,
    EngineInfo,
    EngineReport,
    EngineView,
    Needs,
    SetupKey,
    TaskId,
    TaskSpec,
    WorkerId,
    WorkerInfo,
)
from stoker.core.states import TaskState
from stoker_scheduler.actions import Assign, Rules, Wait
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.policy import decide

APP = "bench/app"
WORKERS_OF_AN_ENGINE = 8
OTHERS = ((8, 100, 1), (8, 100_000, 1), (1000, 100_000, 10), (1000, 100_000, 2000))
"""Few workers, one model, many models."""
P50_MS, P99_MS, RATIO = 1.0, 5.0, 3.0
"""The aims: of one decision at 1,000 workers and 100,000 tasks; of its p50 there to that at 1,000 tasks."""
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "decide.svg"
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a } .grid { stroke: #d0d7de; stroke-width: 1 }
polyline, path { fill: none; stroke-width: 2 } .end { stroke: #2f6fde } .arrival { stroke: #c4640a }
circle.end { fill: #2f6fde } circle.arrival { fill: #c4640a } .p99 { stroke-dasharray: 5 4 }
.aim { stroke: #c9374b; stroke-width: 1; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) { text { fill: #9aa6b2 } .grid { stroke: #39424d } }
"""


def engine(number):
    name = f"e{number}"
    slots = tuple(WorkerInfo(id=WorkerId(f"{name}-cpu-{i}"), index=i) for i in range(WORKERS_OF_AN_ENGINE))
    info = EngineInfo(id=EngineId(name), name=name, version="1", hostname=name, workers=slots)
    report = EngineReport(environments=("env",))
    return EngineView(info=info, status="running", registered_ms=0, seen_ms=0, report=report)


def spec(number, setups, now_ms):
    setup = f"s{random.randrange(setups)}"
    return TaskSpec(
        id=TaskId(f"t{number}"),
        setup_key=SetupKey(setup),
        version_id="v",
        env_key="env",
        app=APP,
        needs=Needs(),
        key_id=f"k{random.randrange(20)}",
        created_ms=now_ms,
    )


def step(mirror, now_ms):
    changed = mirror.take_changed()
    actions = decide(now_ms, mirror.queues, mirror.fleet, mirror.knowledge, changed, mirror.rules)
    for action in actions:
        if isinstance(action, Assign):
            mirror.apply_assign(action, 1, now_ms)
        elif isinstance(action, Wait):
            mirror.apply_wait(action, now_ms)
    return actions


def timed(calls, times, clock):
    """Microseconds of each of some calls, in turns: (p50, p99) of each. What happens to the machine happens to all."""
    spent = [[] for _ in calls]
    for _ in range(times):
        for call, found in zip(calls, spent, strict=True):
            began = clock()
            call()
            found.append((clock() - began) * 1e6)
    return [(quantile(found, 0.5), quantile(found, 0.99)) for found in spent]


def quantile(values, share):
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


class Scene:
    """A busy fleet and a queue that stays as long as it is, with known times: a second a run, so that 1,000 end each second."""

    def __init__(self, workers, queued, setups):
        self.size = workers, queued, setups
        self.random = random.Random(1)
        self.mirror, self.now_ms = Mirror(Rules(), Limits()), 1_000_000
        self.numbers = iter(range(10**9))
        self.measured = Measures(load_s=2.0, run_s=1.0)
        for number in range(workers // WORKERS_OF_AN_ENGINE):
            self.mirror.on_engine(engine(number), self.now_ms)
        for setup in range(setups):
            self.mirror.knowledge.learn_load(SetupKey(f"s{setup}"), APP, self.measured.load_s)
            self.mirror.knowledge.learn_run(SetupKey(f"s{setup}"), APP, self.measured.run_s)
        for _ in range(queued + workers):
            self.submit()
        began = time.perf_counter()
        step(self.mirror, self.now_ms)
        self.first_ms = (time.perf_counter() - began) * 1e3
        self.names = list(self.mirror.fleet.workers)

    def submit(self):
        self.mirror.on_submitted(spec(next(self.numbers), self.size[2], self.now_ms))

    def arrive(self):
        """A task is submitted, and decided about."""
        self.submit()
        step(self.mirror, self.now_ms)

    def end(self):
        """A task ends, and its worker gets another one."""
        self.now_ms += 1
        for _ in range(100):
            worker = self.mirror.fleet.workers[self.random.choice(self.names)]
            if worker.held:
                self.mirror.on_finished(
                    worker.held[0].task_id, TaskState.COMPLETED, self.measured, self.now_ms
                )
                break
        step(self.mirror, self.now_ms)


def measure(sizes, rounds, clock):
    """A row for each size; the sizes are measured in turns. (queued -> (p50, p99) of an end, of an arrival)."""
    random.seed(1)
    scenes = [Scene(*size) for size in sizes]
    gc.collect()
    gc.freeze()  # as the scheduler does
    found = timed([call for scene in scenes for call in (scene.end, scene.arrive)], rounds, clock)
    gc.unfreeze()
    results = []
    for number, scene in enumerate(scenes):
        end, arrival = found[2 * number : 2 * number + 2]
        workers, queued, setups = scene.size
        print(
            f"| {workers:,} | {queued:,} | {setups:,} | {scene.first_ms:.0f} ms | {end[0]:.0f} / {end[1]:.0f} us "
            f"| {arrival[0]:.0f} / {arrival[1]:.0f} us |",
            flush=True,
        )
        results.append((queued, end, arrival))
    return results


def judge(results):
    """The aims, by the worse of the two events."""
    (_, *short), *_, (_, *long) = results
    p50, p99 = (max(event[place] for event in long) / 1000 for place in (0, 1))
    ratio = max(after[0] / before[0] for before, after in zip(short, long, strict=True))
    aims = (("p50", p50, P50_MS, " ms"), ("p99", p99, P99_MS, " ms"), ("ratio of p50", ratio, RATIO, ""))
    for name, value, aim, unit in aims:
        print(
            f"{name}: {value:.2f}{unit} (aim: at most {aim:g}{unit}): {'met' if value <= aim else 'NOT MET'}"
        )


def svg(results):
    """Both axes logarithmic; a line for each event and quantile, and the aims."""
    left, right, top, bottom, most_us, least_us = 70, 560, 20, 300, 10_000, 10

    def x(queued):
        return left + math.log10(queued / 1000) / 2 * (right - left - 120)

    def y(us):
        return bottom - math.log10(us / least_us) / math.log10(most_us / least_us) * (bottom - top)

    drawn = []
    for us, name in ((10, "10 µs"), (100, "0.1 ms"), (1000, "1 ms"), (10_000, "10 ms")):
        drawn.append(f'<path class="grid" d="M{left} {y(us):.1f}H{right - 120}"/>')
        drawn.append(f'<text x="{left - 8}" y="{y(us) + 4:.1f}" text-anchor="end">{name}</text>')
    for queued, *_ in results:
        drawn.append(f'<text x="{x(queued):.1f}" y="{bottom + 20}" text-anchor="middle">{queued:,}</text>')
    drawn.append(
        f'<text x="{(left + right - 120) / 2}" y="{bottom + 40}" text-anchor="middle">queued tasks</text>'
    )
    for us, name in ((P50_MS * 1000, "aim of p50"), (P99_MS * 1000, "aim of p99")):
        drawn.append(f'<path class="aim" d="M{left} {y(us):.1f}H{right - 120}"/>')
        drawn.append(f'<text x="{right - 112}" y="{y(us) + 4:.1f}">{name}</text>')
    lines = (("end", 1, "a task ends"), ("arrival", 2, "a task arrives"))
    for css, place, _ in lines:
        for number, label in ((0, "p50"), (1, "p99")):
            points = [(x(row[0]), y(max(least_us, row[place][number]))) for row in results]
            drawn.append(
                f'<polyline class="{css} {label}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'
            )
            drawn += [f'<circle class="{css}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
    drawn += [
        f'<g transform="translate({left + number * 180},{bottom + 62})"><path class="{css} p50" d="M0 -4H24"/>'
        f'<text x="30">{name}</text></g>'
        for number, (css, _, name) in enumerate(lines)
    ]
    drawn.append(f'<text x="{left + 340}" y="{bottom + 62}">solid: p50, dashed: p99</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom + 80}" width="{right}" role="img">'
        f"<title>One decision of the scheduler</title><style>{STYLE}</style>{''.join(drawn)}</svg>\n"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--svg", default=str(PICTURE), help="where to draw; empty = nowhere")
    parser.add_argument(
        "--cpu", action="store_true", help="count processor time: for a machine that does other things too"
    )
    options = parser.parse_args()
    clock = time.thread_time if options.cpu else time.perf_counter
    print("| workers | queued | models | first decision | one ends: p50 / p99 | one arrives: p50 / p99 |")
    print("|---|---|---|---|---|---|")
    results = measure([(1000, queued, 200) for queued in (1000, 10_000, 100_000)], options.rounds, clock)
    for size in OTHERS:
        measure([size], options.rounds, clock)
    print()
    judge(results)
    if options.svg:
        Path(options.svg).write_text(svg(results), encoding="utf-8")
        print(f"drawn: {options.svg}")


if __name__ == "__main__":
    main()
