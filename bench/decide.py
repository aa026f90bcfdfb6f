"""What one decision costs: 1,000 workers, 100,000 queued tasks, no Redis.

`python bench/decide.py` prints microseconds for the events that matter. Run it on a quiet machine.
"""

import argparse
import random
import statistics
import time

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
from stoker_scheduler.measures import Measured
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.policy import decide

WORKERS_OF_AN_ENGINE = 8


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
        app="bench/app",
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


def timed(call, times):
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append((time.perf_counter() - began) * 1e6)
    spent.sort()
    return statistics.median(spent), spent[int(len(spent) * 0.99)]


def measure(workers, queued, setups, rounds):
    random.seed(1)
    mirror, now_ms = Mirror(Rules(), Limits()), 1_000_000
    for number in range(workers // WORKERS_OF_AN_ENGINE):
        mirror.on_engine(engine(number), now_ms)
    numbers = iter(range(10**9))
    for _ in range(queued + workers):
        mirror.on_submitted(spec(next(numbers), setups, now_ms))
    began = time.perf_counter()
    step(mirror, now_ms)
    first_ms = (time.perf_counter() - began) * 1e3
    measured = Measured(load_s=2.0, run_s=1.0)
    names = list(mirror.fleet.workers)

    def finish_one():
        nonlocal now_ms
        now_ms += 1
        for _ in range(100):
            worker = mirror.fleet.workers[random.choice(names)]
            if worker.held:
                mirror.on_finished(worker.held[0].task_id, TaskState.COMPLETED, measured, now_ms)
                break
        step(mirror, now_ms)

    def submit_one():
        mirror.on_submitted(spec(next(numbers), setups, now_ms))
        step(mirror, now_ms)

    finish = timed(finish_one, rounds)
    submit = timed(submit_one, rounds)
    print(
        f"| {workers} | {queued} | {setups} | {first_ms:.0f} ms | {finish[0]:.0f} / {finish[1]:.0f} us "
        f"| {submit[0]:.0f} / {submit[1]:.0f} us |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    print("| workers | queued | setups | first decision | one ends: p50 / p99 | one arrives: p50 / p99 |")
    print("|---|---|---|---|---|---|")
    for workers, queued, setups in ((8, 100, 1), (8, 100_000, 1), (1000, 100_000, 10), (1000, 100_000, 2000)):
        measure(workers, queued, setups, rounds)


if __name__ == "__main__":
    main()
