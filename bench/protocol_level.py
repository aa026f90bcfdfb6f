"""The protocol without HTTP: a submitter, the real scheduler process, and an engine process that runs nothing.

`python bench/protocol_level.py engine URL WORKERS COUNT` is that engine.
"""

import asyncio
import os
import subprocess
import sys
import time

import msgspec
import uvloop

from stoker.core.messages import (
    Assignment,
    EngineInfo,
    EngineReport,
    Needs,
    Outcome,
    Owner,
    Resident,
    TaskRequest,
    TaskSpec,
    WorkerInfo,
)
from stoker.core.states import ResidentState, TaskState
from stoker.core.telemetry import Telemetry
from stoker.protocol import Store

ENGINE = "bench"
DONE = Outcome(state=TaskState.COMPLETED, output=msgspec.Raw(b"{}"), run_s=0.0001)
IN_FLIGHT = 2000
LIMIT_S = 90


async def engine(url: str, workers: int, count: int) -> None:
    """Take assignments, accept, finish; end after `count`."""
    store = await Store.open(url)
    ids = [f"{ENGINE}-cpu-{n}" for n in range(workers)]
    info = EngineInfo(
        id=ENGINE,
        name=ENGINE,
        version="0",
        hostname="h",
        workers=tuple(WorkerInfo(id=i, index=n) for n, i in enumerate(ids)),
    )
    residents = tuple(
        Resident(
            worker_id=i, setup_key="s", version_id="v", app="bench/noop", state=ResidentState.IDLE, load_s=1
        )
        for i in ids
    )
    session, _ = await store.engines.register(info, EngineReport(residents=residents), {}, 60)
    done, finished = 0, asyncio.Event()

    async def execute(entry: str, order: Assignment) -> None:
        nonlocal done
        await store.engines.accept(order, ENGINE, entry, TaskState.RUNNING)
        await store.engines.finish(order, ENGINE, DONE)
        done += 1
        if done == count:
            finished.set()

    async def listen() -> None:
        last, running = "0", set()
        while True:
            last, messages = await store.engines.inbox(ENGINE, last, 1000, 500)
            for entry, message in messages:
                if isinstance(message, Assignment):
                    task = asyncio.create_task(execute(entry, message))
                    running.add(task)
                    task.add_done_callback(running.discard)

    async def renew() -> None:
        while True:
            await asyncio.sleep(15)
            telemetry = Telemetry(cpu_percent=0, ram_used_bytes=0, ram_total_bytes=0)
            await store.engines.renew(ENGINE, session, telemetry, {}, 60)

    loops = [asyncio.create_task(listen()), asyncio.create_task(renew())]
    await asyncio.wait_for(finished.wait(), LIMIT_S)
    print(time.time(), flush=True)
    for loop in loops:
        loop.cancel()
    await store.engines.deregister(ENGINE, session)
    await store.close()


async def measure(url: str, workers: int, count: int) -> float:
    """Tasks a second from the first submit to the last finish."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STOKER_")} | {
        "STOKER_REDIS_URL": url
    }
    quiet = subprocess.DEVNULL
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "stoker_cli", "scheduler"], env=environment, stderr=quiet
    )
    runner = subprocess.Popen(
        [sys.executable, __file__, "engine", url, str(workers), str(count)],
        stdout=subprocess.PIPE,
        env=environment,
    )
    store = await Store.open(url)
    try:
        async with asyncio.timeout(20):
            while not (await store.scheduling.leader() and await store.engines.list()):
                await asyncio.sleep(0.05)
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def submit(number: int) -> None:
            async with slots:
                task = f"b{os.getpid()}-{workers}-{number}"
                request = TaskRequest(
                    id=task, app_id="a", app="bench/noop", version_id="v", function="run", input={}, setup={},
                    setup_key="s", env_key="e",
                )  # fmt: skip
                spec = TaskSpec(
                    id=task,
                    setup_key="s",
                    version_id="v",
                    env_key="e",
                    app="bench/noop",
                    needs=Needs(),
                    key_id="k",
                )
                await store.tasks.submit(request, spec, Owner(user_id="bench", key_id="k"), retention_s=60)

        begun = time.time()
        await asyncio.gather(*(submit(number) for number in range(count)))
        line = await asyncio.to_thread(runner.stdout.readline)
        return count / (float(line) - begun)
    finally:
        await store.close()
        for process in (scheduler, runner):
            process.terminate()
            process.wait(20)


if __name__ == "__main__" and sys.argv[1:2] == ["engine"]:
    uvloop.run(engine(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
