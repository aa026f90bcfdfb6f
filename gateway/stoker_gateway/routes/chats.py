"""Chats: read, follow, stop, delete them; what people and clients decide and give while one waits."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.response import Stream
from msgspec import Struct
from msgspec.structs import replace

from stoker.agents.beginning import change_chat
from stoker.agents.chat import KIND, Chat, ToolCall, chat_of
from stoker.agents.chats import head_of, load_chat
from stoker.agents.ending import forget
from stoker.agents.prompt import as_text
from stoker.agents.step import Steps
from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.messages import TaskId
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.chat_dto import call_dto, chat_dto, interrupt_dto, interrupts, message_dto
from stoker_gateway.chat_stream import ChatStream
from stoker_gateway.chat_trace import task_ids, trace_dto
from stoker_gateway.door import caller_of
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain
from stoker_gateway.numbers import check_cursor, whole
from stoker_gateway.routes.tasks import STREAM_HEADERS
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of
from stoker_gateway.streams import NDJSON, SSE


class RejectBody(Struct, kw_only=True):
    """Why a call may not be made."""

    reason: str | None = ""


class ResolveBody(Struct, kw_only=True):
    """The answer to a question: allow or deny."""

    decision: str
    reason: str | None = ""


class ChatBody(Struct, kw_only=True):
    """What may be changed of a chat; what is left out stays."""

    name: str | None = None
    allow_all_tools: bool | None = None
    forget_memory: list[str] | None = None


@get("/chats/{chat_id:str}", tags=["chats"], summary="Read a chat")
async def read_chat(request: AnyRequest, chat_id: str) -> Answer:
    """A chat with all its messages."""
    return answer(request, chat_dto(await _own(request, chat_id)))


@get("/chats/{chat_id:str}/status", tags=["chats"], summary="Read a chat's status")
async def read_status(request: AnyRequest, chat_id: str) -> Answer:
    """For clients that poll: `awaiting_input` also while a tool of the caller's own is waited for."""
    return answer(request, {"status": (await _own(request, chat_id)).polled_status})


@get("/chats/{chat_id:str}/stream", tags=["chats"], summary="Follow a chat")
async def stream_chat(request: AnyRequest, chat_id: str) -> Stream:
    """The messages of the last turn, the chat, and then what changes; increments of answers as `delta`.

    NDJSON for `Accept: application/x-ndjson`, else server-sent events without increments. It ends some seconds after
    the chat has become idle.
    """
    services, ndjson = services_of(request), NDJSON in caller_of(request).headers.get("accept", "")
    if await services.store.documents.owner(KIND, chat_id) != caller_of(request).owner.user_id:
        raise NotFound("Chat not found")  # the stream reads the chat itself, when it is told of changes
    stream = ChatStream(services.store, services.hub, services.settings.heartbeat_s, chat_id, ndjson=ndjson)
    return Stream(stream.events(), media_type=NDJSON if ndjson else SSE, headers=STREAM_HEADERS)


@get("/chats/{chat_id:str}/trace", tags=["chats"], summary="Read the steps of a chat")
async def read_trace(request: AnyRequest, chat_id: str) -> Answer:
    """What was done in a chat, as a graph: messages, answers, questions and calls of tools with their times and tasks.

    What an answer or a tool was given and gave is in the chat itself, and with the task that a step names.
    """
    chat = await _own(request, chat_id)
    moves = await services_of(request).store.tasks.moves([TaskId(name) for name in task_ids(chat)])
    return answer(request, trace_dto(chat, {str(name): found for name, found in moves.items()}))


@get("/chats/{chat_id:str}/messages", tags=["chats"], summary="List a chat's messages")
async def list_messages(request: AnyRequest, chat_id: str, limit: int = 50, cursor: str = "") -> Answer:
    """A chat's messages, newest page first; within a page the oldest is first."""
    chat = await _own(request, chat_id)
    before = whole(check_cursor(cursor))
    limit = max(1, min(limit, MAX_LIMIT))
    older = [message for message in chat.messages if before is None or message.order < before]
    shown = older[-limit:]
    following = str(shown[0].order) if len(older) > limit else ""
    items = [message_dto(chat, message) for message in shown]
    return answer(request, page(items, following, limit, len(chat.messages)))


