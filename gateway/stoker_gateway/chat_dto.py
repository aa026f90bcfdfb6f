"""Chats, messages, calls of tools and agents as clients read them. Lists are never null, arguments are objects."""

from typing import Any

from stoker.agents.chat import CHAT_PREFIX, CallStatus, Chat, Message, Run, ToolCall, interrupt_id
from stoker.agents.masking import masked
from stoker.agents.prompt import as_text
from stoker.agents.records import Agent, AgentVersion
from stoker.core.ids import short_id
from stoker_gateway.dto import iso

RESULT_SHOWN = 1000
"""Characters of a tool's result in a line that would be too long."""


def chat_dto(chat: Chat, *, with_messages: bool = True) -> dict[str, Any]:
    """A chat; on streams without its messages, which come one by one there."""
    return _base(chat.id, chat.created_ms, chat.updated_ms, chat.owner.user_id) | {
        "parent_id": chat.parent_id or None,
        "children": [],
        "status": chat.status,
        "name": chat.name,
        "description": chat.config.description,
        "agent_id": chat.agent_id or None,
        "agent_version_id": chat.agent_version_id or None,
        "agent_name": chat.config.name or None,
        "context": chat.context,
        "output": chat.output,
        "chat_messages": [message_dto(chat, message) for message in chat.messages] if with_messages else [],
        "agent_data": {
            "plan_steps": list(chat.plan),
            "memory": chat.memory,
            "always_allowed_tools": list(chat.always_allowed),
        },
        "active_run": run_dto(chat, chat.run) if chat.run is not None else None,
        "pending_interrupts": interrupts(chat),
    }


def message_dto(chat: Chat, message: Message) -> dict[str, Any]:
    """A whole message, with its text so far."""
    return _base(message.id, message.created_ms, message.updated_ms, chat.owner.user_id) | {
        "chat_id": chat.id,
        "agent_run_id": message.run_id or None,
        "order": message.order,
        "status": message.status,
        "role": message.role,
        "task_id": message.task_id or None,
        "content": _content(message),
        "tools": [],
        "tool_call_id": message.tool_call_id or None,
        "tool_invocations": [call_dto(message, call) for call in message.calls],
    }


def call_dto(message: Message, call: ToolCall) -> dict[str, Any]:
    """A call of a tool."""
    return {
        "id": call.id,
        "short_id": short_id(call.id),
        "created_at": iso(message.created_ms),
        "updated_at": iso(message.updated_ms),
        "chat_message_id": message.id,
        "tool_invocation_id": call.call_id,
        "type": call.type,
        "display_name": call.display_name or call.name,
        "execution_id": call.execution_id.removeprefix(CHAT_PREFIX) or None,
        "function": {"name": call.name, "arguments": call.arguments},
        "status": call.status,
        "result": call.result,
        "data": None,
        "widget": None,
    }


def run_dto(chat: Chat, run: Run) -> dict[str, Any]:
    """What the last message of the user set going."""
    asked = next((call for call in chat.open_calls if call.status is CallStatus.AWAITING_APPROVAL), None)
    return _base(run.id, run.created_ms, run.updated_ms, chat.owner.user_id) | {
        "agent_id": chat.agent_id or None,
        "agent_version_id": chat.agent_version_id or None,
        "chat_id": chat.id,
        "user_message_id": run.user_message_id,
        "state": run.state,
        "error": run.error or None,
        "output": run.output,
        "interrupt_reason": "tool_approval" if asked else None,
        "interrupt_tool_id": asked.id if asked else None,
        "interrupt_meta": None,
        "tool_invocation_id": asked.id if asked else None,
    }


def interrupts(chat: Chat) -> list[dict[str, Any]]:
    """The questions that wait for an answer."""
    return [
        interrupt_dto(chat, call) for call in chat.open_calls if call.status is CallStatus.AWAITING_APPROVAL
    ]


def interrupt_dto(chat: Chat, call: ToolCall) -> dict[str, Any]:
    """The question whether a call may be made, open or answered."""
    pending = call.status is CallStatus.AWAITING_APPROVAL
    return _base(interrupt_id(call.id), call.asked_ms, chat.updated_ms, chat.owner.user_id) | {
        "run_id": chat.run.id if chat.run else None,
        "chat_id": chat.id,
        "reason": "tool_approval",
        "source": "agent",
        "resource_type": "tool_invocation",
        "resource_id": call.id,
        "status": "pending" if pending else "resolved",
        "resolution": call.approval or None,
        "resolved_at": None if pending else iso(chat.updated_ms),
        "resolved_data": None,
        "expires_at": None,
        "meta": {
            "tool_name": call.name,
            "arguments": call.arguments,
            "tool_invocation_id": call.id,
        },
    }


def shortened(dto: dict[str, Any]) -> dict[str, Any]:
    """A message whose results of tools are cut: a line of a stream may not be longer than clients read."""
    calls = [call | {"result": _cut(call["result"])} for call in dto["tool_invocations"]]
    content = dto["content"]
    if dto["role"] == "tool":
        content = [part | {"text": _cut(part.get("text"))} for part in content]
    return dto | {"tool_invocations": calls, "content": content}


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= RESULT_SHOWN:
        return text
    return f"{text[:RESULT_SHOWN]} ... ({len(text)} characters; the chat has them all)"


def agent_dto(agent: Agent, version: AgentVersion | None = None) -> dict[str, Any]:
    """A stored agent with one of its versions, the current one as a rule."""
    shown = version or agent.version()
    return _base(agent.id, agent.created_ms, agent.updated_ms, agent.owner_id, agent.visibility) | {
        "namespace": agent.namespace,
        "name": agent.name,
        "title": agent.title,
        "images": agent.images,
        "version_id": shown.id,
        "version": agent_version_dto(agent, shown),
    }


def agent_version_dto(agent: Agent, version: AgentVersion) -> dict[str, Any]:
    """A version: its config, without what is secret in it."""
    described = {"description": "", "system_prompt": "", "example_prompts": [], "tools": [], "skills": []}
    return (
        described
        | masked(version.config)
        | {
            "id": version.id,
            "short_id": short_id(version.id),
            "created_at": iso(version.created_ms),
            "updated_at": iso(version.created_ms),
            "agent_id": agent.id,
        }
    )


def _content(message: Message) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if message.reasoning:
        parts.append({"type": "reasoning", "text": message.reasoning})
    if message.text or message.role != "assistant":
        parts.append({"type": "text", "text": message.text})
    parts += [{"type": "image", "image": _uri(image)} for image in message.images]
    parts += [{"type": "file", "file": _uri(file)} for file in message.files]
    if message.error:
        parts.append({"type": "text", "error": message.error})
    return parts


def _uri(file: object) -> str:
    return str(file.get("uri", "")) if isinstance(file, dict) else as_text(file)


def _base(
    own_id: str, created_ms: int, updated_ms: int, user_id: str, visibility: str = "private"
) -> dict[str, Any]:
    return {
        "id": own_id,
        "short_id": short_id(own_id),
        "created_at": iso(created_ms),
        "updated_at": iso(updated_ms),
        "user_id": user_id,
        "team_id": user_id,
        "visibility": visibility,
    }
