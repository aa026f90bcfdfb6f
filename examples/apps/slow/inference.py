"""Slow: prints lines over a given time, yields a partial output after each, and can be told to fail.

Every yield is the whole output so far; the last one is the result.
"""

import asyncio
from collections.abc import AsyncGenerator

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class AppInput(BaseAppInput):
    seconds: float = Field(default=3.0, ge=0, le=3600, description="How long to take")
    lines: int = Field(default=3, ge=0, le=10_000, description="Lines to print, spread over that time")
    text: str = Field(default="line", description="What each printed line begins with")
    fail: bool = Field(default=False, description="Raise an error at the end instead of giving a result")


class AppOutput(BaseAppOutput):
    lines: int = Field(description="Lines printed so far")
    total: int = Field(description="Lines asked for")
    done: bool = Field(description="False in partial outputs, and in the last one of a cancelled run")


class App(BaseApp):
    async def setup(self) -> None:
        self.cancelled = asyncio.Event()

    async def run(self, input_data: AppInput) -> AsyncGenerator[AppOutput, None]:
        """Print the lines over the time, then give the result or fail."""
        self.cancelled.clear()
        asked = input_data.lines
        pause_s = input_data.seconds / max(asked, 1)
        for number in range(max(asked, 1)):
            if await self._cancelled_within(pause_s):
                print(f"cancelled after {number} of {asked} lines", flush=True)
                yield AppOutput(lines=number, total=asked, done=False)
                return
            if asked:
                print(f"{input_data.text} {number + 1} of {asked}", flush=True)
                yield AppOutput(lines=number + 1, total=asked, done=False)
        if input_data.fail:
            raise RuntimeError(f"slow was told to fail, and did so after {asked} lines")
        yield AppOutput(lines=asked, total=asked, done=True)

    async def on_cancel(self) -> bool:
        """End the wait at once; True says that the run ends by itself."""
        self.cancelled.set()
        return True

    async def _cancelled_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self.cancelled.wait(), timeout=seconds)
        except asyncio.TimeoutError:
            return self.cancelled.is_set()
        return True
