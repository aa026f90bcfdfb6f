"""The parts of a one-machine system and their order.

Start: database, then the rest at once. Stop: worker (finishes what runs), scheduler and jobs, gateway,
database. When this process is killed the kernel ends every part (see `stoker.service`).
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stoker.core.errors import StokerError
from stoker.core.events import Event
from stoker.embedded import EmbeddedServer
from stoker.listening import listen_on, reached_at
from stoker.log import get_logger
from stoker.secret_settings import READERS
from stoker.service import PARENT_VARIABLE
from stoker.settings import PREFIX, UpSettings
from stoker_cli.up.part import Part, PartSpec, decide_delay
from stoker_cli.up.part_log import OnWarning, PartLog

if TYPE_CHECKING:
    import socket

STOP_ORDER: Final = (("worker",), ("scheduler", "jobs"), ("gateway",))
STOP_GRACE_S: Final = 10.0
WORKER_EXTRA_S: Final = 15.0
"""On top of the drain grace: unloading instances and the last writes."""
NOW_GRACE_S: Final = 3.0


class Supervisor:
    """All processes of one running system.

    1. `start`: the database answers, the gateway's port is bound, every part is started
    2. `stop`: everything is gone, in order; `stop(now=True)` leaves the parts 3 seconds.
    """

    def __init__(self, settings: UpSettings, on_warning: OnWarning) -> None:
        self.settings = settings
        self.pids: dict[str, int] = {"up": os.getpid()}
        self.parts: dict[str, Part] = {}
        self.url = ""
        self._on_warning = on_warning
        self._log = get_logger("up")
        self._server = None if settings.redis_url else EmbeddedServer(settings.data_dir, settings.listen)
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def store_url(self) -> str:
        """The Redis that the parts use."""
        return self._server.url if self._server else self.settings.store_url

    async def start(self) -> None:
        """Start everything.

        Raises:
            DataDirInUse: another copy runs on this data directory.
            ServerFailed: the embedded server did not start.
            OSError: the port is taken.
        """
        self._socket = listen_on(self.settings.host, self.settings.port)
        port = self._socket.getsockname()[1]
        self.url = self.settings.public_url or own_url(self.settings, port)
        if self._server:
            await self._server.start()
            self._note_pid("server", self._server.pid or 0)
            self._tasks.append(asyncio.create_task(self._watch_server(self._server)))
        for spec in part_specs(self.settings, self.store_url, port, self._socket.fileno()):
            output = PartLog(spec.name, self.settings.logs_dir / f"{spec.name}.log", self._on_warning)
            part = Part(spec=spec, output=output, log=self._log, on_pid=self._note_pid)
            self.parts[spec.name] = part
            self._tasks.append(asyncio.create_task(part.run()))

    async def stop(self, *, now: bool = False) -> None:
        """Stop everything; returns when it is gone. May be called twice or first."""
        grace_s = NOW_GRACE_S if now else None
        for names in STOP_ORDER:
            present = [self.parts[name] for name in names if name in self.parts]
            await asyncio.gather(*(part.stop(grace_s) for part in present))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for part in self.parts.values():
            part.output.close()
        if self._server:
            await self._server.stop()
        if self._socket:
            self._socket.close()
            self._socket = None
        self.pids_file.unlink(missing_ok=True)
        self.settings.url_file.unlink(missing_ok=True)

    @property
    def pids_file(self) -> Path:
        """Process ids by part, as JSON, while the system runs."""
        return self.settings.data_dir / "pids.json"

    async def _watch_server(self, server: EmbeddedServer) -> None:
        """Start the database again when it ends; its append-only file has every accepted write."""
        failures = 0
        while True:
            status = await server.wait()
            failures += 1
            delay_s = decide_delay(failures)
            self._log.warning(Event.PART_DIED, name="server", status=status, restart_in_s=delay_s)
            await asyncio.sleep(delay_s)
            await server.stop()
            try:
                await server.start()
            except (StokerError, OSError) as error:  # a full disk too: somebody will make room
                self._log.error(Event.PART_FAILED, name="server", reason=str(error))
                continue
            failures = 0
            self._note_pid("server", server.pid or 0)

    def _note_pid(self, name: str, pid: int) -> None:
        """Never raises: a file for people to read must not end the watch over a process that runs."""
        self.pids[name] = pid
        fresh = self.pids_file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(self.pids))
            fresh.replace(self.pids_file)
        except OSError as error:
            self._log.warning(
                Event.PART_FAILED, name=name, reason=f"{self.pids_file} is out of date: {error}"
            )


def part_specs(settings: UpSettings, store_url: str, port: int, listen_fd: int) -> list[PartSpec]:
    """What to start, with each part's environment."""
    shared = {
        PARENT_VARIABLE: str(os.getpid()),
        f"{PREFIX}DATA_DIR": str(settings.data_dir),
        f"{PREFIX}REDIS_URL": store_url,
        f"{PREFIX}HOST": settings.host,
        f"{PREFIX}PORT": str(port),
        f"{PREFIX}INTERNAL_URL": settings.internal_url or own_url(settings, port),
        f"{PREFIX}POOL": settings.pool,
        f"{PREFIX}LEASE_S": str(settings.lease_s),
        f"{PREFIX}DRAIN_GRACE_S": str(settings.drain_grace_s),
        f"{PREFIX}LOG_JSON": "1",
        f"{PREFIX}LOG_LEVEL": settings.log_level,
        "PYTHONUNBUFFERED": "1",
    }
    if settings.public_url:
        shared[f"{PREFIX}PUBLIC_URL"] = settings.public_url
    worker: dict[str, str] = {}
    if settings.cpu_workers is not None:
        worker[f"{PREFIX}WORKERS"] = json.dumps({"cpu": {"count": settings.cpu_workers}})
    worker_grace_s = settings.drain_grace_s + WORKER_EXTRA_S
    # The address for the worker of this machine is not the one for machines that join.
    gateway = shared | {f"{PREFIX}LISTEN_FD": str(listen_fd), f"{PREFIX}INTERNAL_URL": settings.internal_url}
    gateway |= gateway_extras(settings)
    return [
        _spec("gateway", gateway, STOP_GRACE_S, (listen_fd,)),
        _spec("scheduler", shared, STOP_GRACE_S),
        _spec("worker", shared | worker, worker_grace_s),
        _spec("jobs", shared, STOP_GRACE_S),
    ]


def _spec(name: str, env: Mapping[str, str], grace_s: float, pass_fds: tuple[int, ...] = ()) -> PartSpec:
    argv = (sys.executable, "-m", "stoker_cli", name)
    kept_from = {f"{PREFIX}{field.upper()}" for field, readers in READERS.items() if name not in readers}
    whole = {key: value for key, value in os.environ.items() if key not in kept_from} | dict(env)
    return PartSpec(name=name, argv=argv, env=whole, stop_grace_s=grace_s, pass_fds=pass_fds)


def gateway_extras(settings: UpSettings) -> dict[str, str]:
    """What the gateway needs besides: how it is reached, and how machines that join reach Redis."""
    extras: dict[str, str] = {}
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        extras |= {
            f"{PREFIX}TLS_CERT_FILE": str(settings.tls_cert_file),
            f"{PREFIX}TLS_KEY_FILE": str(settings.tls_key_file),
        }
    if settings.listen:
        extras[f"{PREFIX}WORKER_REDIS_URL"] = f"redis://{settings.listen}"
    return extras


def own_url(settings: UpSettings, port: int) -> str:
    """The gateway's address as this machine reaches it."""
    return f"{settings.scheme}://{reached_at(settings.host)}:{port}"
