"""LLM: a chat model behind any server that speaks OpenAI's chat completions, as one app.

The server (vLLM, llama.cpp, Ollama, ...) runs anywhere on your network; `setup` says where and which model. Text
comes piece by piece as deltas, the whole answer last. Tool calls, pictures and structured output pass through.
"""

import os
import time
from collections.abc import AsyncGenerator
from typing import Any, Optional, Union

from inferencesh import BaseApp, BaseAppSetup, OutputMeta, TextMeta
from inferencesh.models.llm import (
    LLMDelta,
    LLMInput,
    LLMOutput,
    LLMUsage,
    build_openai_messages,
    build_tools,
    openai_response_format,
    openai_tool_choice,
)
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, omit
from pydantic import Field

SAME_NAME = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "max_tokens")
BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty")  # vLLM and llama.cpp know these too


class AppSetup(BaseAppSetup):
    """Which model, and where; another value is another instance."""

    base_url: str = Field(default="http://127.0.0.1:11434/v1", description="Address up to /v1 (default: Ollama's)")
    model: str = Field(default="", description="Model to ask for; empty = the first one that the server lists")
    timeout_s: float = Field(default=600, gt=0, description="Longest silence of the server, in seconds")


class App(BaseApp):
    async def setup(self, config: AppSetup) -> None:
        self.base_url = config.base_url
        self.client = AsyncOpenAI(
            base_url=config.base_url,
            api_key=os.environ.get("LLM_API_KEY") or "none",
            timeout=config.timeout_s,
            max_retries=2,
        )
        self.model = config.model or await self._first_model()
        self.stream: Any = None
        print(f"{self.model} at {config.base_url}")

    async def run(self, input_data: LLMInput) -> AsyncGenerator[Union[LLMDelta, LLMOutput], None]:
        """Answer the conversation: deltas as they come, then the whole output."""
        answer = Answer()
        try:
            self.stream = await self.client.chat.completions.create(**self._request(input_data))
            async for chunk in self.stream:
                delta = answer.add(chunk)
                if delta is not None:
                    yield delta
        except APIStatusError as error:
            raise RuntimeError(f"{self.base_url} answered {error.status_code}: {error.message}") from error
        except APIConnectionError as error:
            raise RuntimeError(f"{self.base_url} cannot be reached: {error.__cause__ or error}") from error
        finally:
            self.stream = None
        yield answer.output()

    async def on_cancel(self) -> bool:
        """Hang up: the server stops generating, and the run ends with what it has."""
        if self.stream is not None:
            await self.stream.close()
        return True

    async def unload(self) -> None:
        await self.client.close()

    async def _first_model(self) -> str:
        try:
            models = (await self.client.models.list()).data
        except (APIConnectionError, APIStatusError) as error:
            raise RuntimeError(f"{self.base_url} does not list its models: {error}. Is the server up?") from error
        if not models:
            raise RuntimeError(f"{self.base_url} serves no model. Load one, or name it in the setup (model).")
        return models[0].id

    def _request(self, given: LLMInput) -> dict[str, Any]:
        """The request to the server: of the settings, those that the caller set."""
        asked = given.model_fields_set
        settings = {name: getattr(given, name) for name in SAME_NAME + BEYOND_OPENAI if name in asked}
        settings = {name: value for name, value in settings.items() if value is not None}
        beyond = {name: settings.pop(name) for name in BEYOND_OPENAI if name in settings}
        tools = build_tools(given.tools)
        effort = given.reasoning_effort
        return settings | {
            "model": self.model,
            "messages": build_openai_messages(given),
            "stream": True,
            "stream_options": {"include_usage": True},
            "tools": tools or omit,
            "tool_choice": openai_tool_choice(given.tool_choice) if tools else omit,
            "response_format": openai_response_format(given.response_format) or omit,
            "reasoning_effort": getattr(effort, "value", effort) if "reasoning_effort" in asked else omit,
            "extra_body": beyond or None,
        }


class Answer:
    """Collects the chunks of one answer."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: dict[int, dict[str, Any]] = {}
        self.usage = LLMUsage()
        self._began = time.monotonic()
        self._first: Optional[float] = None

    def add(self, chunk: Any) -> Optional[LLMDelta]:
        """Take a chunk; what is new in it for the client, if anything."""
        if chunk.usage is not None:
            self._count(chunk.usage)
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        if choice.finish_reason:
            self.usage.stop_reason = choice.finish_reason
        text = choice.delta.content or ""
        reasoning = getattr(choice.delta, "reasoning_content", None) or getattr(choice.delta, "reasoning", None) or ""
        calls = [self._call(number, call) for number, call in enumerate(choice.delta.tool_calls or [])]
        if not (text or reasoning or calls):
            return None
        if self._first is None:
            self._first = time.monotonic()
        self.text += text
        self.reasoning += reasoning
        new: dict[str, Any] = {"response": text}
        if reasoning:
            new["reasoning"] = reasoning
        if calls:
            new["tool_calls"] = calls
        return LLMDelta(**new)

    def output(self) -> LLMOutput:
        """The whole answer."""
        ended = time.monotonic()
        first = self._first or ended
        self.usage.time_to_first_token = first - self._began
        if ended > first:
            self.usage.tokens_per_second = self.usage.completion_tokens / (ended - first)
        used = self.usage
        return LLMOutput(
            response=self.text,
            reasoning=self.reasoning or None,
            tool_calls=[self.calls[index] for index in sorted(self.calls)] or None,
            usage=used,
            output_meta=OutputMeta(
                inputs=[TextMeta(tokens=used.prompt_tokens)], outputs=[TextMeta(tokens=used.completion_tokens)]
            ),
        )

    def _call(self, number: int, part: Any) -> dict[str, Any]:
        """A piece of a tool call: the first one has its id and name, the others only arguments."""
        index = number if part.index is None else part.index
        name = (part.function.name if part.function else "") or ""
        arguments = (part.function.arguments if part.function else "") or ""
        delta: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
        if index not in self.calls:
            call_id = part.id or f"call_{index}"
            self.calls[index] = {"id": call_id, "type": "function", "function": {"name": "", "arguments": ""}}
            delta |= {"id": call_id, "type": "function"}
        whole = self.calls[index]["function"]
        if name:
            whole["name"] = delta["function"]["name"] = name
        whole["arguments"] += arguments
        return delta

    def _count(self, usage: Any) -> None:
        self.usage.prompt_tokens = usage.prompt_tokens or 0
        self.usage.completion_tokens = usage.completion_tokens or 0
        self.usage.total_tokens = usage.total_tokens or 0
        details = getattr(usage, "prompt_tokens_details", None)
        self.usage.cached_tokens = getattr(details, "cached_tokens", None) or 0
        details = getattr(usage, "completion_tokens_details", None)
        self.usage.reasoning_tokens = getattr(details, "reasoning_tokens", None) or 0
