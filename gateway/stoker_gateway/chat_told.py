"""What one reader of a chat's stream was told, and what is news to him. Pure.

The order is a contract: on connect the messages of the last turn and then the chat; later, a chat that became busy
before its messages, and everything else before the chat, so that nobody leaves before the last text.
"""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from stoker.agents.chat import Chat, Message, MessageStatus
from stoker.llm.growth import Delta, Growth
from stoker_gateway.chat_dto import chat_dto, message_dto

Told = tuple[str, dict[str, Any]]
"""An event: its name and its data."""


_UNKNOWN = Message(id="", order=-1, role="", status=MessageStatus.PENDING)


class ChatTold:
    """One reader's knowledge."""

    def __init__(self) -> None:
        self.chat: Chat | None = None
        self._messages: dict[str, Message] = {}
        self._head: dict[str, Any] = {}
        self._from_order = 0
        self._answer = ""
        self._seq = 0

    def news(self, chat: Chat) -> Iterator[Told]:
        """What a chat as just read has that the reader does not know."""
        first, before = self.chat is None, self.chat
        self.chat = chat
        if first:
            self._from_order = _turn_begins(chat)
        began = before is not None and chat.busy and not before.busy
        if began:
            yield from self._head_news(chat)
        for message in chat.messages:
            if message.order >= self._from_order and self._messages.get(message.id) != message:
                self._messages[message.id] = message
                yield "chat_messages", message_dto(chat, message)
        if not began:
            yield from self._head_news(chat)

    def written(self, chat: Chat) -> list[Message]:
        """The answers that have become whole since the reader was told of the chat."""
        if self.chat is None:
            return []
        return [
            message
            for message in chat.messages
            if message.role == "assistant"
            and message.status is MessageStatus.READY
            and message.order >= self._from_order
            and self._messages.get(message.id, _UNKNOWN).status is not MessageStatus.READY
        ]

    def awaited(self) -> Message | None:
        """The answer that is being written, once it has a task."""
        turn = self.chat.turn if self.chat is not None and self.chat.busy else None
        writes = turn is not None and turn.status is MessageStatus.PENDING and turn.task_id
        return turn if writes else None

    def delta(self, answer: Message, delta: Delta) -> Told:
        """An increment of an answer; they are numbered by answer."""
        if self._answer != answer.id:
            self._answer, self._seq = answer.id, 0
        self._seq += 1
        return "delta", {"delta": delta, "seq": self._seq, "resource_id": answer.id}

    def grown(self, answer: Message, growth: Growth) -> Told:
        """An answer with its text so far."""
        assert self.chat is not None  # noqa: S101 - answers are of a chat that was read
        so_far = replace(answer, text=growth.response, reasoning=growth.reasoning)
        return "chat_messages", message_dto(self.chat, so_far)

    def _head_news(self, chat: Chat) -> Iterator[Told]:
        dto = chat_dto(chat, with_messages=False)
        head = {name: value for name, value in dto.items() if name != "updated_at"}
        if head != self._head:
            self._head = head
            yield "chats", dto


def _turn_begins(chat: Chat) -> int:
    """The order of the first message of the last turn."""
    asked = chat.message(chat.run.user_message_id) if chat.run is not None else None
    return asked.order if asked is not None else 0
