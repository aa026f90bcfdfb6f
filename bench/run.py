"""`make bench`: Stoker and RQ side by side on one embedded server, in one run; prints a table with ratios.

Ends by itself after about four minutes. Everything listens on loopback or on unix sockets; what it starts, it ends.
"""

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import protocol_level
import psutil
import quiet
import rq_level
import uvloop
from http_load import Client, closed_loop, open_loop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import EXAMPLES, start_system

from stoker.server_address import redis_socket, socket_url

OUT = Path(__file__).parent / "out"
ECHO = b'{"app":"infsh/echo","infra":"private","input":{"message":"x"}}'
WORKERS = 8


def main() -> None:
    begun, before = time.time(), quiet.described()
    with tempfile.TemporaryDirectory(prefix="stoker-bench-", ignore_cleanup_errors=True) as folder:
        system = start_system(Path(folder) / "data", "--workers", str(WORKERS))
        try:
            system.deploy(EXAMPLES / "echo")
            results = uvloop.run(http_results(system))
            results |= ocr_results(system)
            url = socket_url(redis_socket(system.data_dir))
            results["rq_simple"] = rq_level.measure(url, "simple", 20, 200, 600) | at_200(url)
            results["rq_fork"] = rq_level.measure(url, "fork", 20, 100, 100)
        finally:
            system.stop()
    results |= asyncio.run(protocol_results())
    results["machine"] = (
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB, {platform.platform()}; "
        f"before: {before}; after: {quiet.described()}"
    )
    results["seconds"] = round(time.time() - begun)
    OUT.mkdir(exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(results, indent=1))
    show(results)


def at_200(url: str) -> dict[str, float]:
    found = rq_level.measure(url, "simple", 200, 1000, 10)
    return {f"{name}_200": value for name, value in found.items() if name != "per_s"}


async def http_results(system) -> dict:
    """Latency at two rates; throughput with one worker and with all."""
    client = Client(system.base_url, system.bench_key)
    one_worker = await first_worker(client)

    def on_one() -> object:
        body = json.dumps(json.loads(ECHO) | {"workers": [one_worker]}).encode()
        return client.run(body)

    await closed_loop(32, 400, lambda: client.run(ECHO))  # every worker loads its instance
    slow = await open_loop(20, 400, lambda: client.run(ECHO))
    fast = await open_loop(200, 2000, lambda: client.run(ECHO))
    results = {
        "at_20": slow.summary(),
        "at_200": fast.summary(),
        "one_worker_per_s": round(await closed_loop(16, 1000, on_one), 1),
        "all_workers_per_s": round(await closed_loop(64, 4000, lambda: client.run(ECHO)), 1),
    }
    client.close()
    return results


async def first_worker(client: Client) -> str:
    _, body = await client.call("GET", "/workers")
    return json.loads(body)["data"]["items"][0]["id"]


def ocr_results(system) -> dict:
    """A real model: the first task, and the median of those after it."""
    system.deploy(EXAMPLES / "ocr")
    with system.client() as http:
        image = EXAMPLES / "ocr" / "sample.png"
        record = http.post(
            "/files", json={"files": [{"filename": image.name, "size": image.stat().st_size}]}
        ).json()["data"][0]
        http.put(record["upload_url"], content=image.read_bytes()).raise_for_status()
        took = []
        for _ in range(6):
            begun = time.perf_counter()
            body = {"app": "examples/ocr", "infra": "private", "input": {"image": record["uri"]}}
            task_id = http.post("/apps/run", json=body).json()["data"]["id"]
            http.get(
                f"/tasks/{task_id}/stream", headers={"Accept": "application/x-ndjson"}, timeout=120
            ).read()
            took.append(time.perf_counter() - begun)
    return {"ocr_cold_s": round(took[0], 3), "ocr_warm_s": round(sorted(took[1:])[2], 3)}


async def protocol_results() -> dict:
    """Tasks a second without HTTP, with one worker and with eight."""
    from stoker.embedded import EmbeddedServer

    results = {}
    for workers in (1, WORKERS):
        with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
            server = EmbeddedServer(Path(folder))
            await server.start()
            try:
                results[f"protocol_{workers}_per_s"] = round(
                    await protocol_level.measure(server.url, workers, 10_000)
                )
            finally:
                await server.stop()
    return results


def show(results: dict) -> None:
    """The table; RQ's columns are other processes on the same server in the same run."""
    simple, fork = results["rq_simple"], results["rq_fork"]
    rows = [
        (
            "submit to start, p50 at 20/s",
            "ms",
            results["at_20"]["start_p50"],
            simple["start_p50"],
            fork["start_p50"],
        ),
        (
            "submit to start, p99 at 20/s",
            "ms",
            results["at_20"]["start_p99"],
            simple["start_p99"],
            fork["start_p99"],
        ),
        (
            "submit to result, p50 at 20/s",
            "ms",
            results["at_20"]["result_p50"],
            simple["result_p50"],
            fork["result_p50"],
        ),
        (
            "submit to result, p99 at 20/s",
            "ms",
            results["at_20"]["result_p99"],
            simple["result_p99"],
            fork["result_p99"],
        ),
        (
            "submit to start, p50 at 200/s",
            "ms",
            results["at_200"]["start_p50"],
            simple["start_p50_200"],
            None,
        ),
        (
            "submit to start, p99 at 200/s",
            "ms",
            results["at_200"]["start_p99"],
            simple["start_p99_200"],
            None,
        ),
        (
            "submit to result, p50 at 200/s",
            "ms",
            results["at_200"]["result_p50"],
            simple["result_p50_200"],
            None,
        ),
        (
            "submit to result, p99 at 200/s",
            "ms",
            results["at_200"]["result_p99"],
            simple["result_p99_200"],
            None,
        ),
        ("no-op tasks, HTTP, one worker", "/s", results["one_worker_per_s"], simple["per_s"], fork["per_s"]),
        (
            "no-op tasks, HTTP, eight workers",
            "/s",
            results["all_workers_per_s"],
            simple["per_s"],
            fork["per_s"],
        ),
        (
            "no-op tasks, protocol, one worker",
            "/s",
            results["protocol_1_per_s"],
            simple["per_s"],
            fork["per_s"],
        ),
        (
            "no-op tasks, protocol, eight workers",
            "/s",
            results["protocol_8_per_s"],
            simple["per_s"],
            fork["per_s"],
        ),
        ("OCR, cold and warm", "s", f"{results['ocr_cold_s']} / {results['ocr_warm_s']}", None, None),
    ]
    table = Table(title=f"{results['machine']}; {results['seconds']} s")
    for name in ("measure", "unit", "Stoker", "RQ SimpleWorker", "ratio", "RQ forking", "ratio"):
        table.add_column(name, justify="left" if name in {"measure", "unit"} else "right")
    for name, unit, ours, *others in rows:
        cells = []
        for other in others:
            cells += ["-", "-"] if other is None else [str(other), f"{ours / other:.2f}"]
        table.add_row(name, unit, str(ours), *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
