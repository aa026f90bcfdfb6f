"""Keeps the LLM contract without any library, and is as fast as it is told to be."""

import asyncio
from typing import Any

from pydantic import BaseModel


class AppSetup(BaseModel):
    think_s: float = 0.05
    calls: int = 2


class AppInput(BaseModel):
    text: str
    role: str = "user"
    context: list[dict[str, Any]] = []
    system_prompt: str = ""
    tools: list[dict[str, Any]] = []
    tool_call_id: str = ""


class AppOutput(BaseModel):
    response: str
    tool_calls: list[dict[str, Any]] = []


class App:
    async def setup(self, config: AppSetup):
        self.config = config

    async def run(self, input_data: AppInput) -> AppOutput:
        await asyncio.sleep(self.config.think_s)
        done = 0
        for turn in [*input_data.context, {"role": input_data.role}]:
            done = done + 1 if turn["role"] == "tool" else 0 if turn["role"] == "user" else done
        if input_data.tools and done < self.config.calls:
            name = input_data.tools[0]["function"]["name"]
            call = {"id": f"call_{done}", "type": "function", "function": {"name": name, "arguments": '{"a": 1}'}}
            return AppOutput(response="", tool_calls=[call])
        return AppOutput(response=f"Done after {done} calls.")
