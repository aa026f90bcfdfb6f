"""The desk of a process that takes steps, and RQ's signals, which break into it."""

import asyncio
import os
import signal

import pytest
from rq.timeouts import JobTimeoutException

from stoker.service import loop_factory
from stoker_jobs import desk
from stoker_jobs.desk import at_desk


class Store:
    """What a desk closes."""

    closed = 0

    async def close(self):
        Store.closed += 1


@pytest.fixture(params=["uvloop", "asyncio"], autouse=True)
def opened(request, monkeypatch):
    """Desks without a Redis, as many as were opened."""
    made = []

    async def open_desk(settings):
        made.append(desk.Desk(store=Store(), settings=settings, submitter=None, registry=None))
        return made[-1]

    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    else:
        monkeypatch.setattr(desk, "loop_factory", lambda: None)
    monkeypatch.setattr(desk, "open_desk", open_desk)
    monkeypatch.setattr(desk, "_shops", {})
    yield made
    for shop in desk._shops.values():
        shop.close()


@pytest.fixture
def on_signal():
    """Sets what a signal does, as RQ sets it for SIGALRM and SIGTERM; here it is another, for SIGALRM is pytest's."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda act: signal.signal(signal.SIGUSR1, lambda *_: act())
    signal.signal(signal.SIGUSR1, before)


def strike():
    os.kill(os.getpid(), signal.SIGUSR1)


async def wait_for_ever(_desk):
    asyncio.get_running_loop().call_soon(strike)
    await asyncio.Event().wait()


async def compute_for_ever(_desk):
    strike()
    while True:
        pass


async def nothing(_desk):
    return "done"


def test_the_loop_is_the_one_of_all_parts(opened, request):
    loops = []

    async def look(_desk):
        loops.append(type(asyncio.get_running_loop()).__module__)

    at_desk(look)
    assert loops[0].startswith("uvloop" if desk.loop_factory is loop_factory else "asyncio")


@pytest.mark.parametrize("work", [wait_for_ever, compute_for_ever])
def test_rqs_limit_ends_a_step_and_the_next_one_gets_a_new_desk(opened, on_signal, work):
    def late():
        raise JobTimeoutException("Task exceeded maximum timeout value (180 seconds)")

    on_signal(late)
    closed = Store.closed
    with pytest.raises(JobTimeoutException):
        at_desk(work)
    assert Store.closed == closed + 1
    assert at_desk(nothing) == "done"
    assert len(opened) == 2


def test_who_is_asked_to_stop_ends_the_step_first(opened, on_signal):
    async def work(_desk):
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        on_signal(lambda: loop.call_soon_threadsafe(asked.set))
        loop.call_soon(strike)
        await asked.wait()
        return "done"

    assert at_desk(work) == "done"
    assert at_desk(nothing) == "done"
    assert len(opened) == 1


def test_who_must_stop_at_once_does(opened, on_signal):
    def cold():
        raise SystemExit

    on_signal(cold)
    with pytest.raises(SystemExit):
        at_desk(wait_for_ever)
