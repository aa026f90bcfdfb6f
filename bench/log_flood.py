"""`make bench-logs`: does a task that prints 100 MB in 10 s slow another one on the same daemon?

Three loads beside the same echo tasks, in turns and in one run: nothing; the flooding app with its output thrown
away (what its own CPU time costs others); the flood itself. The last ratio is what the log costs.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import psutil
import uvloop
from http_load import Client, closed_loop, open_loop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import EXAMPLES, TEST_APPS, start_system

MB, SECONDS = 100, 10
RATE = 20
ROUNDS = int(os.environ.get("ROUNDS", "3"))
LOADS = ("quiet", "silent", "flood")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stoker-bench-", ignore_cleanup_errors=True) as folder:
        env = {"STOKER_LOG_MAX_BYTES": str(256 * 2**20)}
        system = start_system(Path(folder) / "data", "--workers", "2", **env)
        try:
            system.deploy(EXAMPLES / "echo")
            system.deploy(TEST_APPS / "chatty")
            results = uvloop.run(measure(system))
        finally:
            system.stop()
    show(results)


async def measure(system) -> dict[str, list[dict]]:
    """Latencies of the echo tasks by load, a summary a round."""
    client = Client(system.base_url, system.bench_key)
    _, body = await client.call("GET", "/workers")
    mine, others = (worker["id"] for worker in json.loads(body)["data"]["items"][:2])
    daemon = psutil.Process(system.pids["worker"])

    def echo():
        return client.run(request("infsh/echo", mine, message="x"))

    def flood(load):
        given = {"mb": MB, "seconds": SECONDS, "silent": load == "silent"}
        return client.run(request("test/chatty", others, do="flood", **given))

    await closed_loop(1, 50, echo)
    await client.run(request("test/chatty", others, do="flood", mb=1, silent=False))
    found: dict[str, list[dict]] = {load: [] for load in LOADS}
    for _ in range(ROUNDS):
        for load in LOADS:
            before = sum(daemon.cpu_times()[:2])
            beside = asyncio.create_task(flood(load)) if load != "quiet" else None
            await asyncio.sleep(0.5)  # the flood is under way
            latencies = await open_loop(RATE, RATE * (SECONDS - 1), echo)
            summary = latencies.summary()
            if beside is not None:
                summary["took_s"] = (await beside)["output"]["seconds"]
            summary["daemon_cpu_s"] = sum(daemon.cpu_times()[:2]) - before
            summary["daemon_mb"] = daemon.memory_info().rss / 1e6
            found[load].append(summary)
    client.close()
    return found


def request(app: str, worker: str, **given: object) -> bytes:
    return json.dumps({"app": app, "infra": "private", "workers": [worker], "input": given}).encode()


def show(found: dict[str, list[dict]]) -> None:
    table = Table(
        title=f"{MB} MB of log in {SECONDS} s beside {RATE} echo tasks a second; median of {ROUNDS}"
    )
    for name in ("measure", *LOADS, "flood / quiet", "flood / silent"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    rows = {"result_p50": "ms", "result_p99": "ms", "start_p50": "ms", "daemon_cpu_s": "s", "daemon_mb": "MB"}
    for name, unit in rows.items():
        values = [statistics.median(round_[name] for round_ in found[load]) for load in LOADS]
        ratios = [f"{values[2] / values[0]:.2f}", f"{values[2] / values[1]:.2f}"]
        table.add_row(f"{name}, {unit}", *(f"{value:.2f}" for value in values), *ratios)
    Console(width=120).print(table)
    took = statistics.median(round_["took_s"] for round_ in found["flood"])
    print(f"the flood took {took:.1f} s; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
