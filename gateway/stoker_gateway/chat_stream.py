"""The stream of a chat: its messages and its state as they change, and the words of the answer as they come.

Two things are followed at once, the chat's document and the task of the answer that is being written. The stream
ends by itself when the chat has been idle for a moment: some clients keep it open for ever, others reconnect at once.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from typing import Final

import msgspec

from stoker.agents.chat import KIND, Chat, Message
from stoker.agents.chats import load_chat
from stoker.core.errors import NotFound, StoreUnavailable
from stoker.core.messages import TaskId
from stoker.llm.growth import Growth
from stoker.protocol import Store
from stoker.protocol.task_hash import Standing
from stoker_gateway.answer_feed import AnswerFeed, Part, Quiet
from stoker_gateway.chat_dto import shortened
from stoker_gateway.chat_told import ChatTold, Told
from stoker_gateway.dto import LINE_LIMIT_BYTES, ascii_json
from stoker_gateway.heartbeat import Heartbeat
from stoker_gateway.streams import HEARTBEAT_COMMENT, HEARTBEAT_LINE, Hub

IDLE_S: Final = 5.0
"""A stream is closed when the chat was idle for so long."""
GROWN_S: Final = 0.25
"""Between two whole messages with the text so far."""
RETRY_S: Final = 0.5
WRITE_BYTES: Final = 64 * 1024
"""Events that come together are written together up to this: each write is a call of the kernel and a turn of the loop."""


class ChatStream:
    """One reader's stream."""

    def __init__(self, store: Store, hub: Hub, heartbeat_s: float, chat_id: str, *, ndjson: bool) -> None:
        self._store = store
        self._hub = hub
        self._heartbeat_s = heartbeat_s
        self._chat_id = chat_id
        self._ndjson = ndjson
        self._told = ChatTold()
        self._answer: AnswerInProgress | None = None
        self._idle_at = time.monotonic()
        self._mono_unread = 0.0
        """Since when a change of the chat cannot be read, for Redis is away; 0 when it was."""
        self._heartbeat = Heartbeat(heartbeat_s)

    async def events(self) -> AsyncIterator[bytes]:
        """The body of the stream.

        Raises:
            StreamCut: the gateway ends.
        """
        changes = self._hub.document_changes(KIND, self._chat_id, self._heartbeat_s)
        change = asyncio.ensure_future(anext(changes))
        try:
            while not self._over():
                await self._wait(change)
                news = self._answer.news(self._told, deltas=self._ndjson) if self._answer else ()
                for written in self._written(news):
                    yield written
                await self._follow_again()
                if self._heartbeat.due():
                    yield HEARTBEAT_LINE if self._ndjson else HEARTBEAT_COMMENT
                if change.done():
                    change.result()
                    change = asyncio.ensure_future(anext(changes))
                elif not self._unread_due():
                    continue
                try:
                    chat = await self._read()
                except NotFound:
                    return
                if chat is None:
                    continue
                for written in self._written((*self._rest(chat), *self._told.news(chat))):
                    yield written
                await self._follow(chat)
        finally:
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            await changes.aclose()
            if self._answer is not None:
                await self._answer.close()

    async def _wait(self, change: asyncio.Future[None]) -> None:
        """Until the chat has changed, more of the answer has come, or something is due."""
        waits: set[asyncio.Future[None] | asyncio.Future[Part | None]] = {change}
        if self._answer is not None and self._answer.part is not None:
            waits.add(self._answer.part)
        await asyncio.wait(waits, timeout=self._pause_s(), return_when=asyncio.FIRST_COMPLETED)

    def _over(self) -> bool:
        chat = self._told.chat
        return chat is not None and not chat.busy and time.monotonic() >= self._idle_at + IDLE_S

    def _pause_s(self) -> float:
        """How long nothing is due."""
        chat = self._told.chat
        if self._mono_unread:
            return max(0.0, self._mono_unread + RETRY_S - time.monotonic())
        if self._answer is not None and self._answer.mono_lost:
            return max(0.0, self._answer.mono_lost + RETRY_S - time.monotonic())
        if self._answer is not None and self._answer.grows:
            return max(0.0, self._answer.mono_grown + GROWN_S - time.monotonic())
        if chat is not None and not chat.busy:
            return max(0.0, self._idle_at + IDLE_S - time.monotonic())
        return self._heartbeat_s

    async def _read(self) -> Chat | None:
        """The chat as it is; None when Redis is away, and it is to be read a moment later.

        Raises:
            NotFound: it is gone.
        """
        self._mono_unread = 0.0
        try:
            return (await load_chat(self._store, self._chat_id)).chat
        except StoreUnavailable:
            self._mono_unread = self._idle_at = time.monotonic()  # what was not read may be a new turn
            return None

    def _unread_due(self) -> bool:
        return bool(self._mono_unread) and time.monotonic() >= self._mono_unread + RETRY_S

    def _rest(self, chat: Chat) -> Iterator[Told]:
        """What the increments that were sent lack of answers that are whole now: a short one is over before it is followed."""
        for message in self._told.written(chat) if self._ndjson else ():
            mine = self._answer is not None and self._answer.message.id == message.id
            growth = self._answer.growth if self._answer is not None and mine else Growth()
            whole = msgspec.json.encode({"response": message.text, "reasoning": message.reasoning})
            if delta := growth.catch_up(whole):
                yield self._told.delta(message, delta)

    async def _follow(self, chat: Chat) -> None:
        """Follow the answer that is being written now, and no other."""
        if chat.busy:
            self._idle_at = time.monotonic()
        awaited = self._told.awaited()
        if self._answer is not None and (awaited is None or awaited.id != self._answer.message.id):
            await self._answer.close()
            self._answer = None
        if self._answer is None and awaited is not None:
            self._answer = self._begun(awaited)

    async def _follow_again(self) -> None:
        """A task that was not there yet, or could not be read, is tried again a moment later."""
        lost = self._answer
        if lost is not None and lost.mono_lost and time.monotonic() >= lost.mono_lost + RETRY_S:
            await lost.close()
            self._answer = self._begun(lost.message, lost.growth)

    def _begun(self, awaited: Message, growth: Growth | None = None) -> "AnswerInProgress":
        task_id = TaskId(awaited.task_id)
        feed = AnswerFeed(self._store, self._hub, self._heartbeat_s, task_id, growth)
        return AnswerInProgress(awaited, feed)

    def _written(self, news: Iterable[Told]) -> Iterator[bytes]:
        """Events as they are written: together, and none in parts."""
        waiting: list[bytes] = []
        size = 0
        for told in news:
            event = self._framed(told)
            if waiting and size + len(event) > WRITE_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
            waiting.append(event)
            size += len(event)
        if waiting:
            yield b"".join(waiting)

    def _framed(self, told: Told) -> bytes:
        self._heartbeat.sent()
        name, data = told
        line = ascii_json(data)
        if len(line) > LINE_LIMIT_BYTES and name == "chat_messages":
            line = ascii_json(shortened(data))
        if self._ndjson:
            return b'{"event":"%b","data":%b}\n' % (name.encode(), line)
        return b"event: %b\ndata: %b\n\n" % (name.encode(), line)


