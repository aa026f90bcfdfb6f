"""What the language model is sent for an answer. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from stoker.agents.chat import Chat, Message, MessageStatus, RunState
from stoker.agents.skills import Skill
from stoker.agents.step import all_tools
from stoker.agents.tools import Internal
from stoker.llm.contract import SETTINGS

CONTEXT: Final = re.compile(r"\{\{\s*context\.([A-Za-z0-9_.-]+)\s*\}\}")
NO_RESULT: Final = "(no result)"
_OURS: Final = frozenset({"text", "role", "context", "tools"})
_encode = msgspec.json.Encoder().encode


def model_input(chat: Chat, answer: Message) -> dict[str, Any]:
    """The input of the language model's app: the conversation up to `answer`, and only what is set."""
    turns = conversation(chat, answer.order)
    current = turns.pop() if turns else {"role": "user", "text": ""}
    settings = chat.config.core.input
    given: dict[str, Any] = {
        name: value
        for name, value in settings.items()
        if name in SETTINGS and name not in _OURS and is_set(name, value)
    }
    given |= current | {"context": turns}
    if prompt := system_prompt(chat):
        given["system_prompt"] = prompt
    tools = [tool.as_function() for tool in all_tools(chat)]
    if tools:
        given["tools"] = tools
    known = chat.config.fields
    return {name: value for name, value in given.items() if name in known} if known else given


def is_set(name: str, value: object) -> bool:
    """Whether a setting says anything: null is refused by apps, and a context size of 0 means none."""
    return value is not None and not (name == "context_size" and value == 0)


def conversation(chat: Chat, before: int) -> list[dict[str, Any]]:
    """What was said, run by run; each call of a tool is followed by its result.

    A message that waited for its turn stands before the answers to it, and not where it was said: the model would read
    it as answered already.
    """
    began: dict[str, int] = {}
    for message in chat.messages:
        if message.role != "user":
            began.setdefault(message.run_id, message.order)

    def place(message: Message) -> tuple[int, bool]:
        if message.role == "user":
            return began.get(message.run_id, message.order), False
        return message.order, True

    turns: list[dict[str, Any]] = []
    for message in sorted(chat.messages, key=place):
        if place(message) >= (before, True):
            break
        if message.role == "user" and message.status is MessageStatus.READY:
            turns.append(_with_files(message, {"role": "user", "text": message.text}))
        elif message.role == "assistant" and (message.text or message.calls):
            turns += _answer(message)
    return turns


def system_prompt(chat: Chat) -> str:
    """The agent's own prompt, its skills, and what the chat remembers."""
    parts = [in_context(chat.config.system_prompt, chat.context)]
    reads = Internal.SKILLS in chat.config.internal
    told = [skill for skill in chat.config.skills if reads and not skill.preload]
    given = [skill for skill in chat.config.skills if skill not in told]
    parts += [f"# Skill {skill.name}{_about(skill)}\n{skill.content}" for skill in given]
    if told:
        lines = [f"- {skill.name}{_about(skill)}" for skill in told]
        parts.append(
            "\n".join([f"# Skills\nRead one with the tool {Internal.SKILLS} before you need it.", *lines])
        )
    if Internal.MEMORY in chat.config.internal and chat.memory:
        facts = "\n".join(f"- {name}: {value}" for name, value in chat.memory.items())
        parts.append(f"# What you remember\n{facts}")
    return "\n\n".join(part for part in parts if part)


def in_context(text: str, context: Mapping[str, str], *, in_url: bool = False) -> str:
    """A text with the chat's values; one that is not there is empty. In a URL they cannot change its parts."""

    def value(found: re.Match[str]) -> str:
        plain = context.get(found.group(1), "")
        return quote(plain, safe="") if in_url else plain

    return CONTEXT.sub(value, text)


def outcome(chat: Chat) -> tuple[str, bool]:
    """What a run came to, for the agent that asked for it: a text, and whether it failed."""
    run = chat.run
    if run is None or run.state is not RunState.COMPLETED:
        return (run.error if run else "") or "The agent's run ended without an answer.", True
    if run.output is not None:
        return as_text(run.output), False
    return (chat.turn.text if chat.turn else ""), False


def as_text(value: object) -> str:
    """A value as a model reads it."""
    return value if isinstance(value, str) else _encode(value).decode()


def _answer(message: Message) -> list[dict[str, Any]]:
    turn: dict[str, Any] = {"role": "assistant", "text": message.text}
    if message.reasoning:
        turn["reasoning"] = message.reasoning
    if message.reasoning_state is not None:
        turn["reasoning_state"] = message.reasoning_state
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": c.call_id,
                "type": "function",
                "function": {"name": c.name, "arguments": _written(c.written)},
            }
            for c in message.calls
        ]
    results = [
        {"role": "tool", "tool_call_id": c.call_id, "text": NO_RESULT if c.result is None else c.result}
        for c in message.calls
    ]
    return [_with_files(message, turn), *results]


def _about(skill: Skill) -> str:
    return f": {skill.description}" if skill.description else ""


def _written(arguments: str) -> str:
    """Arguments as the model wrote them, unless that is no JSON: servers of models refuse it."""
    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return "{}"
    return arguments


def _with_files(message: Message, turn: dict[str, Any]) -> dict[str, Any]:
    if message.images:
        turn["images"] = list(message.images)
    if message.files:
        turn["files"] = list(message.files)
    return turn
