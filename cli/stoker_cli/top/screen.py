"""The terminal of a live view: a screen of its own, single keys, signals; all as it was when it is left."""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Final

_ENDS: Final = frozenset(b"qQ\x03\x04\x1b")
"""q, Ctrl-C where it comes as a key, Ctrl-D, Escape."""
_ESCAPE: Final = 0x1B
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wishes:
    """What whoever looks wants: `redraw` is set when the window changes, both when it is to end."""

    def __init__(self) -> None:
        self.redraw = asyncio.Event()
        self.end = asyncio.Event()

    def stop(self) -> None:
        """It is to end."""
        self.end.set()
        self.redraw.set()

    async def wait(self, timeout_s: float) -> None:
        """Until there is something to draw, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.redraw.wait()


@contextlib.contextmanager
def listening() -> Iterator[Wishes]:
    """Keys and signals as wishes, until the block ends. To be entered inside the event loop."""
    wishes, loop = Wishes(), asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, wishes.stop)
    loop.add_signal_handler(signal.SIGWINCH, wishes.redraw.set)
    stopped = signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a shell would find the screen in pieces
    try:
        with _keys(wishes):
            yield wishes
    finally:
        signal.signal(signal.SIGTSTP, stopped)
        for number in (*_ENDING, signal.SIGWINCH):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _keys(wishes: Wishes) -> Iterator[None]:
    """Keys one by one and unseen, where standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def pressed() -> None:
        keys = os.read(keyboard, 64)
        if not keys or _is_end(keys):
            wishes.stop()

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, pressed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _is_end(keys: bytes) -> bool:
    """Whether one of the keys ends it; an arrow key begins as Escape does, and is none of them."""
    if len(keys) > 1 and keys[0] == _ESCAPE:
        return False
    return not _ENDS.isdisjoint(keys)
