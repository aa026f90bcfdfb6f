"""An event loop whose clock jumps to the next timer: hours pass at once, and in the right order."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

START_S = 1000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for nothing: when no callback is ready, it is the time of the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = START_S

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        waiting = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        if waiting and not self._ready:
            self._now_s = max(self._now_s, min(waiting))
        super()._run_once()


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs on such a loop; what it left running is cancelled."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*arguments, **named))

    return run


async def pass_time(seconds: float) -> None:
    """Let so much time pass, with all that happens in it."""
    await asyncio.sleep(seconds)
