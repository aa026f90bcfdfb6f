"""Whether apps get a /tmp of their own on this machine, and who must wait for whom where they do not.

The runner makes it (`runner/own_tmp.py`); here is what the daemon decides: it asks the kernel once, finds the
apps that name files below /tmp, and lets those take turns where all share one.
"""

import asyncio
import contextlib
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from stoker.core.errors import CallerError
from stoker_worker.instance_spec import RUNNER

PROBE_TIMEOUT_S: Final = 20.0
KEPT: Final = (Path("/tmp/.X11-unix"), Path("/tmp/nvidia-mps"))  # noqa: S108 - where others put their sockets
"""Sockets of the machine's services whose place below /tmp is fixed: the X server, NVIDIA's MPS."""
TEMPORARY_NAMES: Final = frozenset({"TMPDIR", "TMP", "TEMP"})
CODE: Final = (".py", ".js", ".mjs", ".sh")
MAX_CODE_BYTES: Final = 4 * 1024 * 1024
"""A larger file is data."""
_NAMES_TMP: Final = re.compile(rb"""(?<![\w./)}-])(?:/var)?/tmp(?=[/"'])""")


class NoPrivateTmp(CallerError):
    """The setting `private_tmp` requires what the kernel refuses."""

    code = "no_private_tmp"


class PrivateTmp:
    """How this machine's apps use /tmp. `refusal`: why they share it; empty = each has its own."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self._turn = asyncio.Lock()

    @property
    def private(self) -> bool:
        return not self.refusal

    @contextlib.asynccontextmanager
    async def turn(self, *, shares: bool, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """A stretch in which no other app that shares names below /tmp runs. `on_wait` is called if it must wait."""
        if not shares:
            yield
            return
        if self._turn.locked():
            on_wait()
        async with self._turn:
            yield


async def find_out(mode: str) -> PrivateTmp:
    """What the setting `private_tmp` (auto, require or off) means on this machine.

    Raises:
        NoPrivateTmp: it is required, and the kernel refuses.
    """
    if mode == "off":
        return PrivateTmp("the setting private_tmp is 'off'")
    refusal = await probe()
    if refusal and mode == "require":
        raise NoPrivateTmp(
            f"The setting private_tmp is 'require', but this machine gives no /tmp of its own to a process: "
            f"{refusal}. Run the worker as root, or allow user namespaces, or set private_tmp to 'auto'."
        )
    return PrivateTmp(refusal)


async def probe() -> str:
    """Try to give a process a /tmp of its own; why that does not work, else an empty text."""
    with tempfile.TemporaryDirectory(prefix="stoker-probe-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            RUNNER / "own_tmp.py",
            folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"no answer within {PROBE_TIMEOUT_S:g} s"
    return (said.decode(errors="replace").strip().splitlines() or [""])[-1]


def names_tmp(app_dir: Path) -> bool:
    """Whether an app's code names something below /tmp or /var/tmp. Reads all its code."""
    for path in app_dir.rglob("*"):
        if path.suffix in CODE and path.is_file() and path.stat().st_size <= MAX_CODE_BYTES:
            with contextlib.suppress(OSError):
                if _NAMES_TMP.search(path.read_bytes()):
                    return True
    return False


def paths_to_keep(environ: dict[str, str]) -> tuple[Path, ...]:
    """What an app must see of the shared /tmp: sockets of services, and what the daemon's environment names."""
    named = [
        Path(part)
        for name, value in environ.items()
        if name not in TEMPORARY_NAMES
        for part in value.split(":")
        if part.startswith(("/tmp/", "/var/tmp/"))  # noqa: S108 - these are the folders in question
    ]
    return (*KEPT, *named)