class AnswerInProgress:
    """An answer while it is written."""

    def __init__(self, message: Message, feed: AnswerFeed) -> None:
        self.message = message
        self.grows = False
        self.mono_grown = 0.0
        self.mono_lost = 0.0  # since when its task cannot be followed: it was not there, or not to be read
        self.growth = feed.growth
        self._parts = feed.parts()
        self.part: asyncio.Task[Part | None] | None = asyncio.create_task(_next(self._parts))

    def news(self, told: ChatTold, *, deltas: bool) -> Iterator[Told]:
        """What has come, and the text so far when it is time for that."""
        if self.part is not None and self.part.done():
            part = self.part.result()
            self.part = None
            if part is None:
                self.mono_lost = time.monotonic()
            elif not isinstance(part, Standing):
                self.part = asyncio.create_task(_next(self._parts))
                if not isinstance(part, Quiet):
                    self.grows = True
                    if deltas:
                        yield told.delta(self.message, part)
        if self.grows and time.monotonic() >= self.mono_grown + GROWN_S:
            self.grows, self.mono_grown = False, time.monotonic()
            yield told.grown(self.message, self.growth)

    async def close(self) -> None:
        """Follow it no more."""
        if self.part is not None:
            self.part.cancel()
            await asyncio.gather(self.part, return_exceptions=True)
        await self._parts.aclose()


async def _next(parts: AsyncGenerator[Part, None]) -> Part | None:
    """What comes next of an answer; None when nothing does: the chat itself has the rest."""
    with contextlib.suppress(StopAsyncIteration):
        return await anext(parts)
    return None
