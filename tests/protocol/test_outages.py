"""What the protocol makes of a server that is silent, refuses, or has no memory left."""

import asyncio
import contextlib

import pytest
from helpers import eventually
from protocol_scene import TELEMETRY
from proxy import Proxy
from redis.exceptions import BusyLoadingError, ClusterDownError, MasterDownError, ResponseError, TryAgainError

from stoker.core.errors import StoreUnavailable
from stoker.core.messages import EngineId, EngineInfo, EngineReport
from stoker.embedded import EmbeddedServer
from stoker.protocol import Store, announcements, connection
from stoker.protocol.connection import Connection, unavailable
from stoker.protocol.line import Line

BOX = EngineInfo(id=EngineId("box"), name="box", version="1", hostname="box", workers=())


@pytest.fixture
async def server(tmp_path):
    running = EmbeddedServer(tmp_path / "server")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def proxy(server, tmp_path):
    made = Proxy(tmp_path / "proxy.sock", server.socket)
    yield made
    made.close()


@pytest.fixture
async def behind(proxy):
    """A store on the far side of the proxy."""
    opened = await Store.open(proxy.url, "p")
    yield opened
    await opened.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connection, "CALL_TIMEOUT_S", 1.0)
    monkeypatch.setattr(announcements, "CALL_TIMEOUT_S", 1.0)
    monkeypatch.setattr(announcements, "PROOF_S", 1.0)


async def test_a_subscription_on_a_connection_that_died_without_a_word_is_found_out(behind, proxy, impatient):
    async with behind.announcements() as listening:
        assert await listening.next(0.01) == []  # quiet, and proven to live
        proxy.hole()
        with pytest.raises(StoreUnavailable):
            await listening.next(0.01)


async def test_a_subscription_to_a_silent_server_is_given_up(behind, proxy, impatient):
    proxy.hole()
    with pytest.raises(StoreUnavailable):
        async with behind.announcements():
            pass


async def test_after_a_silent_outage_the_next_call_takes_a_new_connection(behind, proxy, impatient):
    proxy.hole()
    with pytest.raises(StoreUnavailable, match="nothing came within"):
        await behind.ping()
    proxy.mend()
    await behind.ping()


async def test_calls_that_wait_behind_a_silent_one_are_told_with_it(behind, proxy, impatient, monkeypatch):
    """Else each batch would wait its own time-out, and a request the sum of them."""
    monkeypatch.setattr(connection, "BATCH_LIMIT", 1)
    tries = []
    exchange = Line.exchange

    async def counted(self, commands):
        tries.append(len(commands))
        return await exchange(self, commands)

    monkeypatch.setattr(Line, "exchange", counted)
    proxy.hole()
    found = await asyncio.gather(*(behind.ping() for _ in range(20)), return_exceptions=True)
    assert [type(error) for error in found] == [StoreUnavailable] * 20
    assert tries == [1]


async def test_a_blocking_read_is_bounded_on_this_side(behind, proxy):
    proxy.hole()
    with pytest.raises(StoreUnavailable):
        await behind._connection.block("XREAD", "BLOCK", 10, "STREAMS", "s", "$", timeout_s=0.1)


@pytest.mark.parametrize(
    "error",
    [
        ClusterDownError("The cluster is down"),
        MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
        TryAgainError("Multiple keys request during rehashing of slot"),
        ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
        ResponseError("BUSY Valkey is busy running a script."),
        ResponseError("Error running script (call to f_1): @user_script:7: -OOM command not allowed when"),
        ResponseError(
            "Error running script (call to f_1): @user_script:7: -READONLY You can't write against"
        ),
    ],
    ids=(
        "clusterdown",
        "masterdown",
        "tryagain",
        "misconf",
        "noreplicas",
        "unblocked",
        "busy",
        "old-oom",
        "old-readonly",
    ),
)
async def test_a_server_that_cannot_write_now_is_unavailable(behind, error, monkeypatch):
    async def refuse(_self, commands):
        return [error] * len(commands)

    monkeypatch.setattr(Line, "exchange", refuse)
    with pytest.raises(StoreUnavailable):
        await behind.ping()


async def test_a_group_that_exists_already_is_no_outage(store):
    """BUSYGROUP begins like BUSY."""
    await store.outbox.open()
    await store.outbox.open()


async def test_a_blocking_read_of_a_primary_that_becomes_a_replica_is_an_outage(behind, server):
    """Not an error of its own: the daemon's loops would end with it."""
    reading = asyncio.ensure_future(behind.engines.inbox(BOX.id, "0", 10_000))
    direct = Connection.open(server.url)
    try:
        await eventually(lambda: blocked(direct), "the read to block")
        await direct.command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(StoreUnavailable):
            await reading
        with pytest.raises(StoreUnavailable):
            await behind.engines.register(BOX, EngineReport(), {}, 60)
        await direct.command("REPLICAOF", "NO", "ONE")
        await behind.engines.register(BOX, EngineReport(), {}, 60)
    finally:
        reading.cancel()
        await direct.close()


async def blocked(direct):
    clients = await direct.command("INFO", "clients")
    return b"blocked_clients:1" in clients


async def test_a_server_that_reads_its_file_hands_no_task_on(behind, proxy):
    proxy.refuse("LOADING Redis is loading the dataset in memory")
    with pytest.raises(StoreUnavailable) as caught:
        await behind.ping()
    assert caught.value.fields["nobody_listens"]
    assert unavailable(BusyLoadingError("x")).fields["nobody_listens"]


async def test_a_lease_is_renewed_on_a_server_without_memory(behind):
    store = behind
    session, _ = await store.engines.register(BOX, EngineReport(), {}, 60)
    before = await store._connection.command("ZSCORE", store._keys.leases, "box")
    async with no_memory(store):
        with pytest.raises(StoreUnavailable):
            await store._connection.command("SET", "x", "1")
        await eventually(lambda: renewed_after(store, session, before), "a later end of the lease")
    assert await store.scheduling.expired() == []


async def renewed_after(store, session, before):
    await store.engines.renew(BOX.id, session, TELEMETRY, {}, 60)
    return await store._connection.command("ZSCORE", store._keys.leases, "box") != before


@contextlib.asynccontextmanager
async def no_memory(store):
    await store._connection.command("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        await store._connection.command("CONFIG", "SET", "maxmemory", 0)


async def test_what_processes_tell_of_their_loops_is_read_with_its_age(store):
    await store.pulses.tell("s1", "scheduler", {"wake": 1.5})
    await store.pulses.tell("j1", "jobs", {"outbox": 0.0, "cron": 2.0})
    await store.pulses.tell("s1", "scheduler", {"wake": 0.5}, {"warm": 3})
    first, second = await store.pulses.told()
    assert (first.process, first.part, set(first.silent_s)) == ("j1", "jobs", {"outbox", "cron"})
    assert (second.process, second.silent_s.keys()) == ("s1", {"wake"})
    assert second.silent_s["wake"] >= 0.5
    assert (first.counts, second.counts) == ({}, {"warm": 3})


async def test_processes_that_are_gone_are_forgotten_by_whoever_tells_next(store):
    await store._connection.command("HSET", store._keys.pulses, "old", b'1 {"part":"jobs","silent_s":{}}')
    assert await store.pulses.told() == []
    await store.pulses.tell("new", "jobs", {})
    assert await store._connection.command("HKEYS", store._keys.pulses) == [b"new"]
