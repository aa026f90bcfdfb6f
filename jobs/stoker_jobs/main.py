"""The jobs part: RQ workers in child processes, RQ's cron for the regular jobs, webhooks, calls of addresses.

RQ's own cron loop takes the process's signals and sleeps; here its scheduler object is asked by an asyncio
loop instead, so that stopping is immediate.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError
from rq.cron import CronScheduler
from rq.scheduler import RQScheduler

from stoker.core.events import Event
from stoker.log import Logger, get_logger
from stoker.pulse import Pulse, tell_loop
from stoker.service import PARENT_VARIABLE
from stoker.settings import PREFIX, JobsSettings
from stoker_jobs.address_calls import CALLS, call_loop
from stoker_jobs.file_sweep import sweep_files, sweep_orphans
from stoker_jobs.queue import Names, connect
from stoker_jobs.relay import OUTBOX, Relay
from stoker_jobs.rq_worker import silent_worker_s
from stoker_jobs.tasks import sweep_tasks
from stoker_jobs.waiting import await_store, pause
from stoker_jobs.webhooks import WEBHOOKS, deliver_loop

TICK_S: Final = 1.0
RESTART_DELAY_S: Final = 1.0
CRON, RQ_WORKER, STEP_WORKER = "cron", "rq", "steps"
"""The loops that read, by the names that people see, beside the relay's."""
STOP_TIMEOUT_S: Final = 8.0
JOB_TIMEOUT_S: Final = 300
ORPHANS_S: Final = 6 * 3600
"""Between two searches for bytes without a record: each lists the whole file store, which may cost money."""


@dataclass(slots=True)
class _Child:
    """An RQ worker: the queue that it serves, its name for people, its process that lives now."""

    queue: str
    name: str
    pid: int = 0


async def serve(settings: JobsSettings, stop: asyncio.Event) -> None:
    """Run the background work until `stop` is set; a job that runs then is finished first."""
    log = get_logger("jobs")
    pulse = Pulse(OUTBOX, CRON, WEBHOOKS, CALLS)
    names = Names(settings.pool)
    jobs = _Child(names.jobs, RQ_WORKER)
    steps = [_Child(names.steps, step_worker_name(n)) for n in range(1, settings.step_workers + 1)]
    relay = Relay(settings, log, pulse)

    def on_steps_died() -> None:
        relay.look_at_all = True

    async with asyncio.TaskGroup() as group:
        group.create_task(relay.run(stop))
        group.create_task(deliver_loop(settings, stop, log, pulse))
        group.create_task(call_loop(settings, stop, log, pulse))
        group.create_task(_cron_loop(settings, stop, log, pulse, (jobs, *steps)))
        group.create_task(_worker_loop(settings, stop, log, jobs, None))
        for child in steps:
            group.create_task(_worker_loop(settings, stop, log, child, on_steps_died))
        telling = group.create_task(_tell_loop(settings, stop, log, pulse))
        await stop.wait()
        telling.cancel()


def step_worker_name(number: int) -> str:
    """What people see of the first, second ... worker of steps."""
    return STEP_WORKER if number == 1 else f"{STEP_WORKER}-{number}"


async def _tell_loop(settings: JobsSettings, stop: asyncio.Event, log: Logger, pulse: Pulse) -> None:
    """Report how long each loop has heard nothing."""
    store = await await_store(settings, stop, log)
    if store is not None:
        try:
            process = f"{socket.gethostname()}-{os.getpid()}"
            await tell_loop(store.pulses, process, "jobs", pulse.silent_s)
        finally:
            await store.close()


async def _cron_loop(
    settings: JobsSettings, stop: asyncio.Event, log: Logger, pulse: Pulse, children: "tuple[_Child, ...]"
) -> None:
    """Put due jobs into the queue: the regular ones and the retries. Redis being away is waited out."""
    names = Names(settings.pool)
    cron = CronScheduler(connect(settings.jobs_url), logging_level="WARNING")
    regular: tuple[tuple[Callable[[], object], float, str], ...] = (
        (sweep_tasks, settings.sweep_s, "retention"),
        (sweep_files, settings.sweep_s, "file retention"),
        (sweep_orphans, ORPHANS_S, "orphaned files"),
    )
    for job, interval_s, name in regular:
        cron.register(
            job,
            queue_name=names.jobs,
            interval=max(1, round(interval_s)),
            job_timeout=JOB_TIMEOUT_S,
            result_ttl=round(interval_s),
            name=names.of(name),
        )
    later = RQScheduler([names.jobs, names.steps], cron.connection, logging_level="WARNING")
    steps: tuple[Callable[[], object], ...] = (
        cron.enqueue_jobs,
        later.acquire_locks,
        later.enqueue_scheduled_jobs,
    )

    def tick() -> None:
        for step in steps:
            step()

    while not stop.is_set():
        try:
            await asyncio.to_thread(tick)
            pulse.beat(CRON)
            for child in children:
                await asyncio.to_thread(_hear_worker, cron.connection, child, pulse)
        except (RedisError, OSError) as error:
            log.warning(Event.JOBS_DELAYED, reason=str(error))
        await pause(stop, TICK_S)
    with contextlib.suppress(RedisError, OSError):
        await asyncio.to_thread(later.release_locks)


async def _worker_loop(
    settings: JobsSettings,
    stop: asyncio.Event,
    log: Logger,
    child: _Child,
    on_death: Callable[[], None] | None,
) -> None:
    """Keep one RQ worker alive."""
    env = os.environ | {
        PARENT_VARIABLE: str(os.getpid()),
        f"{PREFIX}DATA_DIR": str(settings.data_dir),
        f"{PREFIX}REDIS_URL": settings.store_url,
        f"{PREFIX}JOBS_REDIS_URL": settings.jobs_url,
        f"{PREFIX}POOL": settings.pool,
    }
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stoker_jobs.rq_worker", child.queue),
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
        )
        child.pid = process.pid
        try:
            await _first(process.wait(), stop.wait())
        finally:
            await _end(process)
        if not stop.is_set():
            log.warning(Event.PART_DIED, name=f"rq-worker {child.queue}", status=process.returncode)
            if on_death is not None:
                on_death()
            await pause(stop, RESTART_DELAY_S)


def _hear_worker(connection: Redis, child: _Child, pulse: Pulse) -> None:
    """Take over when the RQ worker was last heard: between jobs it tells every other second, in one every 30 s."""
    silent_s = silent_worker_s(connection, child.pid)
    if silent_s is not None:
        pulse.beat(child.name, silent_s)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop the worker: TERM lets its job finish, KILL does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when one of the waits is over; drop the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
