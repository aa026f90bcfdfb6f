"""`stoker top`: what machines, GPUs, models, tasks and the queue do, live."""

import asyncio
import contextlib
import dataclasses
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from stoker_cli.output import PIPE_WIDTH, CommandFailed, ExitCode, JsonFlag, print_json
from stoker_cli.top.frame import Snapshot, frame
from stoker_cli.top.screen import Wishes, listening
from stoker_cli.top.source import FIRST_ANSWER_S, Source
from stoker_cli.top.words import duration


def top(
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    json: JsonFlag = False,
) -> None:
    """Machines, GPUs, loaded models, running tasks and the queue, live. q or Ctrl-C ends it.

    Needs a key with engines:read. Where the output is no terminal it prints one frame.
    """
    console = Console(highlight=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal and not once and not json:
        asyncio.run(_live(console, interval))
        return
    snapshot = asyncio.run(_once())
    if json:
        print_json({"engines": snapshot.engines, "queue": snapshot.queue})
        return
    width = console.width if console.is_terminal else PIPE_WIDTH
    Console(highlight=False, emoji=False, width=width).print(frame(snapshot, width))


async def _once() -> Snapshot:
    source = Source()
    try:
        return await source.read(FIRST_ANSWER_S)
    finally:
        await source.close()


class Sight:
    """What is seen: the last snapshot, and since when the gateway has told nothing."""

    def __init__(self, snapshot: Snapshot, wishes: Wishes) -> None:
        self._snapshot = snapshot
        self._wishes = wishes
        self._failure = ""
        self._away_mono = 0.0

    async def look_loop(self, source: Source, interval_s: float) -> None:
        """Look again and again, until cancelled.

        Raises:
            CommandFailed: the key is refused.
        """
        while True:
            await asyncio.sleep(interval_s)
            try:
                self._snapshot = await source.read()
                self._failure = ""
            except CommandFailed as error:
                if error.exit_code is ExitCode.DENIED:
                    raise
                if not self._failure:
                    self._away_mono = time.monotonic()
                self._failure = error.message
            self._wishes.redraw.set()

    def snapshot(self) -> Snapshot:
        """As of now."""
        if not self._failure:
            return self._snapshot
        away_s = time.monotonic() - self._away_mono
        return dataclasses.replace(
            self._snapshot, away=f"nothing new for {duration(away_s)}: {self._failure}"
        )


async def _live(console: Console, interval_s: float) -> None:
    """Look, draw, wait; until somebody wants the end.

    Raises:
        CommandFailed: no gateway answers at the start, or the key is refused.
    """
    source = Source()
    try:
        first = await source.read(FIRST_ANSWER_S)
        with listening() as wishes, Live(console=console, screen=True, auto_refresh=False) as live:
            sight = Sight(first, wishes)
            looking = asyncio.create_task(sight.look_loop(source, interval_s))
            looking.add_done_callback(lambda _: wishes.stop())
            while not wishes.end.is_set():
                wishes.redraw.clear()
                width, height = console.size
                live.update(frame(sight.snapshot(), width, height, live=True), refresh=True)
                await wishes.wait(interval_s)
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
    finally:
        await source.close()
