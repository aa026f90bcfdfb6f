"""`make bench-agents`: how long do the turns of 200 chats take that talk at once?

Each chat is one message, two calls of a tool of the client's own, and the answer; the model answers in 50 ms. A turn is
from what the client sends (the message, a result) to what the model has said to it, on the client's stream.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import TEST_APPS, start_system
from http_load import Client

CHATS = int(os.environ.get("CHATS", "200"))
WORKERS = int(os.environ.get("WORKERS", "12"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
TOOL = {
    "name": "look",
    "type": "client",
    "client": {
        "input_schema": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
    },
}
AGENT = {"core_app": {"ref": "tests/talker"}, "tools": [TOOL]}
LIMIT_S = 120


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stoker-bench-", ignore_cleanup_errors=True) as folder:
        system = start_system(Path(folder) / "data", "--workers", str(WORKERS))
        try:
            system.deploy(TEST_APPS / "talker")
            rounds = uvloop.run(measure(system))
        finally:
            system.stop()
    show(rounds)


async def measure(system) -> list[dict[str, float]]:
    client = Client(system.base_url, system.bench_key)
    await asyncio.gather(*(chat(client, []) for _ in range(WORKERS * 2)))  # the model is loaded everywhere
    rounds = []
    for _ in range(ROUNDS):
        turns: list[float] = []
        before, began = cpu_s(system), time.monotonic()
        await asyncio.gather(*(chat(client, turns) for _ in range(CHATS)))
        took = time.monotonic() - began
        cuts = statistics.quantiles(turns, n=100)
        rounds.append(
            {
                "p50": cuts[49],
                "p95": cuts[94],
                "max": max(turns),
                "turns": len(turns),
                "per_s": len(turns) / took,
            }
            | {part: (used - before[part]) / len(turns) for part, used in cpu_s(system).items()}
        )
    client.close()
    return rounds


def cpu_s(system) -> dict[str, float]:
    """CPU seconds of each part and its children so far, and of this client."""
    found = {"client": sum(psutil.Process().cpu_times()[:2])}
    for part, pid in system.pids.items():
        if part != "up":
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            found[part] = sum(sum(process.cpu_times()[:2]) for process in family)
    return found


async def chat(client: Client, turns: list[float]) -> None:
    """One chat to its end; a lost step would leave it waiting, and the bound says so."""
    async with asyncio.timeout(LIMIT_S):
        began = time.monotonic()
        made = await post(client, "/agents/run", {"agent_config": AGENT, "input": {"text": "Go"}})
        seen: set[str] = set()
        async with client.stream(f"/chats/{made['assistant_message']['chat_id']}/stream") as lines:
            while True:
                said = answer(await lines.get())
                if said is None or said["id"] in seen:
                    continue
                seen.add(said["id"])
                turns.append(time.monotonic() - began)
                calls = said["tool_invocations"]
                if not calls:
                    if said["content"][0]["text"] != "Done after 2 calls.":
                        raise RuntimeError(f"a lost step: {said}")
                    return
                began = time.monotonic()
                await post(client, f"/tools/{calls[0]['id']}", {"result": "seen"})


async def post(client: Client, path: str, body: dict) -> dict:
    status, found = await client.call("POST", path, json.dumps(body).encode())
    if status != 200:
        raise RuntimeError(f"{path}: {status} {found.decode()[:300]}")
    return json.loads(found)["data"]


def answer(line: bytes) -> dict | None:
    """What the model has said to its end, if that is what a line of the stream tells."""
    if b'"chat_messages"' not in line:
        return None
    event = json.loads(line)
    data = event["data"]
    is_said = event["event"] == "chat_messages" and data["role"] == "assistant" and data["status"] == "ready"
    return data if is_said else None


def show(rounds: list[dict[str, float]]) -> None:
    table = Table(title=f"{CHATS} chats at once, two calls of a tool each; {WORKERS} workers")
    parts = [name for name in rounds[0] if name not in ("p50", "p95", "max", "turns", "per_s")]
    for name in (
        "round",
        "turns",
        "p50 s",
        "p95 s",
        "max s",
        "turns/s",
        *(f"{part} CPU ms" for part in parts),
    ):
        table.add_column(name)
    for number, found in enumerate(rounds, 1):
        table.add_row(
            str(number),
            f"{found['turns']:.0f}",
            f"{found['p50']:.2f}",
            f"{found['p95']:.2f}",
            f"{found['max']:.2f}",
            f"{found['per_s']:.0f}",
            *(f"{found[part] * 1000:.1f}" for part in parts),
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
