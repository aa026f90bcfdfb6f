import asyncio
import contextlib

import msgspec
import pytest

from stoker.agents.chat import Chat
from stoker.agents.chats import Kept
from stoker.agents.config import read_config
from stoker.agents.step import Said, Steps
from stoker.core.errors import NotFound, StoreUnavailable
from stoker.core.messages import Owner
from stoker.llm.growth import Growth
from stoker_gateway import chat_stream
from stoker_gateway.chat_stream import ChatStream
from stoker_gateway.streams import HEARTBEAT_LINE

pytestmark = pytest.mark.unit

STEPS = Steps(now_ms=1000)


class Hub:
    """The chat was changed once, and no more."""

    async def document_changes(self, *_document):
        yield
        await asyncio.Event().wait()


def feeds(*tries):
    """Feeds of an answer, one after the other: what each tells before its task cannot be read; the last one goes on."""
    made = []

    class Feed:
        def __init__(self, _store, _hub, _heartbeat_s, _task_id, growth=None):
            self.growth = growth or Growth()
            self.words = tries[len(made)]
            made.append(self)

        async def parts(self):
            if self.words:
                yield self.growth.add({"response": self.words})
            if made[-1] is self and len(made) == len(tries):
                await asyncio.Event().wait()

    return Feed, made


@pytest.mark.parametrize("tries", [("", "hi"), ("he", "llo")], ids=["not there yet", "spoiled for a moment"])
async def test_an_answer_whose_task_cannot_be_read_is_followed_again(monkeypatch, tries):
    """A chat is written with the id of the task before the task is submitted, and its reader may be quicker than that."""
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config({"core_app_ref": "a/b"}))
    chat = STEPS.asked(STEPS.say(chat, Said(text="a")), "c-1", "task1")

    async def load_chat(_store, _chat_id):
        return Kept(chat=chat, revision=1)

    feed, made = feeds(*tries)
    monkeypatch.setattr(chat_stream, "load_chat", load_chat)
    monkeypatch.setattr(chat_stream, "AnswerFeed", feed)
    monkeypatch.setattr(chat_stream, "RETRY_S", 0.0)
    stream = ChatStream(None, Hub(), 3600.0, "c", ndjson=True)
    async with asyncio.timeout(60), contextlib.aclosing(stream.events()) as lines:
        async for line in lines:
            if line.startswith(b'{"event":"delta"') and tries[-1].encode() in line:
                break
    assert len(made) == 2
    assert made[-1].growth.response == "".join(tries)


class PollingHub:
    """Looks again and again, as the gateway's does, and nothing has changed."""

    async def document_changes(self, *_document):
        while True:
            yield
            await asyncio.sleep(0.001)


async def test_a_chat_that_waits_for_its_model_has_heartbeats(monkeypatch):
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config({"core_app_ref": "a/b"}))
    chat = STEPS.asked(STEPS.say(chat, Said(text="a")), "c-1", "task1")

    async def load_chat(_store, _chat_id):
        return Kept(chat=chat, revision=1)

    monkeypatch.setattr(chat_stream, "load_chat", load_chat)
    monkeypatch.setattr(chat_stream, "AnswerFeed", feeds("")[0])
    stream = ChatStream(None, PollingHub(), 0.05, "c", ndjson=True)
    beats = 0
    async with asyncio.timeout(60), contextlib.aclosing(stream.events()) as lines:
        async for line in lines:
            beats += line == HEARTBEAT_LINE
            if beats == 2:
                break


@pytest.mark.parametrize(("limit", "writes"), [(chat_stream.WRITE_BYTES, 1), (1, 3)])
async def test_what_a_change_brings_is_one_write_unless_it_is_large_and_no_event_is_cut(
    monkeypatch, limit, writes
):
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config({"core_app_ref": "a/b"}))
    chat = STEPS.say(chat, Said(text="a"))

    async def load_chat(_store, _chat_id):
        return Kept(chat=chat, revision=1)

    monkeypatch.setattr(chat_stream, "load_chat", load_chat)
    monkeypatch.setattr(chat_stream, "WRITE_BYTES", limit)
    stream = ChatStream(None, Hub(), 3600.0, "c", ndjson=True)
    async with asyncio.timeout(60), contextlib.aclosing(stream.events()) as body:
        written = [await anext(body) for _ in range(writes)]
    events = [msgspec.json.decode(line)["event"] for part in written for line in part.splitlines()]
    assert events == ["chat_messages", "chat_messages", "chats"]
    assert all(part.endswith(b"\n") for part in written)


def reads(monkeypatch, *found):
    """What each read of the chat finds, in order: a chat, or why there is none."""
    left = list(found)

    async def load_chat(_store, _chat_id):
        one = left.pop(0)
        if not isinstance(one, Chat):
            raise one
        return Kept(chat=one, revision=1)

    monkeypatch.setattr(chat_stream, "load_chat", load_chat)
    monkeypatch.setattr(chat_stream, "RETRY_S", 0.0)
    return left


async def test_a_chat_that_cannot_be_read_at_once_is_told_when_it_can(monkeypatch):
    chat = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config({"core_app_ref": "a/b"}))
    chat = STEPS.say(chat, Said(text="a"))
    reads(monkeypatch, StoreUnavailable, StoreUnavailable, chat)
    stream = ChatStream(None, Hub(), 3600.0, "c", ndjson=True)
    async with asyncio.timeout(60), contextlib.aclosing(stream.events()) as body:
        written = await anext(body)
    assert written.count(b'"event":"chat_messages"') == 2


class ChangingHub:
    """The chat was changed twice, and no more."""

    async def document_changes(self, *_document):
        yield
        yield
        await asyncio.Event().wait()


async def test_a_change_that_cannot_be_read_is_told_though_the_chat_was_idle_for_long(monkeypatch):
    """Its stream would be closed, and who waits for the new turn would wait for ever."""
    idle = Chat(id="c", owner=Owner(user_id="u", key_id="k"), config=read_config({"core_app_ref": "a/b"}))
    stream = ChatStream(None, ChangingHub(), 3600.0, "c", ndjson=True)

    class AwayForLong(StoreUnavailable):
        """Redis is away, and time passes."""

        def __init__(self):
            super().__init__()
            stream._idle_at -= chat_stream.IDLE_S

    reads(monkeypatch, idle, AwayForLong, STEPS.say(idle, Said(text="a")))
    async with asyncio.timeout(60), contextlib.aclosing(stream.events()) as body:
        assert b'"event":"chat_messages"' not in await anext(body)
        assert b'"event":"chat_messages"' in await anext(body)


async def test_the_stream_of_a_chat_that_is_gone_ends(monkeypatch):
    left = reads(monkeypatch, StoreUnavailable, NotFound)
    stream = ChatStream(None, Hub(), 3600.0, "c", ndjson=True)
    async with asyncio.timeout(60):
        assert [written async for written in stream.events()] == []
    assert not left
