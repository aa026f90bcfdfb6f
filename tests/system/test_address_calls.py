"""Calls of addresses by the jobs' loop: beside each other, within a bound, and by the next process when one ends."""

import asyncio
import contextlib

import httpx
import pytest
from agent_scene import AgentScene, Receiver
from helpers import eventually

from stoker.log import get_logger
from stoker.outbound import checked_client
from stoker.protocol.calls import AddressCall, CallKind
from stoker.pulse import Pulse
from stoker_jobs import address_calls
from stoker_jobs.address_calls import CALLS, Caller


@pytest.fixture
async def scene(store, tmp_path):
    """On a real server, which lets readers wait."""
    made = AgentScene(store, tmp_path)
    await made.deploy_model()
    return made


@pytest.fixture
def silent():
    """An address that gives no answer."""
    made = Receiver()
    made.hold.clear()
    yield made
    made.close()


@contextlib.asynccontextmanager
async def calling(scene, **settings):
    """The loop at work."""
    scene = AgentScene(scene.store, scene.settings.data_dir, **settings)
    stop = asyncio.Event()
    async with checked_client(httpx.Timeout(30)) as client:
        running = asyncio.create_task(Caller(scene.desk, client, get_logger("test")).run(stop, Pulse(CALLS)))
        try:
            yield
        finally:
            stop.set()
            await running


async def asked(scene, chat_id, receiver):
    """A chat whose tool is to call an address."""
    tool = {"name": "web", "type": "http", "http": {"url": receiver.url}}
    await scene.called("web", chat_id=chat_id, tools=[tool])
    call = AddressCall(kind=CallKind.TOOL, chat_id=chat_id, part_id=f"{chat_id}-1-0")
    await scene.store.calls.ask(call)
    return call


async def test_an_address_that_is_silent_holds_up_no_other(scene, silent, receiver):
    for number in range(5):
        await asked(scene, f"s{number}", silent)
    await asked(scene, "c", receiver)
    async with calling(scene):
        await eventually(lambda: _over(scene, "c"), "the call behind them")
        silent.hold.set()
        for number in range(5):
            await eventually(lambda n=number: _over(scene, f"s{n}"), "the others")
    assert len(silent.requests) == 5


async def _over(scene, chat_id):
    return await scene.results(chat_id) == [("completed", "fine")]


async def test_more_than_may_be_called_at_once_wait(scene, silent):
    for chat_id in ("a", "b"):
        await asked(scene, chat_id, silent)
    async with calling(scene, address_call_concurrency=1):
        await eventually(lambda: silent.requests, "the first call")
        assert await scene.store.calls.next(0.2) == AddressCall(
            kind=CallKind.TOOL, chat_id="b", part_id="b-1-0"
        ), "it was not taken"
        silent.hold.set()
        await eventually(lambda: _over(scene, "a"), "its end")
    assert len(silent.requests) == 1


async def test_a_call_that_is_under_way_when_the_jobs_end_is_made_by_the_next(scene, silent, monkeypatch):
    monkeypatch.setattr(address_calls, "STOP_S", 0.05)
    call = await asked(scene, "c", silent)
    async with calling(scene):
        await eventually(lambda: silent.requests, "the call")
    assert not await scene.store.calls.ask(call), "it waits for the next one already"
    silent.hold.set()
    async with calling(scene):
        await eventually(lambda: _over(scene, "c"), "the second try")
    keys = [headers["Idempotency-Key"] for _, headers, _ in silent.requests]
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_a_call_that_takes_longer_than_its_lease_stays_with_who_makes_it(scene, silent, monkeypatch):
    monkeypatch.setattr(address_calls, "LEASE_S", 0.6)
    call = await asked(scene, "c", silent)
    async with calling(scene):
        await eventually(lambda: silent.requests, "the call")
        renewed, hold = [], scene.store.calls.hold

        async def holding(*arguments):
            renewed.append(await hold(*arguments))

        monkeypatch.setattr(scene.store.calls, "hold", holding)
        await eventually(lambda: len(renewed) > 5, "more renewals than one lease needs")
        assert not await scene.store.calls.ask(call), "it is held"
        silent.hold.set()
        await eventually(lambda: _over(scene, "c"), "its end")
    assert len(silent.requests) == 1


async def test_a_call_of_a_chat_that_is_gone_or_over_is_not_made(scene, receiver):
    call = await asked(scene, "c", receiver)
    async with calling(scene):
        await eventually(lambda: _over(scene, "c"), "the call")
        await eventually(lambda: scene.store.calls.ask(call), "that it is held no more")
        gone = AddressCall(kind=CallKind.HOOK, chat_id="gone", part_id="gone-1")
        await scene.store.calls.ask(gone)
        for one in (call, gone):
            await eventually(lambda one=one: scene.store.calls.take(one, 0.01), "that it was looked at")
    assert len(receiver.requests) == 1
