"""Chats as documents: the head is the body, each message a part, so that a change writes what has changed.

The texts of skills are parts too: a head is written with each change, and they do not change.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stoker.agent_settings import AgentFields
from stoker.agents.chat import KIND, Chat, Message
from stoker.agents.orders import decide_due_s
from stoker.agents.skills import Skill
from stoker.protocol import Store
from stoker.protocol.documents import Change, Document
from stoker.protocol.files import document_user
from stoker.runs.file_uses import note_uses

SOON_S: Final = 15.0
"""A model that answers sooner costs no look in vain."""
_SKILL: Final = "skill-"
"""Parts whose names begin so are texts of skills, by their numbers; the others are messages."""
_encode = msgspec.json.Encoder().encode
_chat = msgspec.json.Decoder(Chat)
_message = msgspec.json.Decoder(Message)


class Kept(Struct, frozen=True, kw_only=True):
    """A chat as read, and its revision."""

    chat: Chat
    revision: int


async def load_chat(store: Store, chat_id: str) -> Kept:
    """A chat with its messages.

    Raises:
        NotFound: there is none.
    """
    # Beside the head the messages may be newer, which a write would notice and a reader may see.
    document, parts = await store.documents.whole(KIND, chat_id)
    messages = (_message.decode(text) for name, text in parts.items() if not name.startswith(_SKILL))
    chat = head_of(document)
    if chat.config.skills:
        chat = _with_texts(chat, parts)
    ordered = tuple(sorted(messages, key=lambda message: message.order))
    return Kept(chat=replace(chat, messages=ordered), revision=document.revision)


def head_of(document: Document) -> Chat:
    """A chat without its messages and the texts of its skills. Its times are the document's: the body lacks them."""
    chat = _chat.decode(document.body)
    return replace(chat, created_ms=document.created_ms, updated_ms=document.updated_ms)


async def save_chat(
    store: Store,
    before: Kept | None,
    chat: Chat,
    settings: AgentFields,
    now_ms: int,
    *,
    wake: bool,
    soon: bool = False,
) -> Kept:
    """Write a chat that has not changed since it was read.

    Args:
        before: as it was read; None = it is new.
        wake: have its next step taken now.
        soon: look at it soon, for what it needs is begun by a process that may die before.

    Raises:
        DocumentChanged: it has changed.
    """
    known = {message.id: message for message in before.chat.messages} if before else {}
    parts = {
        message.id.rpartition("-")[2]: _encode(message).decode()
        for message in chat.messages
        if known.get(message.id) != message
    }
    head = replace(chat, messages=())
    if chat.config.skills:
        parts |= {
            f"{_SKILL}{number}": skill.content
            for number, skill in enumerate(chat.config.skills)
            if skill.content and not skill.apart
        }
        chat = replace(chat, config=replace(chat.config, skills=_apart(chat.config.skills, keep=True)))
        head = replace(head, config=replace(chat.config, skills=_apart(chat.config.skills, keep=False)))
    due_s = decide_due_s(chat, now_ms, settings.client_tool_wait_s)
    change = Change(
        body=_encode(head),
        parts=parts,
        due_s=due_s if due_s is None or not soon else min(due_s, SOON_S),
        wake=wake,
        keep_s=0 if chat.busy else settings.chat_retention_s,
    )
    revision = before.revision if before else 0
    await note_uses(store, list(parts.values()), document_user(KIND, chat.id))
    new = await store.documents.put(KIND, chat.id, chat.owner.user_id, revision, change)
    return Kept(chat=chat, revision=new)


def _apart(skills: tuple[Skill, ...], *, keep: bool) -> tuple[Skill, ...]:
    """Skills whose texts are parts.

    Args:
        keep: with their texts nevertheless, for those who go on with the chat.
    """
    return tuple(replace(one, apart=True, content=one.content if keep else "") for one in skills)


def _with_texts(chat: Chat, parts: Mapping[str, str]) -> Chat:
    skills = tuple(
        replace(skill, content=parts.get(f"{_SKILL}{number}", "")) if skill.apart else skill
        for number, skill in enumerate(chat.config.skills)
    )
    return replace(chat, config=replace(chat.config, skills=skills))
