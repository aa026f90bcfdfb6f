"""What must be done for a chat, read off the chat itself. Pure.

An order names what it is for; whoever carries it out does so under an id made of that, and notes it in the chat. So
an order that is read twice is carried out once.
"""

from typing import Final

from msgspec import Struct

from stoker.agents.chat import CallStatus, Chat, Message, MessageStatus, ToolCall
from stoker.agents.step import find_tool
from stoker.agents.telling import hold_the_model
from stoker.agents.tools import Tool, ToolType
from stoker.core.waiting import LOOK_UNBORN_S

LOOK_AGAIN_S: Final = 60.0
"""A chat that is busy is looked at so often, whatever came or did not come."""


class AskModel(Struct, frozen=True, kw_only=True):
    """Run the language model for an answer. `task_id`: it was decided before under this id, and may have been done."""

    answer_id: str
    task_id: str = ""


class UseTool(Struct, frozen=True, kw_only=True):
    """Make a call of a tool that is not the caller's own; likewise."""

    call: ToolCall
    tool: Tool


Order = AskModel | UseTool


def begun_as(order: Order) -> str:
    """The id under which an order is carried out: of a task, or of another chat; "" = it has none yet."""
    return order.task_id if isinstance(order, AskModel) else order.call.execution_id


def decide_orders(chat: Chat) -> tuple[Order, ...]:
    """All that is under way or to be begun."""
    turn = chat.turn
    if not chat.busy or turn is None:
        return ()
    orders: list[Order] = []
    if turn.status is MessageStatus.PENDING and not hold_the_model(chat):
        orders.append(AskModel(answer_id=turn.id, task_id=turn.task_id))
    for call in turn.calls:
        tool = find_tool(chat, call.name)
        works = call.status is CallStatus.IN_PROGRESS and call.type is not ToolType.INTERNAL
        if works and tool is not None and not _awaits_session(chat, turn, call, tool):
            orders.append(UseTool(call=call, tool=tool))
    return tuple(orders)


def awaited(chat: Chat) -> frozenset[str]:
    """The ids of what a chat waits for."""
    return frozenset(name for order in decide_orders(chat) if (name := begun_as(order)))


def _awaits_session(chat: Chat, turn: Message, call: ToolCall, tool: Tool) -> bool:
    """Whether a call is to join a session that another call of this answer opens: the one that was begun first."""
    if not tool.session_enabled or tool.name in chat.sessions or call.execution_id:
        return False
    works = [one for one in turn.calls if one.name == call.name and one.status is CallStatus.IN_PROGRESS]
    opener = next((one for one in works if one.execution_id), works[0])
    return opener.id != call.id


def decide_due_s(chat: Chat, now_ms: int, wait_s: float) -> float | None:
    """When to look at a chat again if nothing comes; None = never."""
    if chat.to_cancel:
        return LOOK_UNBORN_S
    if not chat.busy:
        return LOOK_AGAIN_S if chat.hooks or must_tell_parent(chat) else None
    asked = [call.asked_ms for call in chat.open_calls if call.status is CallStatus.AWAITING_INPUT]
    if asked:
        return min(LOOK_AGAIN_S, max(0.0, (min(asked) - now_ms) / 1000 + wait_s))
    return LOOK_AGAIN_S if chat.hooks or decide_orders(chat) else None


def must_tell_parent(chat: Chat) -> bool:
    """Whether another chat waits for this one, and does not know that it is over."""
    return bool(chat.parent_call) and chat.run is not None and chat.run.over and not chat.parent_told
