"""Partial outputs: each one that is yielded replaces the one before, the last one is the result."""

import asyncio
from collections.abc import AsyncGenerator

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class AppInput(BaseAppInput):
    text: str = Field(description="What to say, word by word", examples=["one two three"])


class AppOutput(BaseAppOutput):
    said: str = Field(description="What was said so far")


class App(BaseApp):
    async def run(self, input_data: AppInput) -> AsyncGenerator[AppOutput, None]:
        """Say the words of a text one after another."""
        said: list[str] = []
        for word in input_data.text.split():
            said.append(word)
            yield AppOutput(said=" ".join(said))
            await asyncio.sleep(0.1)