@post("/chats/list", status_code=200, tags=["chats"], summary="List chats")
async def list_chats(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The caller's chats without their messages, newest first, page by page."""
    query = plain(data)
    return answer(request, await _page(request, query.cursor or "", query.limit or LIST_LIMIT))


@get("/chats", tags=["chats"], summary="List chats")
async def get_chats(request: AnyRequest, cursor: str = "", limit: int = 20) -> Answer:
    """The same, by query parameters."""
    return answer(request, await _page(request, cursor, limit))


async def _page(request: AnyRequest, cursor: str, limit: int) -> dict[str, Any]:
    store, user_id = services_of(request).store, caller_of(request).owner.user_id
    limit = max(1, min(limit, MAX_LIMIT))
    ids, following = await store.documents.page(KIND, user_id, check_cursor(cursor), limit)
    found = [
        head_of(document) for document in await store.documents.get_many(KIND, ids) if document is not None
    ]
    items = [chat_dto(chat) for chat in found]
    return page(items, following, limit, await store.documents.count(KIND, user_id))


@post("/chats/{chat_id:str}", status_code=200, tags=["chats"], summary="Change a chat")
async def change(request: AnyRequest, chat_id: str, data: ChatBody) -> Answer:
    """Its name; whether its tools need no approval any more; what it is to forget."""

    def changed(_steps: Steps, chat: Chat) -> Chat:
        if data.name is not None:
            chat = replace(chat, name=data.name)
        if data.allow_all_tools is not None:
            chat = replace(chat, config=replace(chat.config, allow_all_tools=data.allow_all_tools))
        gone = set(data.forget_memory or ())
        return replace(chat, memory={n: v for n, v in chat.memory.items() if n not in gone})

    return answer(request, chat_dto(await _changed(request, chat_id, changed)))


@post("/chats/{chat_id:str}/stop", status_code=200, tags=["chats"], summary="Stop a chat's run")
async def stop(request: AnyRequest, chat_id: str) -> Answer:
    """End the run that is under way: the model's task is cancelled, and what waits is given up."""
    return answer(request, chat_dto(await _changed(request, chat_id, Steps.stop)))


@delete("/chats/{chat_id:str}", status_code=200, tags=["chats"], summary="Delete a chat")
async def delete_chat(request: AnyRequest, chat_id: str) -> Answer:
    """Stop a chat and forget it. An agent that waits for it is told so, and goes on."""
    await forget(services_of(request), chat_id, caller_of(request).owner.user_id)
    return answer(request, {"id": chat_id, "deleted": True})


@post(
    "/chats/messages/{message_id:str}/cancel", status_code=200, tags=["chats"], summary="Take a message back"
)
async def cancel_message(request: AnyRequest, message_id: str) -> Answer:
    """Take back a message that was said while the agent worked, and has not had its turn."""
    chat = await _changed(request, chat_of(message_id), lambda steps, chat: steps.unqueue(chat, message_id))
    message = chat.message(message_id)
    assert message is not None  # noqa: S101 - it was just taken back
    return answer(request, message_dto(chat, message))


@post("/tools/{call_id:str}", status_code=200, tags=["chats"], summary="Give a tool's result")
async def give_result(request: AnyRequest, call_id: str) -> Answer:
    """The result of a tool of the caller's own: `{"result": text}`; any other body is the result itself."""
    result = result_of(await request.body())
    return await _call_answer(request, call_id, lambda steps, chat: steps.give(chat, call_id, result))


@post(
    "/chats/{chat_id:str}/tool-result",
    status_code=200,
    tags=["chats"],
    summary="Give a tool's result (older form)",
)
async def give_result_by_model_id(request: AnyRequest, chat_id: str) -> Answer:
    """The same by the model's own id of the call: `{"tool_call_id": id, "result": text}`."""
    raw = await request.body()
    body = request.app.state.decode(raw, dict)
    waiting = [c for c in (await _own(request, chat_id)).open_calls if c.call_id == body.get("tool_call_id")]
    if not waiting:
        raise NotFound("Tool invocation not found")
    result = result_of(raw)
    return await _call_answer(
        request, waiting[0].id, lambda steps, chat: steps.give(chat, waiting[0].id, result)
    )


@post("/tools/{call_id:str}/invoke", status_code=200, tags=["chats"], summary="Allow a call of a tool")
async def invoke(request: AnyRequest, call_id: str) -> Answer:
    """Approve a call that waits for it: it is made, or handed to the caller when the tool is his own."""
    return await _call_answer(request, call_id, lambda steps, chat: steps.decide(chat, call_id, allow=True))


@post("/tools/{call_id:str}/reject", status_code=200, tags=["chats"], summary="Refuse a call of a tool")
async def reject(request: AnyRequest, call_id: str) -> Answer:
    """Refuse a call that waits for approval; the model is told, with the reason."""
    raw = await request.body()
    why = (request.app.state.decode(raw, RejectBody).reason if raw.strip() else "") or ""
    return await _call_answer(
        request, call_id, lambda steps, chat: steps.decide(chat, call_id, allow=False, reason=why)
    )


@post(
    "/chats/{chat_id:str}/tools/{call_id:str}/always-allow",
    status_code=200,
    tags=["chats"],
    summary="Allow a tool from now on",
)
async def always_allow(request: AnyRequest, chat_id: str, call_id: str) -> Answer:  # noqa: ARG001 - the call names it
    """Approve a call, and all later ones of the same tool in this chat."""
    return await _call_answer(request, call_id, lambda steps, chat: steps.allow_always(chat, call_id))


@post("/interrupts/{question_id:str}/resolve", status_code=200, tags=["chats"], summary="Answer a question")
async def resolve(request: AnyRequest, question_id: str, data: ResolveBody) -> Answer:
    """The same by the id of the question: `allow` or `deny`."""
    if data.decision not in {"allow", "deny"}:
        raise InvalidRequest(
            f"Input validation failed: decision: {data.decision!r} is unknown; it may be allow, deny"
        )
    call_id = question_id.removesuffix("-ask")
    allow, why = data.decision == "allow", data.reason or ""
    chat, call = await _called(
        request, call_id, lambda steps, chat: steps.decide(chat, call_id, allow=allow, reason=why)
    )
    return answer(request, interrupt_dto(chat, call))


@get("/agent-runs/{run_id:str}/interrupts", tags=["chats"], summary="List a run's questions")
async def list_interrupts(request: AnyRequest, run_id: str) -> Answer:
    """The questions of a run that wait for an answer."""
    chat = await _own(request, chat_of(run_id))
    return answer(request, interrupts(chat) if chat.run is not None and chat.run.id == run_id else [])


def result_of(raw: bytes) -> str:
    """The result in a body, as the text that the model reads.

    Raises:
        InvalidRequest: the body is no JSON.
    """
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"Input validation failed: the body is not valid JSON ({error})") from error
    if not isinstance(body, dict) or "result" not in body:
        return as_text(body)
    text, attached = as_text(body["result"]), body.get("attachments")
    files = [
        str(file.get("uri"))
        for file in (attached if isinstance(attached, list) else ())
        if isinstance(file, dict)
    ]
    return "\n".join([text, *files])


