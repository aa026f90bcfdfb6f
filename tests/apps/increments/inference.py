"""Increments of an output: a chat's with tool calls, an app's own kind, and increments alone."""

import asyncio
from typing import AsyncGenerator, ClassVar, List, Optional

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, OutputMeta, RawMeta
from inferencesh.llm_types_gen import LLMDelta, LLMOutput, StreamDelta, ToolCallDelta, ToolCallFunctionDelta


class AppInput(BaseAppInput):
    words: int = 5
    pause: float = 0.0
    hold: float = 0.0


class Size(StreamDelta):
    width: int = 0
    unit: str = "px"
    _field_tags: ClassVar[dict] = {"unit": {"merge": "replace"}}


class Picture(StreamDelta):
    steps: List[str] = []
    size: Optional[Size] = None
    title: str = ""
    _field_tags: ClassVar[dict] = {"steps": {"merge": "concat"}, "size": {"merge": "nested"}}


class PictureOutput(BaseAppOutput):
    title: str


class App(BaseApp):
    async def run(self, input_data: AppInput) -> AsyncGenerator[LLMOutput, None]:
        text = ""
        for number in range(input_data.words):
            word = f"w{number} "
            text += word
            yield LLMDelta(response=word)
            await asyncio.sleep(input_data.pause)
        call = ToolCallFunctionDelta(name="look", arguments='{"a"')
        yield LLMDelta(tool_calls=[ToolCallDelta(index=0, id="c1", type="function", function=call)])
        more = ToolCallFunctionDelta(arguments=": 1}")
        yield LLMDelta(tool_calls=[ToolCallDelta(index=0, function=more)])
        print("held", flush=True)
        await asyncio.sleep(input_data.hold)
        tool = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"a": 1}}}
        yield LLMOutput(response=text, tool_calls=[tool])

    async def picture(self, input_data: AppInput) -> AsyncGenerator[PictureOutput, None]:
        yield Picture(steps=["sketch"], size=Size(width=3), title="a")
        yield Picture(steps=["paint"], size=Size(unit="cm"), title="b")
        print("held", flush=True)
        await asyncio.sleep(input_data.hold)
        yield PictureOutput(title="done", output_meta=OutputMeta(outputs=[RawMeta(cost=2)]))

    async def alone(self, input_data: AppInput) -> AsyncGenerator[LLMDelta, None]:
        for number in range(input_data.words):
            yield LLMDelta(response=f"w{number} ")
