"""`stoker gateway | scheduler | worker | jobs`: one part, as its own process."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import typer

from stoker import log, service
from stoker.core.events import Event
from stoker.imports import uncollected
from stoker.settings import (
    CommonSettings,
    GatewaySettings,
    JobsSettings,
    SchedulerSettings,
    WorkerSettings,
    load,
)
from stoker_cli.output import CommandFailed

Serve = Callable[[Any, Any], Awaitable[None]]

MODULES: Final = {
    "gateway": "stoker_gateway.main",
    "scheduler": "stoker_scheduler.main",
    "worker": "stoker_worker.main",
    "jobs": "stoker_jobs.main",
}

DataDir = Annotated[str | None, typer.Option(help="Data directory (STOKER_DATA_DIR).")]
RedisUrl = Annotated[str | None, typer.Option(help="Redis or Valkey to use (STOKER_REDIS_URL).")]
JsonLog = Annotated[
    bool | None, typer.Option("--json/--pretty", help="Log JSON lines, or text for people (STOKER_LOG_JSON).")
]


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on (STOKER_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 = any free one (STOKER_PORT).")
    ] = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    json: JsonLog = None,
) -> None:
    """The front door: the HTTP API."""
    flags = {"host": host, "port": port, "data_dir": data_dir, "redis_url": redis_url, "log_json": json}
    run_part("gateway", load(GatewaySettings, flags))


def scheduler(data_dir: DataDir = None, redis_url: RedisUrl = None, json: JsonLog = None) -> None:
    """The part that decides which worker runs which task. Several may run: one leads, the others stand by."""
    flags = {"data_dir": data_dir, "redis_url": redis_url, "log_json": json}
    run_part("scheduler", load(SchedulerSettings, flags))


def worker(
    name: Annotated[
        str | None, typer.Option(help="Name of this machine in worker ids (STOKER_NAME).")
    ] = None,
    cpu_workers: Annotated[int | None, typer.Option("--workers", min=0, help="CPU workers.")] = None,
    internal_url: Annotated[
        str | None, typer.Option(help="Address of the gateway for this machine (STOKER_INTERNAL_URL).")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            help="https://TOKEN@host:port, from 'stoker workers enroll'. STOKER_JOIN keeps it out of the process list."
        ),
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option(help="Certificates that vouch for gateway and Redis (STOKER_CA_FILE).")
    ] = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    json: JsonLog = None,
) -> None:
    """The daemon of this machine: keeps apps warm on its GPUs and runs tasks."""
    flags = {
        "name": name,
        "workers": None if cpu_workers is None else {"cpu": {"count": cpu_workers}},
        "internal_url": internal_url,
        "join": join,
        "ca_file": ca_file,
        "data_dir": data_dir,
        "redis_url": redis_url,
        "log_json": json,
    }
    run_part("worker", load(WorkerSettings, flags))


def jobs(data_dir: DataDir = None, redis_url: RedisUrl = None, json: JsonLog = None) -> None:
    """Background work: retention and what follows the end of a task."""
    flags = {"data_dir": data_dir, "redis_url": redis_url, "log_json": json}
    run_part("jobs", load(JobsSettings, flags))


def run_part(part: str, settings: CommonSettings) -> None:
    """Run one part until it is asked to stop.

    Raises:
        CommandFailed: the part, or a library that it needs, is not installed.
    """
    log.configure(part, json=settings.log_json, level=settings.log_level)
    with uncollected():
        serve = _load(part)
    logger = log.get_logger(part)
    logger.info(Event.PART_STARTED, data_dir=str(settings.data_dir), pool=settings.pool)
    service.run(lambda stop: serve(settings, stop))
    logger.info(Event.PART_STOPPED)


def _load(part: str) -> Serve:
    try:
        module = importlib.import_module(MODULES[part])
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"the {part} cannot start: '{error.name}' is not installed; install it with: "
            f"pip install 'stoker[{part}]'"
        ) from error
    serve: Serve = module.serve
    return serve
