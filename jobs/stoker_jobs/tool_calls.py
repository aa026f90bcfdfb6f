"""Calls of addresses for tools: each is a job of its own, for it waits for a stranger.

A job may run twice, when its process died after the call and before the result was written; the receiver sees the
same `Idempotency-Key` or `X-Delivery-Id` then.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import httpx

from stoker import __version__
from stoker.agents.beginning import change_chat
from stoker.agents.calls import RESULT_CHARS, ToolRequest, answer_text, tool_request
from stoker.agents.chat import KIND, CallStatus, Chat, ToolCall
from stoker.agents.chats import load_chat
from stoker.agents.step import find_tool
from stoker.agents.tools import Tool
from stoker.core.addresses import AllowList
from stoker.core.errors import CallerError, NotFound, SecretUnreadable
from stoker.outbound import PERMITS, AddressRefused, checked_client, may_reach
from stoker.redaction import Redactor
from stoker.settings import JobsSettings
from stoker_jobs.desk import STEP_TIMEOUT_S, Desk, at_desk
from stoker_jobs.queue import Planned, document_job_id
from stoker_jobs.secret_values import secret_values

CALL_TIMEOUT_S: Final = 30.0
PAUSES_S: Final = (0.5, 2.0)
"""Between the tries of a call that was not answered, or that shall come later."""
JOB_TIMEOUT_S: Final = (len(PAUSES_S) + 1) * CALL_TIMEOUT_S + sum(PAUSES_S) + STEP_TIMEOUT_S
"""Of all tries of a call, and of a step for what it gave; RQ's own limit is 180 s."""
LATER: Final = frozenset({429, 502, 503, 504})
JOB_PAUSES_S: Final = (1, 5, 15)
"""Between the tries of a job whose result could not be written."""
KEEP_S: Final = 3600
FAILED_KEEP_S: Final = 30
"""The chat still waits for a job that failed: its next look makes it anew."""


def planned_call(function: Callable[[str, str], None], chat_id: str, part_id: str) -> Planned:
    """The job that calls an address for a part of a chat: one of its calls of a tool, or of its hooks."""
    return Planned(
        id=document_job_id(KIND, chat_id, part_id),
        function=function,
        arguments=(chat_id, part_id),
        pauses_s=JOB_PAUSES_S,
        keep_s=KEEP_S,
        failed_keep_s=FAILED_KEEP_S,
    )


def call_tool(chat_id: str, call_id: str) -> None:
    """Make a call of a tool, and give its result to the chat.

    Raises:
        StoreUnavailable: RQ tries again.
    """
    at_desk(lambda desk: _call(desk, chat_id, call_id), JOB_TIMEOUT_S)


async def _call(desk: Desk, chat_id: str, call_id: str) -> None:
    try:
        chat = (await load_chat(desk.store, chat_id)).chat
    except NotFound:
        return
    call = chat.call(call_id)
    tool = find_tool(chat, call.name) if call is not None else None
    if call is None or tool is None or call.status is not CallStatus.IN_PROGRESS:
        return
    text, failed = await _answer(desk, chat, tool, call)
    await change_chat(desk, chat_id, lambda steps, now: steps.worked(now, call_id, text, failed=failed))


async def _answer(desk: Desk, chat: Chat, tool: Tool, call: ToolCall) -> tuple[str, bool]:
    """Make a call; what the model is told, and whether it failed. No value of a secret is in it."""
    try:
        secrets = await secret_values(desk, chat.owner.user_id, tool.secrets, chat.id)
        wanted = tool_request(chat, tool, call, int(time.time()), secrets)
    except (CallerError, SecretUnreadable) as error:
        return error.message, True
    text, failed = await ask(desk.settings, wanted)
    return Redactor(secrets).text(text), failed


async def ask(settings: JobsSettings, wanted: ToolRequest) -> tuple[str, bool]:
    """Send a request to an address that a stranger named; what the model is told, and whether it failed."""
    for pause_s in (*PAUSES_S, None):
        text, failed, again = await _try(settings, wanted)
        if not again or pause_s is None:
            break
        await asyncio.sleep(pause_s)
    return text, failed


async def _try(settings: JobsSettings, wanted: ToolRequest) -> tuple[str, bool, bool]:
    try:
        url = httpx.URL(wanted.url)
        permits = may_reach(AllowList.parse(settings.webhook_allow), url)
        headers = {"User-Agent": f"stoker/{__version__}", **wanted.headers}
        async with asyncio.timeout(CALL_TIMEOUT_S), checked_client(httpx.Timeout(CALL_TIMEOUT_S)) as client:
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
            isinstance(error, httpx.ConnectError),
        )
    text, failed = answer_text(url.host, answer.status_code, body)
    return text, failed, answer.status_code in LATER


async def _beginning(answer: httpx.Response) -> str:
    """The text of an answer, up to what a model is told."""
    parts: list[str] = []
    size = 0
    async for part in answer.aiter_text():
        parts.append(part)
        size += len(part)
        if size >= RESULT_CHARS:
            break
    return "".join(parts)
