"""Beginning what a chat needs: the model's task, an app's, a sub-agent's chat.

The gateway does it at once for its client, the jobs do it in each step. A chat is written with the id of each task before the task is submitted, so whoever comes later finds what was not
done. Only Redis is spoken to here; calls of addresses are left to the jobs.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

from stoker.agents.chat import CHAT_PREFIX, KIND, CallStatus, Chat
from stoker.agents.chats import Kept, load_chat, save_chat
from stoker.agents.config import fill_context, read_config
from stoker.agents.orders import (
    AskModel,
    Order,
    UseTool,
    awaited,
    begun_as,
    decide_orders,
    must_tell_parent,
)
from stoker.agents.place import Workplace
from stoker.agents.prepare import prepare
from stoker.agents.prompt import model_input
from stoker.agents.records import find_agent
from stoker.agents.step import Said, Steps, steps_now
from stoker.agents.tools import ToolType
from stoker.core.errors import (
    AppMismatch,
    CallerError,
    Conflict,
    DocumentChanged,
    NotFound,
    SessionEnded,
    SessionExpired,
    SessionNotFound,
    StoreUnavailable,
    VersionMismatch,
    WorkerLost,
)
from stoker.core.ids import derived_id
from stoker.core.messages import TaskId, Waiter
from stoker.core.sessions import NEW
from stoker.runs.submit import Origin, RunBody

TRIES: Final = 20
"""Of a change that others forestall: each of them got through."""
PAUSE_S: Final = 0.01
"""Between two of them at most, and as much more for each further one."""
MAX_DEPTH: Final = 5
"""Agents that ask agents, at most."""
SESSION_OVER: Final = (
    AppMismatch,
    SessionNotFound,
    SessionExpired,
    SessionEnded,
    VersionMismatch,
    WorkerLost,
)
"""What a run is told whose session does not go on; it does in another one."""
IN_THE_JOBS: Final = frozenset({ToolType.HTTP, ToolType.HOOK})

CallAddress = Callable[[str, str], Awaitable[None]]
"""Has a call of an address made, by the ids of chat and call."""


async def change_chat(
    place: Workplace, chat_id: str, step: Callable[[Steps, Chat], Chat], owner_id: str = ""
) -> Chat:
    """Change a chat, and begin what it needs then; of several at once each finds what the others did.

    Args:
        owner_id: whose it must be; '' = anybody's.

    Raises:
        NotFound: there is no such chat of this owner; or what `step` raises.
        Conflict: it changes all the time.
    """
    for number in range(TRIES):
        before = await load_chat(place.store, chat_id)
        if owner_id and before.chat.owner.user_id != owner_id:
            raise NotFound("Chat not found")
        steps = steps_now(place.settings)
        after = step(steps, before.chat)
        if after == before.chat:
            return after
        try:
            return await commit(place, steps, before, after)
        except DocumentChanged:
            await pause_after(number)
    raise Conflict("The chat changes all the time just now. Send this again.")


async def pause_after(number: int) -> None:
    """Wait a moment after a try that others forestalled, counted from 0: many at once would meet again and again."""
    await asyncio.sleep(random.uniform(0, PAUSE_S * (number + 1)))  # noqa: S311 - not a secret


async def commit(place: Workplace, steps: Steps, before: Kept | None, chat: Chat) -> Chat:
    """Write a changed chat, and begin what it needs; the jobs have the rest, and look whether it was begun.

    Raises:
        DocumentChanged: it has changed meanwhile.
    """
    chat = with_ids(place, steps, chat)
    kept = await save_chat(
        place.store, before, chat, place.settings, steps.now_ms, wake=needs_jobs(chat), soon=True
    )
    # Without an answer of the store the change is kept all the same: told that it failed, its caller would make it twice.
    with contextlib.suppress(StoreUnavailable):
        await begin_all(place, steps, kept, before.chat if before is not None else None)
    return kept.chat


def needs_jobs(chat: Chat) -> bool:
    """Whether a chat needs what only a step of the jobs does."""
    calls = [order for order in decide_orders(chat) if isinstance(order, UseTool)]
    return (
        bool(chat.to_cancel or chat.hooks)
        or must_tell_parent(chat)
        or any(order.tool.type in IN_THE_JOBS for order in calls)
    )


def with_ids(place: Workplace, steps: Steps, chat: Chat) -> Chat:
    """The chat with the ids of what is about to begin; they follow from what it is for."""
    for order in decide_orders(chat):
        if isinstance(order, AskModel):
            if not order.task_id:
                chat = steps.asked(chat, order.answer_id, _task_id(place, chat, order.answer_id))
        elif not order.call.execution_id:
            name = _task_id(place, chat, order.call.id)
            if order.tool.type is ToolType.AGENT:
                name = CHAT_PREFIX + derived_id(chat.id, order.call.id)
            chat = steps.asked(chat, order.call.id, name)
    return chat


def _task_id(place: Workplace, chat: Chat, part_id: str) -> str:
    return derived_id(chat.id, part_id, prefix=place.store.id_prefix)


async def begin_all(
    place: Workplace,
    steps: Steps,
    kept: Kept,
    before: Chat | None,
    call_address: CallAddress | None = None,
    seen: frozenset[str] = frozenset(),
) -> bool:
    """Begin what has not begun; False when something was refused, and the chat has changed by that.

    Args:
        before: the chat as it was; what it had no id for was never begun. None = there was none.
        call_address: None = calls of addresses are not begun here.
        seen: tasks that were just read, and so have begun.
    """
    chat = kept.chat
    refusals: dict[str, str] = {}
    over: dict[str, str] = {}
    maybe_begun = awaited(before) if before is not None else frozenset()
    for order in decide_orders(chat):
        part_id = order.answer_id if isinstance(order, AskModel) else order.call.id
        try:
            if begun_as(order) not in seen and not await _has_begun(place, chat, order, maybe_begun):
                await _begin(place, steps, chat, order, call_address)
        except (CallerError, WorkerLost) as error:
            if await _was_submitted(place, order):  # by another step, when nothing was in the way yet
                continue
            if (
                isinstance(order, UseTool)
                and isinstance(error, SESSION_OVER)
                and order.tool.name in chat.sessions
            ):
                over[part_id] = order.tool.name
            else:
                refusals[part_id] = error.message
    if not refusals and not over:
        return True
    changed = steps.out_of_session(chat, over)
    for part_id, why in refusals.items():
        if chat.message(part_id) is not None:
            changed = steps.failed(changed, part_id, why)
        else:
            changed = steps.worked(changed, part_id, why, failed=True)
    with contextlib.suppress(DocumentChanged):
        await save_chat(place.store, kept, changed, place.settings, steps.now_ms, wake=True)
    return False


async def _has_begun(place: Workplace, chat: Chat, order: Order, maybe_begun: frozenset[str]) -> bool:
    """Whether an order was carried out before; one whose id is new was not.

    What works already goes on, whatever has become of the app or the agent meanwhile. The chat of a sub-agent that was
    deleted is not begun again: its call was ended before, maybe after `chat` was read.
    """
    name = begun_as(order)
    if name not in maybe_begun:
        return False
    if isinstance(order, AskModel) or order.tool.type is ToolType.APP:
        return await _was_submitted(place, order)
    if order.tool.type is not ToolType.AGENT:
        return False
    [child] = await place.store.documents.get_many(KIND, [name.removeprefix(CHAT_PREFIX)])
    return child is not None or not await _still_waits(place, chat.id, order.call.id)


async def _was_submitted(place: Workplace, order: Order) -> bool:
    is_task = isinstance(order, AskModel) or order.tool.type is ToolType.APP
    return is_task and await place.store.tasks.known(TaskId(begun_as(order)))


async def _still_waits(place: Workplace, chat_id: str, call_id: str) -> bool:
    try:
        call = (await load_chat(place.store, chat_id)).chat.call(call_id)
    except NotFound:
        return False
    return call is not None and call.status is CallStatus.IN_PROGRESS


async def _begin(
    place: Workplace, steps: Steps, chat: Chat, order: Order, call_address: CallAddress | None
) -> None:
    """Begin one thing; nothing happens when it has begun before.

    Raises:
        CallerError, WorkerLost: it cannot be done as it is.
    """
    if isinstance(order, AskModel):
        answer = chat.message(order.answer_id)
        core = chat.config.core
        if answer is not None:
            body = RunBody(
                app=core.ref,
                app_id=core.id,
                version_id=core.version_id,
                input=model_input(chat, answer),
                setup=core.setup,
                infra="private",
            )
            await _submit(place, chat, body, order.task_id, order.answer_id)
        return
    match order.tool.type:
        case ToolType.APP:
            await _begin_app(place, chat, order)
        case ToolType.AGENT:
            await _begin_agent(place, steps, chat, order)
        case _:
            if call_address is not None:
                await call_address(chat.id, order.call.id)


async def _begin_app(place: Workplace, chat: Chat, order: UseTool) -> None:
    tool, call = order.tool, order.call
    body = RunBody(
        app=tool.ref,
        function=tool.function,
        input={**tool.input, **call.arguments},
        setup=tool.setup,
        infra="private",
        session=chat.sessions.get(tool.name, NEW) if tool.session_enabled else None,
    )
    await _submit(place, chat, body, call.execution_id, call.id)


async def _submit(place: Workplace, chat: Chat, body: RunBody, task_id: str, part: str) -> None:
    waiter = Waiter(kind=KIND, id=chat.id, part=part)
    origin = Origin(task_id=task_id, waiter=waiter, files_url=chat.files_url)
    await place.submitter.submit(body, chat.owner, origin=origin)


async def _begin_agent(place: Workplace, steps: Steps, chat: Chat, order: UseTool) -> None:
    child_id = order.call.execution_id.removeprefix(CHAT_PREFIX)
    if await _depth(place, chat) >= MAX_DEPTH:
        raise CallerError(f"Agents may ask agents {MAX_DEPTH} deep, not deeper.")
    user_id = chat.owner.user_id
    agent, version = await find_agent(place.store, order.tool.ref, user_id)
    config = await prepare(read_config(version.config), place, user_id, agent)
    child = Chat(
        id=child_id,
        owner=chat.owner,
        config=config,
        agent_id=agent.id,
        agent_version_id=version.id,
        parent_id=chat.id,
        parent_call=order.call.id,
        context=fill_context(config.context, chat.context),
        files_url=chat.files_url,
    )
    child = steps.say(child, Said(text=str(order.call.arguments.get("message", ""))))
    with contextlib.suppress(DocumentChanged):  # it was begun before
        await commit(place, steps, None, child)


async def _depth(place: Workplace, chat: Chat) -> int:
    depth = 0
    while chat.parent_id and depth < MAX_DEPTH:
        depth += 1
        try:
            chat = (await load_chat(place.store, chat.parent_id)).chat
        except NotFound:
            break
    return depth