async def _call_answer(request: AnyRequest, call_id: str, step: Callable[[Steps, Chat], Chat]) -> Answer:
    chat, call = await _called(request, call_id, step)
    message = next(message for message in chat.messages if any(c.id == call_id for c in message.calls))
    return answer(request, call_dto(message, call))


async def _called(
    request: AnyRequest, call_id: str, step: Callable[[Steps, Chat], Chat]
) -> tuple[Chat, ToolCall]:
    try:
        chat = await _changed(request, chat_of(call_id), step)
    except InvalidRequest as error:  # what can be no id is none
        raise NotFound("Tool invocation not found") from error
    call = chat.call(call_id)
    if call is None:
        raise NotFound("Tool invocation not found")
    return chat, call


async def _changed(request: AnyRequest, chat_id: str, step: Callable[[Steps, Chat], Chat]) -> Chat:
    return await change_chat(services_of(request), chat_id, step, caller_of(request).owner.user_id)


async def _own(request: AnyRequest, chat_id: str) -> Chat:
    chat = (await load_chat(services_of(request).store, chat_id)).chat
    if chat.owner.user_id != caller_of(request).owner.user_id:
        raise NotFound("Chat not found")
    return chat


ROUTES = [
    *needs(
        Scope.CONVERSATIONS_READ,
        read_chat,
        read_status,
        stream_chat,
        read_trace,
        list_messages,
        list_chats,
        get_chats,
        list_interrupts,
    ),
    *needs(
        Scope.CONVERSATIONS_WRITE,
        change,
        stop,
        delete_chat,
        cancel_message,
        give_result,
        give_result_by_model_id,
        invoke,
        reject,
        always_allow,
        resolve,
    ),
]
