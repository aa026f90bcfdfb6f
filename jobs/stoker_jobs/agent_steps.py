"""The step of a chat: see what has ended, let the chat go on, begin what is to be done.

The chat says what it waits for (`stoker.agents.orders`), and is written with the id of each task before the task is
submitted. Only Redis is spoken to here; other addresses are called elsewhere (`address_calls.py`).
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from stoker.agents.beginning import TRIES, begin_all, pause_after, with_ids
from stoker.agents.chat import CHAT_PREFIX, KIND, Chat
from stoker.agents.chats import Kept, load_chat, save_chat
from stoker.agents.ending import give_up
from stoker.agents.orders import AskModel, Order, UseTool, decide_orders, must_tell_parent
from stoker.agents.prompt import as_text, outcome
from stoker.agents.step import Steps, steps_now
from stoker.agents.telling import without
from stoker.agents.tools import ToolType
from stoker.core.errors import DocumentChanged, NotFound
from stoker.core.messages import TaskId
from stoker.core.states import TERMINAL, TaskState
from stoker.core.waiting import LOOK_UNBORN_S
from stoker.llm.contract import read_output
from stoker.protocol.calls import AddressCall, CallKind
from stoker.protocol.task_hash import Standing
from stoker_jobs.chat_hooks import tell_behind
from stoker_jobs.desk import Desk


async def _call_address(desk: Desk, chat_id: str, call_id: str) -> None:
    await desk.store.calls.ask(AddressCall(kind=CallKind.TOOL, chat_id=chat_id, part_id=call_id))


async def step_chat(desk: Desk, chat_id: str) -> None:
    """Take the step of a chat.

    Raises:
        DocumentChanged: others wrote it all the time, or each try to begin something was refused; the next step goes on.
        StoreUnavailable: safe to repeat.
    """
    for number in range(TRIES):
        try:
            before = await load_chat(desk.store, chat_id)
        except NotFound:
            return
        steps = steps_now(desk.settings)
        found = await _standings(desk, decide_orders(before.chat))
        chat = await _caught_up(desk, steps, before.chat, found)
        chat = steps.expire(chat, desk.settings.client_tool_wait_s)
        chat = steps.tidied(chat, await give_up(desk, chat))
        chat = with_ids(desk, steps, without(chat, *await tell_behind(desk, before.chat)))
        try:
            kept = before if chat == before.chat else await _save(desk, before, chat, steps)
        except DocumentChanged:
            await pause_after(number)
            continue
        if kept is before and chat.to_cancel:
            await desk.store.documents.look_by(KIND, chat_id, steps.now_ms + int(LOOK_UNBORN_S * 1000))
        await _tell_hooks(desk, kept.chat)
        if await begin_all(
            desk, steps, kept, before.chat, partial(_call_address, desk), seen=frozenset(found)
        ):
            await _tell_parent(desk, steps, kept)
            return
    raise DocumentChanged


async def _tell_hooks(desk: Desk, chat: Chat) -> None:
    """Have the hooks told of what is stored now. The next step takes those out that nobody waits for."""
    await tell_behind(desk, chat)
    for one in chat.hooks:
        if one.hook.waits:
            await desk.store.calls.ask(AddressCall(kind=CallKind.HOOK, chat_id=chat.id, part_id=one.id))


async def _save(desk: Desk, before: Kept | None, chat: Chat, steps: Steps, *, wake: bool = False) -> Kept:
    return await save_chat(desk.store, before, chat, desk.settings, steps.now_ms, wake=wake)


async def _caught_up(desk: Desk, steps: Steps, chat: Chat, found: Mapping[str, Standing]) -> Chat:
    """The chat with what has ended meanwhile."""
    ended = {name: standing for name, standing in found.items() if standing.state in TERMINAL}
    for order in decide_orders(chat):
        if isinstance(order, AskModel):
            if (end := ended.get(order.task_id)) is not None:
                chat = _answered(steps, chat, order.answer_id, end)
        elif order.tool.type is ToolType.APP:
            if (end := ended.get(order.call.execution_id)) is not None:
                failed = end.state is not TaskState.COMPLETED
                text = _why(end) if failed else _output_text(end)
                if order.tool.session_enabled and end.session_id:
                    chat = steps.in_session(chat, order.tool, end.session_id)
                chat = steps.worked(chat, order.call.id, text, failed=failed)
        elif order.tool.type is ToolType.AGENT and order.call.execution_id:
            chat = await _child_ended(desk, steps, chat, order)
    return chat


async def _standings(desk: Desk, orders: Sequence[Order]) -> Mapping[str, Standing]:
    """The tasks of orders."""
    calls = [order for order in orders if isinstance(order, UseTool) and order.tool.type is ToolType.APP]
    ids = [order.task_id for order in orders if isinstance(order, AskModel)]
    ids += [order.call.execution_id for order in calls]
    found = await desk.store.tasks.standings(
        [TaskId(name) for name in ids if name],
        with_sessions=any(order.tool.session_enabled for order in calls),
    )
    return {str(name): standing for name, standing in found.items()}


def _answered(steps: Steps, chat: Chat, answer_id: str, end: Standing) -> Chat:
    if end.state is TaskState.COMPLETED:
        return steps.answered(chat, answer_id, read_output(end.output))
    return steps.failed(chat, answer_id, _why(end), cancelled=end.state is TaskState.CANCELLED)


def _why(end: Standing) -> str:
    return end.error or f"The task was {end.state.wire_name}."


def _output_text(end: Standing) -> str:
    value = msgspec.json.decode(end.output)
    if isinstance(value, dict):
        value.pop("output_meta", None)
    return as_text(value)


async def _child_ended(desk: Desk, steps: Steps, chat: Chat, order: UseTool) -> Chat:
    child_id = order.call.execution_id.removeprefix(CHAT_PREFIX)
    try:
        child = (await load_chat(desk.store, child_id)).chat
    except NotFound:
        return chat  # not begun yet; who deletes it ends the call before
    if child.run is None or child.busy:
        return chat
    text, failed = outcome(child)
    return steps.worked(chat, order.call.id, text, failed=failed)


async def _tell_parent(desk: Desk, steps: Steps, kept: Kept) -> None:
    """Have the step of the chat taken that waits for this one.

    Raises:
        DocumentChanged: others wrote that one all the time; it was not told, and the next step does.
    """
    chat = kept.chat
    if not must_tell_parent(chat):
        return
    for number in range(TRIES):
        try:
            parent = await load_chat(desk.store, chat.parent_id)
            await _save(desk, parent, parent.chat, steps, wake=True)
        except DocumentChanged:
            await pause_after(number)
        except NotFound:
            break  # deleted, with everything that it waited for
        else:
            break
    else:
        raise DocumentChanged
    with contextlib.suppress(DocumentChanged):
        await _save(desk, kept, steps.told_parent(chat), steps)
