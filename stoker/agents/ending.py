"""Ending what nobody waits for any more, and forgetting a chat that its owner deletes. The gateway and the jobs do it."""

import asyncio
import contextlib
from typing import Final

from msgspec.structs import replace

from stoker.agents.beginning import change_chat
from stoker.agents.chat import CHAT_PREFIX, KIND, Chat
from stoker.agents.chats import load_chat
from stoker.agents.place import Workplace
from stoker.agents.prompt import outcome
from stoker.agents.step import Steps
from stoker.core.errors import NotFound
from stoker.core.messages import TaskId

DELETED: Final = "The chat in which the agent worked was deleted before it had answered."
"""What the model is told of a call whose sub-agent is gone."""
UNBORN_PAUSES_S: Final = (0.05, 0.2, 0.5, 1.0)
"""Between the looks for what a chat that is deleted named and was not there: whoever begins it may be slower. A client
waits for the last of them, so that there is less of it than after a stop (`stoker.core.waiting.UNBORN_S`)."""


async def give_up(place: Workplace, chat: Chat) -> list[str]:
    """End what a chat waits for no more, and tell what was not there. Harmless when done again."""
    missing = []
    for name in chat.to_cancel:
        try:
            if name.startswith(CHAT_PREFIX):
                await change_chat(place, name.removeprefix(CHAT_PREFIX), Steps.stop)
            else:
                await place.store.tasks.cancel(TaskId(name))
        except NotFound:
            missing.append(name)
    return missing


async def forget(place: Workplace, chat_id: str, owner_id: str) -> None:
    """Stop a chat, end what works for it, and delete it.

    The chat that waits for it is told first: one that is not there is begun, for who was to begin it may have died, so
    afterwards it would be begun once more.

    Raises:
        NotFound: there is no such chat of this owner.
        Conflict: it changes all the time.
    """
    chat = (await load_chat(place.store, chat_id)).chat
    if chat.owner.user_id != owner_id:
        raise NotFound("Chat not found")
    if chat.parent_call:
        text, failed = outcome(chat) if chat.run is not None and chat.run.over else (DELETED, True)
        with contextlib.suppress(NotFound):
            await change_chat(
                place,
                chat.parent_id,
                lambda steps, parent: steps.worked(parent, chat.parent_call, text, failed=failed),
            )
    chat = await change_chat(place, chat_id, Steps.stop, owner_id)
    missing = await give_up(place, chat)
    await place.store.documents.delete(KIND, chat_id, owner_id)
    for pause_s in UNBORN_PAUSES_S:
        if not missing:
            return
        await asyncio.sleep(pause_s)
        missing = await give_up(place, replace(chat, to_cancel=tuple(missing)))
