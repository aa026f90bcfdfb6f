"""The run: a system with two daemons, a load, faults by a seed, and what became of every task."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from faults.chaos.servers import SERVERS
from faults.chaos.table import DAEMON_KILLS, FAULTS, LEASE_S, REASONS, Fault, Victim
from helpers import PATIENCE_S, TEST_APPS, System, alive, environment, kill, start_system, wait_until

COMPLETED, FAILED, CANCELLED, RUNNING = 9, 10, 11, 7
ASK_S = 60.0
"""How long a request is repeated while the gateway is away."""
END_S = 180.0
"""How long a task may take, all faults included."""
GAP_S = (0.5, 3.0)
ALONE_S = (8.0, 12.0)
"""Between two kills of daemons when nothing else is broken: what the last one hit runs again."""
INFLIGHT = 40
KEEP_S = 0.5
MODELS = 3


@dataclass(frozen=True)
class Plan:
    """What to run."""

    tasks: int
    seed: int
    servers: str = "one"
    """A name of `faults.chaos.servers.SERVERS`."""
    server_kill_s: float = 0.0
    """Between two kills of the server, or of the primary; 0 = only those by chance."""
    daemons_only: bool = False
    """Break nothing but daemons, one at a time."""
    least_faults: int = 0
    """A machine that has done all tasks before so many faults gets more tasks, up to ten times as many."""


@dataclass
class Report:
    """What happened. `lost`, `doubled`, `stuck` and `unexplained` have to be empty."""

    seed: int
    tasks: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.stuck or self.unexplained or self.left)

    def lines(self) -> list[str]:
        """For people."""
        found = sorted(self.recoveries_s)
        p99 = found[min(len(found) - 1, int(0.99 * len(found)))] if found else 0.0
        p50 = found[len(found) // 2] if found else 0.0
        return [
            f"seed {self.seed}: {self.tasks} tasks in {self.seconds:.0f} s, {self.faults.total()} faults",
            *(f"  {count:5d} x {name}" for name, count in sorted(self.faults.items())),
            f"ended: {dict(self.ended)}; attempts: {dict(sorted(self.attempts.items()))}",
            (
                f"from a killed daemon to running elsewhere: {len(found)} tasks, p50 {p50:.1f} s, p99 {p99:.1f} s "
                f"(lease {LEASE_S} s)"
            ),
            (
                f"lost {len(self.lost)}, doubled {len(self.doubled)}, stuck {len(self.stuck)}, "
                f"unexplained {len(self.unexplained)}, left over {len(self.left)}"
            ),
            *(f"  {line}" for line in self.lost + self.doubled + self.stuck + self.unexplained + self.left),
        ]


class Second:
    """A further daemon on the same server, started again when it ends, as systemd would."""

    def __init__(self, system: System, redis_url: str, folder: Path) -> None:
        self._env = environment(
            STOKER_DATA_DIR=str(folder),
            STOKER_NAME="second",
            STOKER_REDIS_URL=redis_url,
            STOKER_INTERNAL_URL=system.base_url,
            STOKER_LEASE_S=str(LEASE_S),
            STOKER_WORKERS='{"gpu": [], "cpu": {"count": 4}}',
            STOKER_DRAIN_GRACE_S="2",
            STOKER_PARENT_PID=str(os.getpid()),
        )
        self._log = folder.with_suffix(".log").open("ab")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "stoker_cli", "worker"]
        return subprocess.Popen(command, env=self._env, stdout=self._log, stderr=self._log)

    def keep(self) -> None:
        if self.process.poll() is not None:
            self.process = self._start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        self._log.close()


class Chaos:
    """One run."""

    def __init__(self, plan: Plan, system: System, servers: Any, second: Second) -> None:
        self.plan = plan
        self.system = system
        self.servers = servers
        self.second = second
        self.random = random.Random(plan.seed)  # noqa: S311 - no secret
        self.report = Report(plan.seed)
        self.first_seen: dict[str, dict[str, Any]] = {}
        self._held: set[asyncio.Task[None]] = set()
        self._kills: list[tuple[float, str]] = []  # wall time, prefix of the workers' ids
        self._client = httpx.AsyncClient(
            base_url=system.base_url,
            headers={"Authorization": f"Bearer {system.bench_key}"},
            timeout=10,
            trust_env=False,
        )

    async def run(self) -> Report:
        """Submit tasks, break things meanwhile, and look at what became of all."""
        begun = time.monotonic()
        room = asyncio.Semaphore(INFLIGHT)

        async def one(number: int) -> None:
            async with room:
                await self._one(number)

        breaking = [asyncio.create_task(self._break()), asyncio.create_task(self._keep_second())]
        if self.plan.server_kill_s:
            breaking.append(asyncio.create_task(self._kill_server()))
        try:
            await asyncio.gather(*(one(number) for number in range(self.plan.tasks)))
            self.report.tasks = self.plan.tasks
            while (
                self.report.faults.total() < self.plan.least_faults
                and self.report.tasks < 10 * self.plan.tasks
            ):
                await asyncio.gather(*(one(self.report.tasks + more) for more in range(INFLIGHT)))
                self.report.tasks += INFLIGHT
        finally:
            for task in breaking:
                task.cancel()
            ended = await asyncio.gather(*breaking, *self._held, return_exceptions=True)
        if failures := [error for error in ended if isinstance(error, Exception)]:
            raise ExceptionGroup("not everything was broken that was to be", failures)
        self.second.keep()  # one killed last is followed by one that tidies up after it
        await self._judge()
        await self._client.aclose()
        self.report.seconds = time.monotonic() - begun
        return self.report

    # The load.

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An answer, as soon as somebody gives one: what is away is asked again."""
        until = time.monotonic() + ASK_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._client.request(method, path, **options)
                if answer.status_code not in {502, 503, 504}:
                    return answer
            if time.monotonic() > until:
                raise AssertionError(f"nobody answered {method} {path} for {ASK_S:g} s")
            await asyncio.sleep(0.2)

    async def _one(self, number: int) -> None:
        call = {
            "number": number,
            "seconds": self.random.choice([0, 0, 0.2, 0.5, 1.5]),
            "child": self.random.random() < 0.1,
            "file": self.random.random() < 0.2,
        }
        setup = {"model": self.random.randrange(MODELS)}
        body = {"app": "tests/chaos", "infra": "private", "input": call, "setup": setup}
        headers = {"Idempotency-Key": f"{self.report.seed}-{number}"}
        answer = await self._ask("POST", "/apps/run", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        task_id = answer.json()["data"]["id"]
        until = time.monotonic() + END_S
        while time.monotonic() < until:
            found = await self._ask("GET", f"/tasks/{task_id}")
            if found.status_code == 404:
                self.report.lost.append(f"{task_id} ({number}) was accepted and is not known")
                return
            task = found.json()["data"]
            if task["status"] >= COMPLETED:
                self.first_seen[task_id] = task
                return
            await asyncio.sleep(0.2)
        self.report.stuck.append(f"{task_id} ({number}) is {task['status_text']}: {task.get('queue_reason')}")

    # The faults.

    async def _break(self) -> None:
        faults = DAEMON_KILLS if self.plan.daemons_only else FAULTS
        while True:
            await asyncio.sleep(self.random.uniform(*(ALONE_S if self.plan.daemons_only else GAP_S)))
            [fault] = self.random.choices(faults, [fault.weight for fault in faults])
            pid = self._pid_of(fault.victim)
            if pid is None:
                continue
            if fault.how is signal.SIGKILL and fault.victim in {Victim.DAEMON, Victim.SECOND}:
                name = "second" if fault.victim is Victim.SECOND else ""
                self._kills.append((time.time(), name))
            self._send(fault, pid)

    async def _kill_server(self) -> None:
        while True:
            await asyncio.sleep(self.plan.server_kill_s)
            with contextlib.suppress(ProcessLookupError):
                await self.servers.kill(self.system)
                self.report.faults[Fault(Victim.SERVER, signal.SIGKILL).name] += 1

    async def _keep_second(self) -> None:
        while True:
            self.second.keep()
            await asyncio.sleep(KEEP_S)

    def _send(self, fault: Fault, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            kill(pid, fault.how)
            self.report.faults[fault.name] += 1
            if fault.stop_s:
                self._held.add(asyncio.create_task(_go_on(pid, fault.stop_s)))

    def _pid_of(self, victim: Victim) -> int | None:
        daemons = [self.system.pids.get("worker"), self.second.process.pid]
        if victim is Victim.SECOND:
            return daemons[1] if self.second.process.poll() is None else None
        if victim is Victim.INSTANCE:
            return self._one_of([pid for daemon in daemons for pid in _below(daemon)])
        if victim is Victim.CHILD:
            instances = [pid for daemon in daemons for pid in _below(daemon)]
            return self._one_of([pid for instance in instances for pid in _below(instance)])
        if victim is Victim.SERVER and not self.servers.takes_faults:
            return None
        part = {Victim.DAEMON: "worker"}.get(victim, victim.value)
        return self.system.pids.get(part) or None  # zero: it is away

    def _one_of(self, pids: list[int]) -> int | None:
        return self.random.choice(sorted(pids)) if pids else None

    # What became of it.

    async def _judge(self) -> None:
        for task_id, first in self.first_seen.items():
            answer = await self._ask("GET", f"/tasks/{task_id}")
            if answer.status_code == 404:
                self.report.lost.append(f"{task_id} had ended and is not known")
                continue
            task = answer.json()["data"]
            self._judge_one(task_id, first, task)
            await self._ask("DELETE", f"/tasks/{task_id}")

    def _judge_one(self, task_id: str, first: dict[str, Any], task: dict[str, Any]) -> None:
        self.report.ended[task["status_text"]] += 1
        self.report.attempts[task["attempt"]] += 1
        endings = [event for event in task["events"] if event["status"] >= COMPLETED]
        if len(endings) != 1 or (first["status"], first["output"]) != (task["status"], task["output"]):
            self.report.doubled.append(
                f"{task_id} ended {len(endings)} times: {first['output']}, {task['output']}"
            )
        if task["status"] == FAILED and not any(reason in task["error"] for reason in REASONS):
            self.report.unexplained.append(f"{task_id} failed: {task['error'][:300]}")
        if task["status"] == CANCELLED:
            self.report.unexplained.append(f"{task_id} was cancelled, by nobody")
        self._note_recovery(task)

    def _note_recovery(self, task: dict[str, Any]) -> None:
        """From the kill of a daemon until the function runs again."""
        runs = [_wall(event) for event in task["events"] if event["status"] == RUNNING]
        for before, after in itertools.pairwise(runs):
            kills = [at for at, _ in self._kills if before <= at <= after]
            if kills:
                self.report.recoveries_s.append(after - kills[0])


def _wall(event: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["event_time"]).timestamp()


async def _go_on(pid: int, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGCONT)


def _below(pid: int | None) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children()] if pid else []
    except psutil.NoSuchProcess:
        return []


def keys_of_tasks(redis: Any) -> list[str]:
    """Keys that belong to single tasks, on the server."""
    kinds = (":task:", ":control:", ":logs:")
    return sorted(
        key.decode() for key in redis.scan_iter(count=1000) if any(kind in key.decode() for kind in kinds)
    )


def contents(redis: Any) -> list[str]:
    """What a server has, a line a key: hashes, streams and sorted sets."""
    found = []
    for key in sorted(redis.scan_iter(count=1000)):
        kind = redis.type(key)
        if kind == b"hash":
            found.append(f"{key!r} {redis.hgetall(key)}")
        elif kind == b"stream":
            found.append(f"{key!r} {redis.xrange(key)}")
        elif kind == b"zset":
            found.append(f"{key!r} {redis.zrange(key, 0, -1, withscores=True)}")
    return found


def play(folder: Path, plan: Plan) -> Report:
    """Start a system in `folder`, run, stop it, and look for what is left."""
    servers = SERVERS[plan.servers](folder)
    system = start_system(
        folder / "data",
        "--workers",
        "4",
        STOKER_LEASE_S=str(LEASE_S),
        STOKER_TELEMETRY_S="1",
        STOKER_DRAIN_GRACE_S="2",
        **servers.env,
    )
    second = None
    try:
        system.deploy(TEST_APPS / "chaos")
        second = Second(system, servers.url(system), folder / "second")
        report = asyncio.run(Chaos(plan, system, servers, second).run())
        if report.clean:
            wait_until(lambda: not keys_of_tasks(servers.direct(system)), "the end of all tasks' keys")
        report.left += keys_of_tasks(servers.direct(system))
        if report.left:
            (folder / "keys.txt").write_text("\n".join(contents(servers.direct(system))))
    finally:
        if second is not None:
            second.stop()
        system.stop()
        servers.stop()
        left = [p.pid for p in psutil.process_iter() if _is_ours(p, folder)]
        for pid in left:
            wait_until(lambda pid=pid: not alive(pid), f"the end of process {pid}")
    report.left += files_of_attempts(folder)
    (folder / "report.json").write_text(json.dumps({"lines": report.lines()}))
    return report


def files_of_attempts(folder: Path) -> list[str]:
    """What instances and attempts had on disk for themselves, and short paths in /tmp that lead there."""
    found = [
        str(path)
        for pattern in ("*/*/work/*/*", "*/spool/*/*.outcome", "*/spool/*/logs/*")
        for path in folder.glob(pattern)
    ]
    for link in Path(tempfile.gettempdir()).glob("stoker-app-*/w"):
        with contextlib.suppress(FileNotFoundError):  # of another system
            if link.readlink().is_relative_to(folder):
                found.append(str(link))
    return found


def _is_ours(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.pid != os.getpid() and any(str(folder) in part for part in process.cmdline())
    return False
