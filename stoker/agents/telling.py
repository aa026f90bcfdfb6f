"""What hooks are to be told: noted in the chat when it happens, told by the jobs, and taken out then. Pure.

So a crash between the two loses nothing, and what is told twice has the same id.
"""

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from stoker.agents.chat import Chat, Message, ToolCall
from stoker.agents.hooks import HookCall, HookEvent


def told(chat: Chat, event: HookEvent, part: str, now_ms: int, detail: str = "") -> Chat:
    """The chat with what its hooks for an event are to be told."""
    if not chat.config.hooks or chat.run is None:
        return chat
    name = event.rpartition(".")[2]
    new = tuple(
        HookCall(
            id=f"{part}-{name}-{number}",
            hook=hook,
            part=part,
            run_id=chat.run.id,
            at_ms=now_ms,
            detail=detail,
        )
        for number, hook in enumerate(chat.config.hooks)
        if hook.event is event
    )
    return replace(chat, hooks=(*chat.hooks, *new)) if new else chat


def without(chat: Chat, *hook_ids: str) -> Chat:
    """The chat after hooks were told."""
    left = tuple(one for one in chat.hooks if one.id not in hook_ids)
    return chat if left == chat.hooks else replace(chat, hooks=left)


def hold_the_model(chat: Chat) -> bool:
    """Whether the model is not asked yet, because a hook has not answered."""
    run_id = chat.run.id if chat.run is not None else ""
    return any(one.holds_the_model and one.run_id == run_id for one in chat.hooks)


def hold_call(chat: Chat, call_id: str) -> bool:
    """Whether a call is not made yet, because a hook has not answered."""
    return any(one.holds_call(call_id) for one in chat.hooks)


def hook_event(chat: Chat, event: str, part: str, at_ms: int, detail: str) -> dict[str, Any]:
    """What a hook is told: made of the chat each time, for what happened stays in it."""
    run_id = _run_of(chat, part)
    about: dict[str, Any] = {
        "event": event,
        "created_at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "chat_id": chat.id,
        "run_id": run_id,
        "agent_id": chat.agent_id or None,
        "agent_name": chat.config.name or None,
    }
    call, message = chat.call(part), chat.message(part)
    turns = [one for one in chat.messages if one.run_id == run_id and one.role == "assistant"]
    match event:
        case HookEvent.START:
            asked = next((one for one in chat.messages if one.run_id == run_id and one.role == "user"), None)
            about["message"] = asked.text if asked else ""
        case HookEvent.TURN_START if message:
            about |= {"message_id": message.id, "turn": turns.index(message) + 1}
        case HookEvent.TURN_COMPLETE if message:
            about |= _turn(message)
        case HookEvent.TOOL_CALL if call:
            about |= _call(call)
        case HookEvent.TOOL_RESULT if call:
            about |= _call(call) | {"status": call.status, "result": call.result}
        case HookEvent.ERROR:
            about["error"] = next((one.error for one in reversed(turns) if one.error), "")
        case HookEvent.COMPLETE:
            about |= {"text": turns[-1].text if turns else "", "output": _output(turns)}
        case HookEvent.IDLE:
            about["state"] = detail
        case _:
            pass
    return about


def _run_of(chat: Chat, part: str) -> str:
    for message in chat.messages:
        if message.id == part or any(call.id == part for call in message.calls):
            return message.run_id
    return part


def _turn(message: Message) -> dict[str, Any]:
    calls = [call.name for call in message.calls]
    return {"message_id": message.id, "text": message.text, "tools": calls, "usage": message.usage}


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "tool_invocation_id": call.id,
        "tool": call.name,
        "type": call.type,
        "arguments": call.arguments,
    }


def _output(turns: list[Message]) -> Any:
    """The arguments of the tool `finish`, when the run had it."""
    finished = [
        call for one in turns for call in one.calls if call.name == "finish" and call.type == "internal"
    ]
    return finished[-1].arguments if finished else None
