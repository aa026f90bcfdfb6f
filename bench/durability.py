"""`make bench-durability`: what it costs that an accepted task is on disk before its answer.

Two embedded servers, one with `appendfsync always` and one with `everysec`, take the same submissions in turns and in
one run; the ratio of a round is of two measurements seconds apart. No gateway, no scheduler: `Tasks.submit` alone.
"""

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from stoker.core.ids import new_id
from stoker.core.messages import Needs, Owner, TaskId, TaskRequest, TaskSpec
from stoker.embedded import EmbeddedServer
from stoker.protocol import Store

ROUNDS = int(os.environ.get("ROUNDS", "7"))
POLICIES = ("always", "everysec")
LOADS = {1: 300, 16: 2000, 128: 4000}
"""Callers at a time -> submissions a round."""
INPUT = {"message": "x" * 200}
OWNER = Owner(user_id="bench", key_id="bench")


class Server(EmbeddedServer):
    """The embedded server with another promise."""

    def __init__(self, data_dir: Path, policy: str) -> None:
        super().__init__(data_dir)
        self._policy = policy

    def _argv(self) -> list[str]:
        argv = super()._argv()
        argv[argv.index("--appendfsync") + 1] = self._policy
        return argv


def task() -> tuple[TaskRequest, TaskSpec]:
    task_id = TaskId(new_id())
    same = {"id": task_id, "app": "bench/noop", "setup_key": "s", "version_id": "v", "env_key": "e"}
    request = TaskRequest(app_id="a", function="run", input=INPUT, setup={}, **same)
    return request, TaskSpec(needs=Needs(), key_id="bench", **same)


async def burst(store: Store, callers: int, count: int) -> tuple[list[float], float]:
    """Milliseconds of each of `count` submissions by so many callers, and how many there were a second."""
    waits: list[float] = []
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            request, spec = task()
            began = time.perf_counter()
            await store.tasks.submit(request, spec, OWNER)
            waits.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return waits, count / (time.perf_counter() - began)


async def measure(folder: Path) -> dict[tuple[int, str], list[tuple[float, float, float]]]:
    """(callers, policy) -> p50 ms, p99 ms and submissions a second of each round."""
    servers = {policy: Server(folder / policy, policy) for policy in POLICIES}
    found: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    stores = {}
    try:
        for policy, server in servers.items():
            await server.start()
            stores[policy] = await Store.open(server.url)
            await burst(stores[policy], 16, 200)
        for number in range(ROUNDS):
            order = POLICIES if number % 2 else POLICIES[::-1]
            for callers, count in LOADS.items():
                for policy in order:
                    waits, rate = await burst(stores[policy], callers, count)
                    p50, p99 = (statistics.quantiles(waits, n=100)[at] for at in (49, 98))
                    found.setdefault((callers, policy), []).append((p50, p99, rate))
    finally:
        for store in stores.values():
            await store.close()
        for server in servers.values():
            await server.stop()
    return found


def show(found: dict[tuple[int, str], list[tuple[float, float, float]]]) -> None:
    """Medians of the rounds, and the median of the rounds' ratios."""
    table = Table(*("callers", "measure", *POLICIES, "ratio (median of rounds)", "least", "most"))
    for callers in LOADS:
        pairs = list(zip(*(found[callers, policy] for policy in POLICIES), strict=True))
        for at, name in enumerate(("p50, ms", "p99, ms", "a second")):
            ratios = [left[at] / right[at] for left, right in pairs]
            medians = [statistics.median(pair[side][at] for pair in pairs) for side in (0, 1)]
            numbers = (*medians, statistics.median(ratios), min(ratios), max(ratios))
            table.add_row(str(callers), name, *(f"{number:.2f}" for number in numbers))
    Console(width=120).print(table)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stoker-durability-") as folder:
        show(uvloop.run(measure(Path(folder))))


if __name__ == "__main__":
    main()
