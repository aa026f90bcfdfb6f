"""Hooks of chats: those that nobody waits for become deliveries of webhooks, the others are calls (`address_calls.py`).

A chat says what its hooks are to be told (`Chat.hooks`). It is told after that was written, and taken out afterwards, so
what a process that died has told is told again, under the same id.
"""

import asyncio

import httpx
import msgspec

from stoker.agents.calls import ToolRequest
from stoker.agents.chat import Chat
from stoker.agents.chats import load_chat
from stoker.agents.hooks import HookCall, Verdict, read_verdict, verdict_of
from stoker.agents.telling import hook_event
from stoker.core.errors import NotFound, SecretUnreadable
from stoker.core.events import Event
from stoker.core.ids import derived_id
from stoker.core.webhooks import DELIVERY, EVENT, Delivery, excerpt_of, shown_receiver
from stoker.log import get_logger
from stoker.vault import Vault
from stoker_jobs.desk import Desk
from stoker_jobs.signing import signed_headers
from stoker_jobs.tool_calls import ask, tell_chat

_encode = msgspec.json.Encoder().encode


def delivery_id(chat_id: str, hook_id: str) -> str:
    """The id that the receiver sees, the same at every try."""
    return derived_id(chat_id, hook_id, prefix="hook-")


async def tell_behind(desk: Desk, chat: Chat) -> tuple[str, ...]:
    """Have the hooks told that nobody waits for; their ids. Harmless when done again.

    Args:
        chat: as it is stored: what is not stored has not happened.
    """
    told = [one for one in chat.hooks if not one.hook.waits]
    for one in told:
        made = Delivery(
            id=delivery_id(chat.id, one.id),
            owner_id=one.hook.owner_id or chat.owner.user_id,
            url=one.hook.url,
            event=one.event,
            chat_id=chat.id,
            part=one.part,
            detail=one.detail,
        )
        await desk.store.deliveries.open(made)
    return tuple(one.id for one in told)


async def ask_hook(desk: Desk, client: httpx.AsyncClient, chat_id: str, hook_id: str) -> None:
    """Call a hook that is waited for, and let the chat go on as it says; nothing when it was told before.

    Raises:
        StoreUnavailable: the chat does not know of it, and has it called again.
    """
    try:
        chat = (await load_chat(desk.store, chat_id)).chat
    except NotFound:
        return
    asked = next((one for one in chat.hooks if one.id == hook_id), None)
    if asked is None:
        return
    said = await _verdict(desk, client, chat, asked)
    await tell_chat(desk, chat_id, lambda steps, now: steps.hooked(now, hook_id, said))


async def _verdict(desk: Desk, client: httpx.AsyncClient, chat: Chat, asked: HookCall) -> Verdict:
    """What a hook says. One call with a time limit; what goes wrong is no `allow` for a call of a tool."""
    hook, settings = asked.hook, desk.settings
    body = _encode(hook_event(chat, asked.event, asked.part, asked.at_ms, asked.detail))
    headers = {
        "Content-Type": "application/json",
        DELIVERY: delivery_id(chat.id, asked.id),
        EVENT: str(asked.event),
    }
    vault = Vault(settings.secrets_key.get_secret_value(), settings.secrets_key_path)
    try:
        headers |= await signed_headers(desk.store, vault, hook.owner_id or chat.owner.user_id, body)
        wanted = ToolRequest(method="POST", url=hook.url, headers=headers, body=body)
        async with asyncio.timeout(hook.timeout_s):
            text, failed = await ask(client, settings, wanted)
    except SecretUnreadable as error:
        text, failed = error.message, True
    except TimeoutError:
        text, failed = f"no answer within {hook.timeout_s:g} s", True
    if not failed:
        return read_verdict(text)
    why = excerpt_of(text.encode(), hook.url)  # a refusal may repeat the address, and that may be a key
    get_logger("agents").warning(
        Event.HOOK_FAILED,
        chat_id=chat.id,
        hook=str(asked.event),
        receiver=shown_receiver(hook.url),
        reason=why,
    )
    return verdict_of(asked.event, why)
