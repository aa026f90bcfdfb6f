"""The line to the server: what it does with calls that cannot be sent, that fail alone, and when it breaks."""

import asyncio

import pytest
from protocol.faulty import lose_replies
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, DataError, ResponseError

from stoker.embedded import EmbeddedServer
from stoker.protocol import Store
from stoker.protocol import connection as module
from stoker.protocol.connection import Connection
from stoker.protocol.line import Line


@pytest.fixture
async def server(tmp_path):
    running = EmbeddedServer(tmp_path)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def connection(server):
    opened = Connection.open(server.url)
    yield opened
    await opened.close()


@pytest.fixture
async def direct(server):
    """redis-py on the same server."""
    async with Redis.from_url(server.url) as client:
        yield client


async def test_calls_made_together_are_answered_in_their_order(connection):
    calls = [connection.start("ECHO", f"{number}") for number in range(2000)]
    assert [int(await call) for call in calls] == list(range(2000))


async def test_a_call_that_fails_harms_none_beside_it(connection):
    calls = [
        connection.start("SET", "a", "1"),
        connection.start("HGET", "a", "f"),
        connection.start("GET", "a"),
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[1], ResponseError)
    assert found[2] == b"1"


async def test_a_value_that_cannot_be_sent_is_refused_and_not_waited_for(connection):
    with pytest.raises(DataError):
        await connection.command("SET", "a", None)
    assert await connection.command("ECHO", "on") == b"on"


async def test_a_line_that_the_server_closed_is_opened_again(connection, direct):
    await connection.command("ECHO", "on")
    await direct.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await connection.command("ECHO", "again") == b"again"


async def test_of_a_batch_whose_reply_is_lost_all_is_sent_again_but_what_may_not_be(server, monkeypatch):
    store = await Store.open(server.url, "p")
    connection, hits = store._connection, store._keys.rate("k", "get")
    try:
        await connection.script("hit", [hits], [60_000])
        lose_replies(store, monkeypatch)
        calls = (
            connection.start("ECHO", "a"),
            connection.start_script("hit", [hits], [60_000], once=True),
            connection.start("INCR", "b"),
        )
        echoed, told, counted = await asyncio.gather(*calls, return_exceptions=True)
        assert (echoed, counted) == (b"a", 2)
        assert isinstance(told, module.StoreUnavailable)
        assert await connection.command("GET", hits) == b"2"
    finally:
        await store.close()


async def test_no_answer_of_a_batch_that_was_given_up_is_taken_for_another(connection, direct, monkeypatch):
    monkeypatch.setattr(module, "CALL_TIMEOUT_S", 0.05)
    await direct.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
    with pytest.raises(module.StoreUnavailable, match="nothing came within"):
        await connection.command("SET", "a", "late")
    await direct.execute_command("CLIENT", "UNPAUSE")
    monkeypatch.undo()
    assert await connection.command("ECHO", "mine") == b"mine"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("MISCONF Errors writing to the AOF file", ResponseError),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", ResponseError),
        ("BUSY Redis is busy running a script", ResponseError),
        ("Redis is loading the dataset in memory", BusyLoadingError),
    ],
    ids=["disk", "failover", "script", "loading"],
)
async def test_what_passes_is_told_as_a_server_that_is_away(connection, monkeypatch, said, kind):
    async def fail(_line, commands):
        if kind is BusyLoadingError:
            raise kind(said)
        return [kind(said)] * len(commands)

    monkeypatch.setattr(Line, "exchange", fail)
    for call in (connection.block("XREAD", timeout_s=1), connection.command("GET", "a")):
        with pytest.raises(module.StoreUnavailable) as told:
            await call
        # While it loads its data, nobody can take a lease away.
        assert told.value.fields["nobody_listens"] is (kind is BusyLoadingError)


async def test_nobody_waits_for_ever_when_a_batch_fails_in_a_way_that_nobody_thought_of(connection):
    with pytest.raises(UnicodeEncodeError):
        await connection.command("SET", "a", "\ud800")
    assert await connection.command("ECHO", "on") == b"on"


async def test_the_count_of_requests_is_written_to_no_disk(server):
    """A read of a task would wait for an fsync otherwise."""
    store = await Store.open(server.url, "p")
    try:
        await store.limits.hit("k", "get", 0)
        before = await store.info()
        counts = [await store.limits.hit("k", "get", 10) for _ in range(5)]
        after = await store.info()
    finally:
        await store.close()
    assert [state.remaining for state in counts] == [8, 7, 6, 5, 4]
    assert after["aof_current_size"] == before["aof_current_size"]
