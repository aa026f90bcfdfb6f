"""An answer as it grows: what a reader was told so far, and what is new. Pure.

A model's app yields increments, or whole outputs that replace each other. Either way a reader of ours gets
increments whose sum is the answer: `add` takes an increment, `catch_up` what a whole output has beyond the sum.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from stoker.llm.contract import ToolCall, read_output

Delta = dict[str, Any]

_decode = msgspec.json.Decoder().decode
_sorted = msgspec.json.Encoder(order="sorted").encode
"""Texts are compared, and not values: 1 equals True."""


class Growth:
    """The sum of what one reader was told."""

    def __init__(self) -> None:
        self.response = ""
        self.reasoning = ""
        self.calls: dict[int, Delta] = {}
        self.broken = False
        """The last whole output does not begin with the sum: its app says it anew, or another attempt says otherwise."""

    @property
    def empty(self) -> bool:
        return not (self.response or self.reasoning or self.calls)

    def add(self, delta: Mapping[str, Any]) -> Delta:
        """Take an increment; what of it a reader of chats understands."""
        new: Delta = {}
        for name in ("response", "reasoning"):
            text = delta.get(name)
            if isinstance(text, str) and text:
                setattr(self, name, getattr(self, name) + text)
                new[name] = text
        parts = delta.get("tool_calls")
        calls = (
            [self._call(part) for part in parts if isinstance(part, Mapping)]
            if isinstance(parts, list)
            else []
        )
        if calls:
            new["tool_calls"] = calls
        if delta.get("usage"):
            new["usage"] = delta["usage"]
        return new

    def catch_up(self, raw: bytes | msgspec.Raw, *, ended: bool = False) -> Delta:
        """What a whole output has beyond the sum. A field that did not grow by appending is left out.

        Args: ended: no more will come, so that a call without arguments has none.
        """
        whole = read_output(raw)
        self.broken = any(index >= len(whole.tool_calls) for index in self.calls)
        new: Delta = {}
        for name, text in (("response", whole.response), ("reasoning", whole.reasoning)):
            have = getattr(self, name)
            if text.startswith(have):
                if len(text) > len(have):
                    new[name] = text[len(have) :]
                    setattr(self, name, text)
            else:
                self.broken = True
        calls = [self._rest(index, call, ended=ended) for index, call in enumerate(whole.tool_calls)]
        if any(calls):
            new["tool_calls"] = [call for call in calls if call]
        return new

    def _call(self, part: Mapping[str, Any]) -> Delta:
        """A piece of a call: the first one has its id and name, the others only arguments."""
        index = part.get("index")
        if not isinstance(index, int):
            index = len(self.calls)
        given = part.get("function")
        function: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        arguments = function.get("arguments")
        piece = arguments if isinstance(arguments, str) else ""
        new: Delta = {"index": index}
        whole = self.calls.setdefault(index, {"arguments": ""})
        if isinstance(part.get("id"), str) and part["id"]:
            new |= {"id": part["id"], "type": "function"}
        told: Delta = {"arguments": piece}
        if isinstance(function.get("name"), str) and function["name"]:
            told["name"] = whole["name"] = function["name"]
        whole["arguments"] += piece
        return new | {"function": told}

    def _rest(self, index: int, call: ToolCall, *, ended: bool) -> Delta:
        """What of a whole call was not told yet."""
        arguments = call.arguments
        if arguments == "{}" and not ended:
            arguments = ""  # they may not be written yet, and what was told cannot be taken back
        have = self.calls.get(index)
        if have is None:
            self.calls[index] = {"name": call.name, "arguments": arguments}
            return {"index": index, **replace(call, arguments=arguments).as_wire()}
        if have.get("name", call.name) != call.name:
            self.broken = True
        if not arguments.startswith(have["arguments"]):
            self.broken = self.broken or not _same_json(arguments, have["arguments"])
            return {}
        rest = arguments[len(have["arguments"]) :]
        have["arguments"] = arguments
        return {"index": index, "function": {"arguments": rest}} if rest else {}


def _same_json(one: str, other: str) -> bool:
    """Whether two texts are the same value: apps stream arguments as a model wrote them, and may end with an object."""
    try:
        return _sorted(_decode(one)) == _sorted(_decode(other))
    except (msgspec.DecodeError, RecursionError):
        return False
