"""How an instance leaves its devices and comes back: by hooks of its app, or by the CUDA driver."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Final, Protocol

from stoker_worker.instance_errors import InstanceFailed
from stoker_worker.ports import RunningInstance
from stoker_worker.procs import clean_environment, describe_exit

LOCK_MS: Final = 10_000
"""An idle app has no work on the device; one whose threads go on with some is not parked."""
PROBE_TIMEOUT_S: Final = 30.0
"""Without the persistence daemon the driver initialises its devices first."""
ANSWER_BYTES: Final = 4096
HELPER: Final = Path(__file__).with_name("cuda_checkpoint.py")


class ParkingFailed(Exception):
    """An instance could not be parked or brought back; it is ended, and loaded anew when it is wanted."""


class NoHostMemory(ParkingFailed):
    """The machine's memory has no room for it now; the instance could be parked at another time."""


class Way(Protocol):
    """One of the two. The caller bounds the time; what was given up half-way is of no use any more."""

    name: str

    async def park(self, instance: RunningInstance) -> None:
        """Take it off the devices.

        Raises:
            ParkingFailed: says why.
        """

    async def unpark(self, instance: RunningInstance) -> None:
        """Put it back, with the same errors."""


class Hooks:
    """The app does it: its `park` and `unpark`."""

    name = "hooks"

    async def park(self, instance: RunningInstance) -> None:
        """See `Way.park`."""
        try:
            await instance.park()
        except InstanceFailed as error:
            raise ParkingFailed(f"its park() failed: {error.message}") from error

    async def unpark(self, instance: RunningInstance) -> None:
        """See `Way.unpark`."""
        try:
            await instance.unpark()
        except InstanceFailed as error:
            raise ParkingFailed(f"its unpark() failed: {error.message}") from error


class CudaDriver:
    """The driver does it, and the app does not know. From release 570 on; tested against a stand-in only."""

    name = "driver"

    async def probe(self) -> None:
        """Find out whether the driver can do it.

        Raises:
            ParkingFailed: it cannot; says why.
        """
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await _ask("probe", 0)
        except TimeoutError:
            raise ParkingFailed(f"the driver did not answer within {PROBE_TIMEOUT_S:g} s") from None

    async def park(self, instance: RunningInstance) -> None:
        """See `Way.park`."""
        await _ask("park", instance.pid)

    async def unpark(self, instance: RunningInstance) -> None:
        """See `Way.unpark`."""
        await _ask("unpark", instance.pid)


async def _ask(action: str, pid: int) -> None:
    """Have the driver asked, by a process of its own."""
    env = clean_environment(os.environ)
    env.pop("CUDA_VISIBLE_DEVICES", None)  # the other process decides which devices it has
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(HELPER), action, str(pid), str(os.getpid()), str(LOCK_MS)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=env,
        )
    except OSError as error:
        raise ParkingFailed(f"the driver could not be asked: {error}") from error
    try:
        answer = await process.stdout.read(ANSWER_BYTES) if process.stdout else b""
        returncode = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    try:
        said = json.loads(answer)
    except ValueError:
        raise ParkingFailed(f"the process that asks the driver {describe_exit(returncode)}") from None
    if not said["ok"]:
        raise ParkingFailed(f"the CUDA driver refused ({said['step']}): {said['error']}")
