"""The `stoker up` command: starts the system, tells how to use it, stays until Ctrl-C."""

import asyncio
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker import log, service
from stoker.embedded import DirLock
from stoker.lossy_stream import lose_what_cannot_be_printed
from stoker.server_address import listen_address
from stoker.settings import (
    GatewaySettings,
    InvalidSettings,
    JobsSettings,
    SchedulerSettings,
    UpSettings,
    WorkerSettings,
    load,
)
from stoker_cli.output import err, out, print_event, safe
from stoker_cli.up.greeting import Greeting
from stoker_cli.up.supervisor import Supervisor


def up(
    port: Annotated[
        int | None, typer.Option(help="Port of the gateway; 0 = any free one (STOKER_PORT).")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory (STOKER_DATA_DIR).")] = None,
    host: Annotated[str | None, typer.Option(help="Address that the gateway listens on.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="CPU workers of this machine.")] = None,
    examples: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Deploy the apps of this folder.")
    ] = None,
    first_task: Annotated[
        list[str] | None,
        typer.Option(help="Run this once the system is ready: 'namespace/name field=value file=@path'."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="host:port at which further machines may join (STOKER_LISTEN).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines, for programs.")] = False,
) -> None:
    """Start the whole system on this machine: database, gateway, scheduler, jobs and worker.

    Ctrl-C ends it, after what runs has finished; a second Ctrl-C ends it now.
    """
    flags = {
        "port": port,
        "data_dir": data_dir,
        "host": host,
        "cpu_workers": workers,
        "examples": examples,
        "listen": listen,
    }
    settings = load(UpSettings, flags)
    for part in (GatewaySettings, SchedulerSettings, WorkerSettings, JobsSettings):
        load(part)  # a part that cannot start would only be started again and again
    check_listen(settings)
    lose_what_cannot_be_printed()
    # People get sentences and warnings; events are for programs.
    log.configure("up", json=json, level=settings.log_level if json else "warning")
    service.run(lambda stop: serve(settings, stop, first_task or [], json=json))


async def serve(settings: UpSettings, stop: asyncio.Event, first_tasks: list[str], *, json: bool) -> None:
    """Run the system until `stop` is set.

    Raises:
        DataDirInUse: another copy runs on this data directory.
        ServerFailed: the database did not start.
        OSError: the port is taken.
    """
    lock = DirLock(settings.data_dir / "stoker.lock")
    await lock.take()
    settings.url_file.unlink(missing_ok=True)
    supervisor = Supervisor(settings, on_warning=_ignore if json else print_warning)
    greeting = Greeting(settings, supervisor, first_tasks, json=json)
    try:
        await _until(stop, _begin(supervisor, greeting))
        await stop.wait()
        if not json:
            out.print("\nstopping; what runs may finish [dim](Ctrl-C again: now)[/]")
        await supervisor.stop()
    except asyncio.CancelledError:
        await supervisor.stop(now=True)
        raise
    finally:
        await supervisor.stop(now=True)
        lock.release()
    if json:
        print_event("stopped")
    else:
        out.print("stopped")


async def _begin(supervisor: Supervisor, greeting: Greeting) -> None:
    await supervisor.start()
    await greeting.run()


def check_listen(settings: UpSettings) -> None:
    """Refuse an address that would carry keys and results over a network in the clear.

    Raises:
        InvalidSettings: says what to do instead.
    """
    if not settings.listen:
        return
    if settings.redis_url:
        raise InvalidSettings(
            f"--listen {settings.listen}: it is for the embedded server, and STOKER_REDIS_URL names another one, "
            "which machines that join reach by themselves (STOKER_WORKER_REDIS_URL, if by another address)"
        )
    try:
        host, _ = listen_address(settings.listen)
    except ValueError as error:
        raise InvalidSettings(f"--listen: {error}; for instance 127.0.0.1:6380") from error
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise InvalidSettings(
            f"--listen {settings.listen}: it can be reached from a network, and the embedded server has no TLS. "
            "Listen on 127.0.0.1 and let machines come through a tunnel, or run a Redis or Valkey with TLS and give "
            "its address to `stoker up`: STOKER_REDIS_URL=rediss://user:password@host:port"
        )


def print_warning(part: str, fields: Mapping[str, Any]) -> None:
    """A part's warning, on the terminal."""
    hidden = {"event", "level", "timestamp", "part", "component", "exception"}
    details = " ".join(f"{name}={value}" for name, value in fields.items() if name not in hidden)
    err.print(f"[yellow]{safe(part)}[/] {safe(str(fields.get('event')))} [dim]{safe(details[:400])}[/]")


def _ignore(_part: str, _fields: Mapping[str, Any]) -> None:
    """Programs read the logs."""


async def _until(stop: asyncio.Event, work: Any) -> None:
    """Run `work` to its end, or drop it when `stop` is set."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        task.cancel()
        await asyncio.gather(task, waiter, return_exceptions=True)
    if not task.cancelled() and (error := task.exception()):
        raise error
