"""Names of strangers are looked up apart from all else: who owns one may have it say nothing."""

import asyncio
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from helpers import PATIENCE_S, eventually

from stoker import lookups
from stoker.lookups import THREADS, Lookups
from stoker.outbound import CheckedTransport, checked_client, resolve
from stoker.service import loop_factory

ADDRESS = "93.184.216.34"
HOST = "silent.example"
LEAVES = """
import asyncio, os, socket, threading
from stoker.outbound import resolve

async def ask(limit_s):
    async with asyncio.timeout(limit_s):
        return await resolve("silent.example", 443)

socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
try:
    asyncio.run(ask(0.1))
except TimeoutError:
    print("gave up", flush=True)
"""
FORKS = """
child = os.fork()
if not child:
    socket.getaddrinfo = lambda *_, **__: [(0, 0, 0, "", ("192.0.2.1", 0))]
    try:
        print(asyncio.run(ask(5)), flush=True)
    finally:
        os._exit(0)
os.waitpid(child, 0)
"""


class Resolver:
    """Stands for the system's: names that begin with "silent" are answered when the test says so, or is over."""

    def __init__(self):
        self.asked = []
        self.speak = threading.Event()

    def __call__(self, host, *_, **__):
        self.asked.append(host)
        if host.startswith("silent"):
            self.speak.wait(PATIENCE_S)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ADDRESS, 0))] * 2


@pytest.fixture
def resolver(monkeypatch):
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(lookups, "shared", Lookups())
    yield resolver
    resolver.speak.set()


async def asking(*asked):
    """Begin to ask; the tasks that wait for the answers."""
    tasks = [asyncio.create_task(each) for each in asked]
    await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("factory", [loop_factory(), None])
def test_names_that_say_nothing_hold_up_neither_other_names_nor_other_work(resolver, factory):
    async def scene():
        silent = await asking(*(resolve(f"silent{number}.example", 443) for number in range(THREADS - 1)))
        try:
            async with asyncio.timeout(PATIENCE_S):
                assert await resolve("a.example", 443) == (ADDRESS,)
                assert await asyncio.to_thread(lambda: "done") == "done"
        finally:
            resolver.speak.set()  # else a loop whose own threads were taken would not end
        assert await asyncio.gather(*silent) == [(ADDRESS,)] * len(silent)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scene())


async def test_a_name_is_looked_up_once_at_a_time_whoever_gives_up(resolver):
    first, *others = await asking(*(resolve(HOST, port) for port in (443, 443, 80, 8080)))
    first.cancel()
    await asyncio.wait((first,))
    resolver.speak.set()
    assert await asyncio.gather(*others) == [(ADDRESS,)] * 3
    assert first.cancelled()
    assert resolver.asked == [HOST]


async def test_a_name_that_all_gave_up_is_not_looked_up_beside_itself(resolver):
    for _ in range(3):
        [task] = await asking(resolve(HOST, 443))
        await eventually(lambda: resolver.asked, "the lookup")  # what has not begun is not looked up at all
        task.cancel()
        await asyncio.wait((task,))
    assert resolver.asked == [HOST]


async def test_when_all_threads_are_taken_that_is_said_and_nothing_is_left_to_do(resolver, monkeypatch):
    monkeypatch.setattr(lookups, "shared", Lookups(threads=1))
    monkeypatch.setattr(lookups, "TURN_S", 0.05)
    [silent] = await asking(resolve(HOST, 443))
    async with checked_client(httpx.Timeout(5), CheckedTransport()) as client:
        with pytest.raises(
            httpx.ConnectError, match=r"a\.example cannot be resolved: 1 other names are looked"
        ):
            await client.get("https://a.example/")
    resolver.speak.set()
    assert await silent == (ADDRESS,)
    assert await resolve("b.example", 443) == (ADDRESS,)
    assert resolver.asked == [HOST, "b.example"]


async def test_an_address_needs_no_thread(resolver, monkeypatch):
    monkeypatch.setattr(lookups, "shared", Lookups(threads=0))
    assert await resolve("127.0.0.1", 80) == ("127.0.0.1",)
    assert await resolve("::1", 80) == ("::1",)


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "unknown"), UnicodeError("too long"), ValueError("null")]
)
async def test_what_a_lookup_fails_with_reaches_who_asked(resolver, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(type(error), match=str(error.args[-1])):
        await resolve("a.example", 443)


async def test_loops_of_several_threads_share_a_lookup(resolver):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(asyncio.run, resolve(HOST, 443)) for _ in range(2)]
        try:
            await eventually(
                lambda: HOST in lookups.shared._begun and lookups.shared._begun[HOST].waiting == 2, "both"
            )
        finally:
            resolver.speak.set()
        assert [each.result() for each in both] == [(ADDRESS,)] * 2
    assert resolver.asked == [HOST]


@pytest.mark.parametrize(("more", "told"), [("", ["gave up"]), (FORKS, ["gave up", "('192.0.2.1',)"])])
def test_a_silent_name_keeps_no_process_from_ending_and_does_not_go_into_a_forked_one(more, told):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES + more], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.splitlines() == told
