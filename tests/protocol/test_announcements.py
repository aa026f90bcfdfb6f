"""What scripts announce of a task, over a real connection: fakeredis has no socket to take over."""

import asyncio
import itertools

import pytest
from helpers import eventually
from protocol_scene import DONE
from structlog.testing import capture_logs

from stoker.core.errors import StoreUnavailable
from stoker.embedded import EmbeddedServer
from stoker.protocol import Store, line
from stoker.protocol.documents import Change
from stoker.settings import GatewaySettings
from stoker_gateway import streams

_pools = itertools.count()


@pytest.fixture
async def store(server_dir):
    server = EmbeddedServer(server_dir)
    await server.start()
    opened = await Store.open(server.url, f"announced{next(_pools)}")
    yield opened
    await opened.close()
    await server.stop()


async def heard_until_the_end(listener):
    heard = []
    while not any(said.ended for said in heard):
        heard += await listener.next(5)
    return [(said.task_id, said.ended) for said in heard]


async def test_each_move_is_announced_and_an_ending_as_one(scene):
    async with scene.store.announcements() as listener:
        order = await scene.running()
        await scene.store.engines.finish(order, "box", DONE)
        assert await heard_until_the_end(listener) == [("t1", False), ("t1", False), ("t1", True)]


async def test_each_write_of_a_document_is_announced_under_its_name(store):
    async with store.announcements() as listener:
        await store.documents.put("flowrun", "r1", "u1", 0, Change(body=b"{}"))
        await store.documents.put("flowrun", "r1", "u1", 1, Change(body=b"{}"))
        heard = []
        while len(heard) < 2:
            heard += await listener.next(5)
    assert [(said.document, said.event_id) for said in heard] == [("flowrun:r1", "1"), ("flowrun:r1", "2")]


@pytest.mark.parametrize("nonsense", [b"x", b"", b"\xff 1-1"], ids=("no event", "nothing", "no text"))
async def test_what_is_no_announcement_is_dropped_with_a_warning_and_the_next_one_heard(store, nonsense):
    """An engine's user may publish on the channel."""
    async with store.announcements() as listener:
        with capture_logs() as logs:
            await store._connection.command("PUBLISH", store._keys.channel, nonsense)
            await store._connection.command("PUBLISH", store._keys.channel, "t1 1-1 ended")
            assert await heard_until_the_end(listener) == [("t1", True)]
    assert [line["event"] for line in logs] == ["announcement.unreadable"]


async def test_a_listener_that_is_slow_misses_nothing(scene, monkeypatch):
    """The server waits for it instead; the announcements before the last lie in the connection."""
    monkeypatch.setattr(line, "TOLD_LIMIT", 0)
    async with scene.store.announcements() as listener:
        order = await scene.running()
        await scene.store.engines.finish(order, "box", DONE)
        assert await heard_until_the_end(listener) == [("t1", False), ("t1", False), ("t1", True)]


async def test_a_subscription_that_the_server_closed_is_told_and_not_silently_lost(store):
    async with store.announcements() as listener:
        waiting = asyncio.ensure_future(listener.next(30))
        await eventually(lambda: subscribers(store), "the subscription")
        await store._connection.command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(StoreUnavailable):
            await waiting
        with pytest.raises(StoreUnavailable):
            await listener.next(0.01)


async def subscribers(store):
    return (await store._connection.command("PUBSUB", "NUMSUB", store._keys.channel))[1]


async def test_an_ending_is_read_at_once_while_other_changes_are_gathered(scene, monkeypatch):
    monkeypatch.setattr(streams, "GATHER_S", 3600.0)
    hub = streams.Hub(scene.store, GatewaySettings())
    running = asyncio.ensure_future(hub.run())
    try:
        await eventually(lambda: subscribers(scene.store), "the hub's subscription")
        with hub.watching("t1") as changed:
            order = await scene.running()
            await eventually(lambda: "t1" in hub._dirty, "the news of a change")
            assert not changed.is_set()
            await scene.store.engines.finish(order, "box", DONE)
            await eventually(changed.is_set, "the ending")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
