"""How a part runs as a process: the event loop, its signals, and its end together with its parent.

A first SIGTERM or SIGINT asks the part to stop: the stop event is set. A second one cancels it. When the
process that started the part is gone (STOKER_PARENT_PID), the part is cancelled at once, and the kernel ends
it a few seconds later if it still hangs.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Final

from stoker.core.events import Event
from stoker.log import get_logger
from stoker.reaper import reap_orphans

PARENT_VARIABLE: Final = "STOKER_PARENT_PID"
ORPHAN_GRACE_S: Final = 5
"""Seconds that a part without a parent has for its own clean-up, before SIGALRM ends it."""
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

ServiceMain = Callable[[asyncio.Event], Awaitable[None]]

_TRAMPOLINE: Final = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,15);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(3);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)
"""Sets the parent-death signal and becomes the wanted program; the signal survives exec (prctl(2))."""


class ParentGone(RuntimeError):
    """The process that should supervise this one has already ended."""


def run(main: ServiceMain) -> None:
    """Run `main` until it returns; it gets the event that asks it to stop.

    Args:
        main: async function of the part; returns when it has stopped.

    Raises:
        ParentGone: the parent ended before this process could arm its parent-death signal.
        Exception: whatever `main` raises.
    """
    parent = int(os.environ.get(PARENT_VARIABLE) or 0)
    if parent:
        die_with_parent(parent)
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        _run_loop(_supervised(main, parent))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop of a process: uvloop where there is one, else None, which is asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - optional: absent on platforms without a wheel
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends.

    Args:
        parent: process id of the parent that is expected.

    Raises:
        ParentGone: it ended already, so that no signal would ever come.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise ParentGone(f"parent process {parent} has ended")


def dying_with_parent(argv: Sequence[str]) -> list[str]:
    """`argv` for a foreign program, wrapped so that it gets SIGTERM when this process ends.

    The signal follows the calling *thread* (prctl(2)): start the program from the main thread.
    """
    return [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *argv]


async def _supervised(main: ServiceMain, parent: int) -> None:
    """Run `main` as a task that signals can reach."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))
    log = get_logger("service")

    def is_orphan() -> bool:
        return bool(parent) and os.getppid() != parent

    def on_signal(number: int) -> None:
        orphan = is_orphan()
        now = orphan or stop.is_set()
        stop.set()
        if now:
            task.cancel()
        log.info(Event.PART_STOPPING, signal=signal.Signals(number).name, now=now, orphan=orphan)

    loop = asyncio.get_running_loop()

    def handle(number: int, _frame: FrameType | None) -> None:
        # Runs even while the event loop is blocked, unlike a handler of the loop: an orphan always ends.
        if is_orphan():
            signal.alarm(ORPHAN_GRACE_S)
        loop.call_soon_threadsafe(on_signal, number)

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    orphans = asyncio.ensure_future(reap_orphans())
    try:
        await task
    finally:
        orphans.cancel()
        for number, handler in old.items():
            signal.signal(number, handler)


def _run_loop(main: Awaitable[None]) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_as_coroutine(main))


async def _as_coroutine(main: Awaitable[None]) -> None:
    await main
