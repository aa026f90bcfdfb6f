"""A call of an address for a tool (`address_calls.py` says when): the request, its tries, what the model is told."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import httpx

from stoker import __version__
from stoker.agents.beginning import change_chat
from stoker.agents.calls import RESULT_CHARS, ToolRequest, answer_text, tool_request
from stoker.agents.chat import CallStatus, Chat, ToolCall
from stoker.agents.chats import load_chat
from stoker.agents.step import Steps, find_tool
from stoker.agents.tools import Tool
from stoker.core.addresses import AllowList
from stoker.core.errors import CallerError, Conflict, NotFound, SecretUnreadable, StoreUnavailable
from stoker.core.events import Event
from stoker.core.webhooks import shown_receiver
from stoker.log import get_logger
from stoker.outbound import PERMITS, AddressRefused, may_reach
from stoker.redaction import Redactor
from stoker.settings import JobsSettings
from stoker_jobs.desk import Desk
from stoker_jobs.secret_values import secret_values

CALL_TIMEOUT_S: Final = 30.0
PAUSES_S: Final = (0.5, 2.0)
"""Between the tries of a call that was not answered, or that shall come later."""
LATER: Final = frozenset({429, 502, 503, 504})
RESULT_BYTES: Final = 4 * RESULT_CHARS
"""Of an answer that are read: a character has at most four."""
TELL_PAUSES_S: Final = (1, 5, 15)
"""Between the tries to give a chat what a call gave."""


_log = get_logger("agents")


async def call_tool(desk: Desk, client: httpx.AsyncClient, chat_id: str, call_id: str) -> None:
    """Make a call of a tool, and give its result to the chat; nothing when it is over.

    Args:
        client: a `stoker.outbound.checked_client`.

    Raises:
        StoreUnavailable: the chat does not know of it, and has it made again.
    """
    try:
        chat = (await load_chat(desk.store, chat_id)).chat
    except NotFound:
        return
    call = chat.call(call_id)
    tool = find_tool(chat, call.name) if call is not None else None
    if call is None or tool is None or call.status is not CallStatus.IN_PROGRESS:
        return
    text, failed = await _answer(desk, client, chat, tool, call)
    await tell_chat(desk, chat_id, lambda steps, now: steps.worked(now, call_id, text, failed=failed))


async def tell_chat(desk: Desk, chat_id: str, step: Callable[[Steps, Chat], Chat]) -> None:
    """Let a chat go on with what a call gave.

    Redis being away, and a chat that many change at once, are waited out for a while: the call is not to be repeated.

    Raises:
        StoreUnavailable: it was away for longer.
        Conflict: the chat was changed all that time.
    """
    for pause_s in (*TELL_PAUSES_S, None):
        try:
            await change_chat(desk, chat_id, step)
        except NotFound:
            return
        except (StoreUnavailable, Conflict):
            if pause_s is None:
                raise
            await asyncio.sleep(pause_s)
        else:
            return


async def _answer(
    desk: Desk, client: httpx.AsyncClient, chat: Chat, tool: Tool, call: ToolCall
) -> tuple[str, bool]:
    """Make a call; what the model is told, and whether it failed. No value of a secret is in it."""
    try:
        secrets = await secret_values(desk, chat.owner.user_id, tool.secrets, chat.id)
        wanted = tool_request(chat, tool, call, int(time.time()), secrets)
    except (CallerError, SecretUnreadable) as error:
        return error.message, True
    text, failed = await ask(client, desk.settings, wanted)
    return Redactor(secrets).text(text), failed


async def ask(client: httpx.AsyncClient, settings: JobsSettings, wanted: ToolRequest) -> tuple[str, bool]:
    """Send a request to an address that a stranger named; what the model is told, and whether it failed."""
    for pause_s in (*PAUSES_S, None):
        try:
            text, failed, again = await _try(client, settings, wanted)
        except Exception:  # noqa: BLE001 - the edge of a call: it has an outcome whatever a stranger's server does
            _log.exception(Event.CALL_FAILED, receiver=shown_receiver(wanted.url))
            return "The call failed in a way that nobody expected; Stoker's log says how.", True
        if not again or pause_s is None:
            break
        await asyncio.sleep(pause_s)
    return text, failed


async def _try(
    client: httpx.AsyncClient, settings: JobsSettings, wanted: ToolRequest
) -> tuple[str, bool, bool]:
    try:
        url = httpx.URL(wanted.url)
        permits = may_reach(AllowList.parse(settings.webhook_allow), url)
        headers = {"User-Agent": f"stoker/{__version__}", **wanted.headers}
        async with asyncio.timeout(CALL_TIMEOUT_S):
            request = client.build_request(
                wanted.method,
                url.copy_merge_params(wanted.query) if wanted.query else url,
                content=wanted.body,
                headers=headers,
                extensions={PERMITS: permits},
            )
            answer = await client.send(request, stream=True)
            try:
                body = await _beginning(answer)
            finally:
                await answer.aclose()
    except AddressRefused:
        text = f"{httpx.URL(wanted.url).host} is not public, and the operator's setting webhook_allow does not name it."
        return text, True, False
    except httpx.InvalidURL:
        return "The address of this tool is none.", True, False
    except (UnicodeError, httpx.LocalProtocolError):  # whose text shows the header, and that may be a key
        return "A header of this tool has characters that no header can have.", True, False
    except (TimeoutError, httpx.HTTPError) as error:
        why = str(error) or f"no answer within {CALL_TIMEOUT_S:g} s"
        return (
            f"{httpx.URL(wanted.url).host} could not be reached: {why}",
            True,
            isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)),  # nothing was sent
        )
    text, failed = answer_text(url.host, answer.status_code, body)
    return text, failed, answer.status_code in LATER


async def _beginning(answer: httpx.Response) -> str:
    """The text of an answer, up to what a model is told. What it says of its encoding may be wrong or none."""
    begun = bytearray()
    async for part in answer.aiter_bytes():
        begun += part
        if len(begun) >= RESULT_BYTES:
            break
    raw = bytes(begun[:RESULT_BYTES])
    try:
        return raw.decode(answer.charset_encoding or "utf-8", errors="replace")
    except (LookupError, UnicodeError):
        return raw.decode(errors="replace")
