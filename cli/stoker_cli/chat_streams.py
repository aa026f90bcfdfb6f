"""The streams of a chat and of the chats of agents that work for it, as one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection
from typing import Any

from stoker_cli.answers import ApiError
from stoker_cli.api import RECONNECT_DELAY_S, Api
from stoker_cli.output import CommandFailed, ExitCode

Event = dict[str, Any]
Events = AsyncGenerator[Event, None]


class ChatStreams:
    """The events of one chat, and of those that are followed beside it. An event is read when it is asked for."""

    def __init__(self, api: Api, chat_id: str) -> None:
        self._api = api
        self._chat_id = chat_id
        self._streams: dict[str, Events] = {chat_id: self._following(chat_id)}
        self._next: dict[str, asyncio.Task[Event | None]] = {}

    async def next(self) -> tuple[str, Event]:
        """The next event of any of them, and whose it is.

        Raises:
            CommandFailed: the gateway went away for good, or refuses a stream.
        """
        for chat_id, stream in self._streams.items():
            if chat_id not in self._next:
                self._next[chat_id] = asyncio.create_task(_next(stream))
        done, _ = await asyncio.wait(self._next.values(), return_when=asyncio.FIRST_COMPLETED)
        chat_id = next(one for one, task in self._next.items() if task in done)
        event = self._next.pop(chat_id).result()
        if event is None:
            raise CommandFailed(
                f"the stream of chat {self._chat_id} broke off; the chat goes on", ExitCode.UNREACHABLE
            )
        return chat_id, event

    async def follow(self, others: Collection[str]) -> None:
        """Follow these chats beside the first one, and no others."""
        for chat_id in self._streams.keys() - {self._chat_id, *others}:
            await self._leave(chat_id)
        for chat_id in others:
            if chat_id not in self._streams:
                self._streams[chat_id] = self._of_agent(chat_id)

    async def close(self) -> None:
        """Follow nothing more."""
        for chat_id in list(self._streams):
            await self._leave(chat_id)

    async def _leave(self, chat_id: str) -> None:
        task = self._next.pop(chat_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._streams.pop(chat_id).aclose()

    async def _of_agent(self, chat_id: str) -> Events:
        """The events of an agent's chat: it is named before it has begun, and its stream may end before its call does."""
        while True:
            try:
                async with contextlib.aclosing(self._following(chat_id)) as events:
                    async for event in events:
                        yield event
            except ApiError as error:
                if error.status != 404:
                    raise
            await asyncio.sleep(RECONNECT_DELAY_S)

    def _following(self, chat_id: str) -> Events:
        return self._api.following(f"/chats/{chat_id}/stream")


async def _next(events: Events) -> Event | None:
    """The next event, or None when there is none."""
    return await anext(events, None)
