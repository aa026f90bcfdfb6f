"""Chats from their own side: begin one without saying anything, say something in it, give it another agent."""

from typing import Any

from litestar import post
from msgspec import Struct

from stoker.agents.beginning import change_chat
from stoker.agents.chats import load_chat, save_chat
from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.agent_runs import AgentRunBody, AgentRuns, with_agent
from stoker_gateway.chat_dto import chat_dto, message_dto
from stoker_gateway.door import caller_of
from stoker_gateway.services import Answer, AnyRequest, answer, services_of


class NewChatBody(Struct, kw_only=True):
    """Whom to talk to: a stored agent, or an app that is a language model."""

    agent: str | None = None
    agent_config: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


class MessageBody(Struct, kw_only=True):
    """What to say: a text, or an object as `input` of a run has it."""

    message: str | dict[str, Any]


@post("/chats", status_code=200, tags=["chats"], summary="Begin a chat")
async def begin_chat(request: AnyRequest, data: NewChatBody) -> Answer:
    """A chat in which nobody has said anything yet."""
    services = services_of(request)
    body = AgentRunBody(agent=data.agent, agent_config=data.agent_config, context=data.context)
    chat = await AgentRuns(services, caller_of(request)).begin(body)
    now_ms = await services.store.now_ms()
    await save_chat(services.store, None, chat, services.settings, now_ms, wake=False)
    return answer(request, chat_dto((await load_chat(services.store, chat.id)).chat))


@post("/chats/{chat_id:str}/messages", status_code=200, tags=["chats"], summary="Say something in a chat")
async def say(request: AnyRequest, chat_id: str, data: MessageBody) -> Answer:
    """As `POST /agents/run` with `chat_id`; the answer is the message as it was put into the chat."""
    given = {"text": data.message} if isinstance(data.message, str) else data.message
    body = AgentRunBody(chat_id=chat_id, input=given)
    chat, asked, _ = await AgentRuns(services_of(request), caller_of(request)).send(body)
    return answer(request, message_dto(chat, asked))


@post("/chats/{chat_id:str}/agent", status_code=200, tags=["chats"], summary="Give a chat another agent")
async def set_agent(request: AnyRequest, chat_id: str, data: NewChatBody) -> Answer:
    """From the next message on another agent answers; what was said stays."""
    services, owner = services_of(request), caller_of(request).owner
    if not (data.agent or data.agent_config):
        raise InvalidRequest("Input validation failed: agent: say which one")
    if (await load_chat(services.store, chat_id)).chat.owner.user_id != owner.user_id:
        raise NotFound("Chat not found")
    body = AgentRunBody(agent=data.agent, agent_config=data.agent_config)
    meant = await AgentRuns(services, caller_of(request)).meant(body)
    chat = await change_chat(services, chat_id, lambda _, chat: with_agent(chat, meant), owner.user_id)
    return answer(request, chat_dto(chat))


ROUTES = [*needs(Scope.AGENTS_EXECUTE, begin_chat, say, set_agent)]
