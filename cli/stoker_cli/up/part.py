"""One supervised child process: start, watch, start again with back-off, stop.

Does not know what the other parts are or in which order they go; that is `supervisor`.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stoker.core.events import Event
from stoker.log import Logger
from stoker_cli.up.part_log import PartLog

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 10.0
HEALTHY_AFTER_S: Final = 30.0
"""A part that lived this long starts over with the shortest delay."""
KILL_TIMEOUT_S: Final = 5.0
DRAIN_TIMEOUT_S: Final = 1.0
"""A grandchild may keep the pipe of a dead part open; its lines are not worth waiting for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSpec:
    """What to start. `stop_grace_s` is how long a SIGTERM may take before SIGKILL."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_grace_s: float
    pass_fds: tuple[int, ...] = ()


@dataclass(slots=True)
class Part:
    """A supervised process.

    1. `run` starts it and starts it again whenever it ends  2. `stop` ends it and with it `run`.
    """

    spec: PartSpec
    output: PartLog
    log: Logger
    on_pid: Callable[[str, int], None]
    restarts: int = 0
    _process: asyncio.subprocess.Process | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keep the process alive until `stop` was called."""
        failures = 0
        while not self._stopping.is_set():
            mono_started = time.monotonic()
            try:
                await self._live()
            except OSError as error:
                self.log.warning(Event.PART_FAILED, name=self.spec.name, reason=str(error))
            if self._stopping.is_set():
                return
            uptime_s = time.monotonic() - mono_started
            failures = 0 if uptime_s > HEALTHY_AFTER_S else failures + 1
            delay_s = decide_delay(failures)
            self.restarts += 1
            self.log.warning(
                Event.PART_DIED,
                name=self.spec.name,
                status=describe_status(self._process.returncode if self._process else None),
                uptime_s=round(uptime_s, 1),
                restart_in_s=delay_s,
                last_words=self.output.last_words(),
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def stop(self, grace_s: float | None = None) -> None:
        """End the process; returns when it is gone. May be called twice or first.

        Args:
            grace_s: seconds for SIGTERM before SIGKILL; None = the part's own.
        """
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        _send(process, signal.SIGTERM)
        if await _ended(process, self.spec.stop_grace_s if grace_s is None else grace_s):
            return
        self.log.warning(Event.PART_FAILED, name=self.spec.name, reason="did not stop in time; killed")
        _send(process, signal.SIGKILL)
        await _ended(process, KILL_TIMEOUT_S)

    async def _live(self) -> None:
        """One life of the process, from its start to its end."""
        process = await asyncio.create_subprocess_exec(
            *self.spec.argv,
            env=dict(self.spec.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=self.spec.pass_fds,
            start_new_session=True,  # Ctrl-C reaches `up` alone, which stops the parts in order
        )
        self._process = process
        self.on_pid(self.spec.name, process.pid)
        self.log.debug(Event.PART_STARTED, name=self.spec.name, pid=process.pid)
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for; tells the type checker
        pump = asyncio.create_task(self.output.pump(process.stdout))
        try:
            await process.wait()
            await asyncio.wait({pump}, timeout=DRAIN_TIMEOUT_S)
        finally:
            pump.cancel()


def decide_delay(failures: int) -> float:
    """Seconds before the next start, after so many short lives in a row."""
    if failures == 0:
        return FIRST_DELAY_S
    return float(min(FIRST_DELAY_S * 2.0 ** (failures - 1), LONGEST_DELAY_S))


def describe_status(status: int | None) -> str:
    """An exit status in words: "status 1" or the name of the signal."""
    if status is None:
        return "not started"
    if status >= 0:
        return f"status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal the part; SIGKILL goes to its whole group."""
    with contextlib.suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


async def _ended(process: asyncio.subprocess.Process, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
