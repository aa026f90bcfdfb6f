"""The lease: registered, renewed, and given up in time."""

import asyncio
import time

import pytest
from recorders import until

from stoker.core.errors import ProtocolRefusal, StoreUnavailable
from stoker.core.messages import CancelOrder, EngineInfo, EngineReport, Telemetry
from stoker.protocol.engines import Renewal
from stoker_worker.lease import FENCE_SHARE, Lease, decide_fence

CANCEL = CancelOrder(task_id="t1", attempt=1)


@pytest.mark.parametrize(
    ("renewed", "refused", "expected"),
    [(100, 0, 100 + 10 * FENCE_SHARE), (100, 90, 100 + 10 * FENCE_SHARE), (100, 130, 130 + 10 * FENCE_SHARE)],
)
def test_attempts_are_stopped_before_the_lease_ends_unless_no_server_is_there(renewed, refused, expected):
    assert decide_fence(renewed, refused, 10) == expected


class Holder:
    """Records what the lease tells; claims to hold one task."""

    def __init__(self):
        self.told = []

    def info(self):
        return EngineInfo(id="box", name="box", version="0", hostname="h", workers=())

    def report(self):
        return EngineReport()

    def telemetry(self):
        return Telemetry(cpu_percent=0, ram_used_bytes=0, ram_total_bytes=0)

    def held(self):
        return {"t1": 1}

    def on_registered(self, session):
        self.told.append(("registered", session))

    def on_lost(self, task_ids, reason):
        if task_ids:
            self.told.append(("lost", *sorted(task_ids)))

    def on_cancel(self, order):
        self.told.append(("cancel", order))

    def on_fence(self, reason):
        self.told.append(("fence", reason))


class Server:
    """Answers with what is queued up, an exception or a result, then with `last` for ever."""

    def __init__(self, *answers, last=None):
        self.answers = list(answers)
        self.last = last or Renewal()
        self.registrations = []
        self.sessions = []
        self.renewed_mono = []

    async def register(self, info, report, held, lease_s):
        self._next()
        self.registrations.append(dict(held))
        return f"session{len(self.registrations)}", frozenset()

    async def renew(self, engine_id, session, telemetry, held, lease_s):
        self.sessions.append(session)
        self.renewed_mono.append(time.monotonic())
        return self._next() or self.last

    def _next(self):
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def start():
    """Start a lease against a server; ends it after the test."""
    running = []

    async def begin(server, lease_s=0.06):
        holder = Holder()
        lease = Lease(server, holder, lease_s)
        await lease.register()
        running.append((lease, asyncio.ensure_future(lease.renew_loop())))
        return holder

    yield begin
    for lease, loop in running:
        loop.cancel()
        lease.stop()


async def soon(condition):
    async with asyncio.timeout(5):
        await until(condition, tries=10_000_000)


async def test_registration_names_what_is_held_and_is_repeated_until_it_is_taken(start):
    server = Server(StoreUnavailable(), StoreUnavailable())
    holder = await start(server)
    assert server.registrations == [{"t1": 1}]
    assert holder.told == [("registered", "session1")]


async def test_renewals_carry_the_session_and_keep_the_fence_away(start):
    server = Server()
    holder = await start(server)
    await soon(lambda: len(server.sessions) > 5)
    assert set(server.sessions) == {"session1"}
    assert holder.told == [("registered", "session1")]


async def test_a_renewal_says_what_is_lost_and_what_is_cancelled(start):
    holder = await start(Server(None, Renewal(lost=frozenset({"t1"}), cancelled=(CANCEL,))))
    await soon(lambda: len(holder.told) > 2)
    assert holder.told[1:3] == [("lost", "t1"), ("cancel", CANCEL)]


async def test_an_engine_that_was_declared_lost_registers_again(start):
    server = Server(None, ProtocolRefusal("ENGINE_UNKNOWN"))
    await start(server)
    await soon(lambda: "session2" in server.sessions)
    assert len(server.registrations) == 2


async def test_a_silent_server_fences_before_the_lease_is_over(start):
    server = Server(None, *[StoreUnavailable()] * 100_000)
    holder = await start(server, lease_s=0.1)
    await soon(lambda: len(holder.told) > 1)
    assert holder.told[1][0] == "fence"


async def test_no_server_at_the_address_is_no_reason_to_stop_running_tasks(start):
    server = Server(None, *[StoreUnavailable(nobody_listens=True)] * 1_000_000)
    holder = await start(server, lease_s=0.02)
    begun = time.monotonic()
    await soon(lambda: time.monotonic() - begun > 0.1)
    assert holder.told == [("registered", "session1")]


async def test_a_stopped_lease_fences_nobody():
    holder = Holder()
    lease = Lease(Server(), holder, 0.01)
    await lease.register()
    lease.stop()
    lease.stop()
    begun = time.monotonic()
    await until(lambda: time.monotonic() - begun > 0.02, tries=1_000_000)
    assert holder.told == [("registered", "session1")]
