"""Does the live system do what the simulator says? The same trace on four real daemons, and in virtual time.

`python bench/live_and_simulated.py [--trace FILE] [--seeds 5] [--tasks 300]`; about two minutes a seed, on a machine on which
nothing else runs: four daemons and their instances share its cores. Seconds stand for minutes: a load that takes 22 s there
takes 0.37 s here, and arrivals follow each other so that tasks alone keep the workers busy for `--busy` of their time.

1. a system with four daemons of one worker each, for each seed a new one  2. every model is loaded once, so that its times are
known, and each worker is left with two models that are known too  3. the tasks of the trace are sent at their times  4. the
simulator plays them with what was measured: the seconds that each task ran, the loads as they were, the same models loaded at
the begin, and the same knowledge of all times  5. warm ratio and mean wait (all of a task's time but its run) are compared.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import quiet
import uvloop
from http_load import Client

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import PATIENCE_S, environment, start_system, wait_until

from stoker.server_address import redis_socket, socket_url
from stoker_cli.export import trace_row
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.engine import Simulation, workers_of
from stoker_scheduler.simulation.fleet_file import (
    FleetFile,
    Loads,
    Machine,
    Sizes,
    instance_sizes,
    load_times,
)
from stoker_scheduler.simulation.live import APP, Live
from stoker_scheduler.simulation.synthetic import synthetic
from stoker_scheduler.simulation.trace import Request, faster, moved, read_trace

HERE = Path(__file__).parent
OUT = HERE / "out" / "live_and_simulated.json"
DAEMONS = 4
MODELS = 2
"""Instances that a worker holds."""
FIRST = "first"
"""The model whose load on each machine also makes the environment."""
SCALE = 60.0
LOAD_S = 22.0
WAIT_WITHIN, WARM_WITHIN = 0.15, 0.03
"""The aims: of the simulated mean wait, and of all tasks."""


class Daemon:
    """A further machine of the system, as far as one computer can have four."""

    def __init__(self, system, name, folder):
        self.log = folder.with_suffix(".log").open("ab")
        env = environment(
            STOKER_DATA_DIR=str(folder),
            STOKER_NAME=name,
            STOKER_REDIS_URL=socket_url(redis_socket(system.data_dir)),
            STOKER_INTERNAL_URL=system.base_url,
            STOKER_MAX_RESIDENTS=str(MODELS),
            STOKER_DRAIN_GRACE_S="2",
            STOKER_PARENT_PID=str(os.getpid()),
        )
        command = [sys.executable, "-m", "stoker_cli", "worker", "--workers", "1"]
        self.process = subprocess.Popen(command, env=env, stdout=self.log, stderr=self.log)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        self.log.close()


def trace_of(options, seed):
    """So many tasks that follow each other, scaled; the seed says where they begin."""
    if options.trace is None:
        requests = synthetic(options.tasks, models=16, tenants=20, seed=seed)
    else:
        recorded = read_trace(options.trace)
        if len(recorded) < options.tasks:
            sys.exit(f"{options.trace} has {len(recorded)} tasks; --tasks {options.tasks} is more than that")
        first = (len(recorded) - options.tasks) * seed // max(options.seeds, 1)
        requests = recorded[first : first + options.tasks]
    begin_s = requests[0].at_s
    scaled = [
        Request(at_s=(each.at_s - begin_s) / SCALE, setup=each.setup, run_s=each.run_s / SCALE)
        for each in requests
    ]
    work_s = sum(each.run_s for each in scaled)
    if not (scaled[-1].at_s and work_s):
        sys.exit(
            f"the {len(scaled)} tasks of seed {seed} come all at once, or take no time: no pace of theirs keeps the "
            f"workers --busy for a share of their time; give other --tasks"
        )
    return faster(scaled, scaled[-1].at_s / (work_s / DAEMONS / options.busy))


class LiveRun:
    """The trace on the real system."""

    def __init__(self, system, app):
        self.client = Client(system.base_url, system.bench_key)
        self.app = app
        self.warmed = []

    def body(self, setup, run_s, worker=""):
        load_s = (LOAD_S + (4.4 if setup.endswith("/lora") else 0.0)) / SCALE
        body = {
            "app": self.app,
            "infra": "private",
            "setup": {"model": setup, "load_s": load_s},
            "input": {"run_s": run_s},
        }
        return json.dumps(body | ({"workers": [worker]} if worker else {})).encode()

    async def workers(self):
        _, answer = await self.client.call("GET", "/workers")
        return sorted(worker["id"] for worker in json.loads(answer)["data"]["items"])

    async def warm_up(self, setups, run_s):
        """Every model once, spread over the workers; (worker -> the models that are loaded there at the end)."""
        workers = await self.workers()
        loaded = {worker: [FIRST] for worker in workers}
        await asyncio.gather(*(self.client.run(self.body(FIRST, 0.01, worker)) for worker in workers))
        for begin in range(0, len(setups), len(workers)):
            part = list(zip(setups[begin : begin + len(workers)], workers, strict=False))
            self.warmed += await asyncio.gather(
                *(self.client.run(self.body(setup, run_s[setup], worker)) for setup, worker in part)
            )
            for setup, worker in part:
                loaded[worker] = [*loaded[worker], setup][-MODELS:]
        return loaded

    async def play(self, requests):
        begun = time.perf_counter()

        async def arrive(request):
            await asyncio.sleep(max(0.0, begun + request.at_s - time.perf_counter()))
            return await self.client.run(self.body(request.setup, request.run_s))

        return await asyncio.gather(*map(arrive, requests))


def began_s(task):
    """From the task's creation to its run."""
    at = next(event["event_time"] for event in task["events"] if event["status"] == 7)
    created = datetime.fromisoformat(task["created_at"]).timestamp()
    return datetime.fromisoformat(at).timestamp() - created


def simulated(requests, tasks, warmed, loaded):
    """The same tasks in virtual time, with the measured times and what was known at the begin."""
    rows = [trace_row(task) for task in tasks]
    asked = [
        Request(at_s=row["at_s"], setup=request.setup, run_s=row["run_s"])
        for row, request in zip(rows, requests, strict=True)
    ]
    asked.sort(key=lambda request: request.at_s)
    asked = [moved(request, request.at_s - asked[0].at_s) for request in asked]
    loads = sorted(row["load_s"] for row in rows if "load_s" in row) or [LOAD_S / SCALE]
    fleet = FleetFile(
        machines=(Machine(count=DAEMONS, vram_gb=24, models=MODELS),),
        loads=Loads(quantiles_s=tuple(loads), lora_s=0.0),
        sizes=Sizes(gb=5),
    )
    workers = workers_of(fleet)
    size_of = instance_sizes(fleet.sizes, 0)
    for worker, setups in zip(workers, loaded.values(), strict=True):
        worker.residents.update((setup, size_of(setup)) for setup in setups)
    simulation = Simulation(asked, workers, load_times(fleet.loads, 0), size_of)
    policy = Live(workers, Rules())
    for _ in range(DAEMONS):
        policy.mirror.knowledge.note_submitted(FIRST, 1_000_000, "")
    for row, setup in warmed:
        policy.mirror.knowledge.note_submitted(setup, 1_000_000, "")
        policy.mirror.knowledge.learn_load(setup, APP, row["load_s"])
        policy.mirror.knowledge.learn_run(setup, APP, row["run_s"])
        policy.mirror.knowledge.learn_vram(setup, size_of(setup))
    return simulation.run(policy).jobs


def one_seed(options, seed, folder):
    """(live warm, simulated warm, live mean wait, simulated mean wait), shares and seconds."""
    requests = trace_of(options, seed)
    setups = sorted({request.setup for request in requests})
    run_s = {request.setup: request.run_s for request in requests}
    system = start_system(folder / "data", "--workers", "1", STOKER_MAX_RESIDENTS=str(MODELS))
    daemons = []
    try:
        app = system.deploy(HERE / "apps" / "sleeper")
        daemons = [Daemon(system, f"box-{n}", folder / f"box-{n}") for n in range(1, DAEMONS)]
        wait_until(lambda: len(idle(system)) == DAEMONS, "four idle workers", PATIENCE_S * 3)

        async def live():
            run = LiveRun(system, app)
            loaded = await run.warm_up(setups, run_s)
            tasks = await run.play(requests)
            run.client.close()
            return loaded, tasks, run.warmed

        loaded, tasks, warmed = uvloop.run(live())
    finally:
        for daemon in daemons:
            daemon.stop()
        system.stop()
    rows = [(trace_row(task), setup) for task, setup in zip(warmed, setups, strict=True)]
    jobs = simulated(requests, tasks, rows, loaded)
    live_warm = sum("load_s" not in trace_row(task) for task in tasks) / len(tasks)
    return (
        live_warm,
        sum(job.warm for job in jobs) / len(jobs),
        statistics.fmean(map(began_s, tasks)),
        statistics.fmean(job.overhead_s for job in jobs),
    )


def idle(system):
    return [worker for worker in system.cli_json("workers", "list") if worker["status"] == "idle"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="as for stoker simulate; default: a made-up one")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--busy", type=float, default=0.35, help="share of the workers' time that tasks alone take"
    )
    options = parser.parse_args()
    before = quiet.described()
    print("| seed | warm: live | simulated | difference, points | mean wait: live | simulated | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory(prefix="stoker-bench-", ignore_cleanup_errors=True) as folder:
            live_warm, warm, live_s, wait_s = one_seed(options, seed, Path(folder))
        found.append({"warm": (live_warm - warm) * 100, "wait": live_s / wait_s})
        print(
            f"| {seed} | {live_warm:.1%} | {warm:.1%} | {found[-1]['warm']:+.1f} | {live_s:.3f} s | {wait_s:.3f} s "
            f"| {found[-1]['wait']:.3f} |",
            flush=True,
        )
    warm, wait = ([each[name] for each in found] for name in ("warm", "wait"))
    print(
        f"\nMedian: warm {statistics.median(warm):+.1f} points ({min(warm):+.1f} to {max(warm):+.1f}; aim: within "
        f"{WARM_WITHIN * 100:.0f}), mean wait {statistics.median(wait):.3f} of the simulated one ({min(wait):.3f} to "
        f"{max(wait):.3f}; aim: within {WAIT_WITHIN:.0%}). Before: {before}; after: {quiet.described()}."
    )
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
