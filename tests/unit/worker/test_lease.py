"""The lease: registered, renewed, and given up in time."""

import asyncio

import pytest
from virtual_time import in_virtual_time, pass_time

from stoker.core.errors import ProtocolRefusal, StoreUnavailable
from stoker.core.messages import CancelOrder, EngineInfo, EngineReport
from stoker.core.telemetry import Telemetry
from stoker.protocol.engines import Renewal
from stoker_worker.lease import FENCE_SHARE, Lease, decide_fence

LEASE_S = 15.0
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

    def on_lost(self, attempts, reason):
        if attempts:
            self.told.append(("lost", attempts))

    def on_cancel(self, order):
        self.told.append(("cancel", order))

    def on_fence(self, reason):
        self.told.append(("fence", reason))


class Server:
    """Answers with what is queued up, an exception or a result, then with `last` for ever."""

    def __init__(self, *answers, last=None):
        self.answers = list(answers)
        self.last = last
        self.registrations = []
        self.sessions = []
        self.given_away = frozenset()  # what another worker has by the time of a registration

    async def register(self, info, report, held, lease_s, *, returning):
        self._next()
        assert returning == bool(self.registrations)  # a drain holds for the process that it was meant for
        self.registrations.append(dict(held))
        return f"session{len(self.registrations)}", self.given_away & held.keys()

    async def renew(self, engine_id, session, telemetry, held, lease_s):
        self.sessions.append(session)
        return self._next() or Renewal()

    def _next(self):
        answer = self.answers.pop(0) if self.answers else self.last
        if isinstance(answer, Exception):
            raise answer
        return answer


def make_lease(server, holder):
    return Lease(server, holder, LEASE_S, asyncio.get_running_loop().time)


async def start(server, running):
    """Register a lease and keep it renewed; what it tells."""
    holder = Holder()
    lease = make_lease(server, holder)
    await lease.register()
    running.append(asyncio.ensure_future(lease.renew_loop()))
    return holder


@pytest.fixture
def no_pauses():
    """Time is virtual here: pauses are real, and take none."""


@pytest.fixture
def running():
    """Keeps the tasks of a test from being collected."""
    return []


@in_virtual_time
async def test_registration_names_what_is_held_and_is_repeated_until_it_is_taken(running):
    server = Server(StoreUnavailable(), StoreUnavailable())
    holder = await start(server, running)
    assert server.registrations == [{"t1": 1}]
    assert holder.told == [("registered", "session1")]


@in_virtual_time
async def test_renewals_carry_the_session_and_keep_the_fence_away(running):
    server = Server()
    holder = await start(server, running)
    await pass_time(10.5 * LEASE_S)
    assert len(server.sessions) == 31  # three a lease
    assert set(server.sessions) == {"session1"}
    assert holder.told == [("registered", "session1")]


@in_virtual_time
async def test_a_renewal_says_what_is_lost_and_what_is_cancelled(running):
    holder = await start(Server(None, Renewal(lost=frozenset({"t1"}), cancelled=(CANCEL,))), running)
    await pass_time(LEASE_S / 2)
    assert holder.told[1:] == [("lost", {"t1": 1}), ("cancel", CANCEL)]


@in_virtual_time
async def test_an_engine_that_was_declared_lost_registers_again(running):
    server = Server(None, ProtocolRefusal("ENGINE_UNKNOWN"))
    await start(server, running)
    await pass_time(LEASE_S)
    assert len(server.registrations) == 2
    assert server.sessions[-1] == "session2"


@in_virtual_time
async def test_an_engine_that_is_recalled_registers_at_once_with_what_it_holds(running):
    server, holder = Server(None, ProtocolRefusal("ENGINE_RECALLED")), Holder()
    lease = make_lease(server, holder)
    await lease.register()
    running.append(asyncio.ensure_future(lease.renew_loop()))
    await pass_time(0)
    lease.renew_now()
    await pass_time(0.01)
    assert server.registrations == [{"t1": 1}, {"t1": 1}]
    await pass_time(LEASE_S)
    assert server.sessions == ["session1", "session2", "session2", "session2"]


@in_virtual_time
async def test_an_engine_that_returns_goes_on_with_what_it_owns_and_stops_what_it_lost(running):
    server = Server(None, StoreUnavailable(), ProtocolRefusal("ENGINE_UNKNOWN"))
    holder = await start(server, running)
    holder.held = lambda: {"t1": 1, "t2": 3}
    server.given_away = frozenset({"t2"})
    await pass_time(LEASE_S)
    assert server.registrations[-1] == {"t1": 1, "t2": 3}
    assert holder.told[1:] == [("registered", "session2"), ("lost", {"t2": 3})]


@in_virtual_time
async def test_steps_of_the_machines_wall_clock_change_nothing(running, monkeypatch):
    server = Server(*[None] * 5, last=StoreUnavailable())
    holder = await start(server, running)
    for wall_s in (0.0, 10_000_000_000.0):
        monkeypatch.setattr("time.time", lambda wall_s=wall_s: wall_s)
        await pass_time(2 / 3 * LEASE_S)
    assert holder.told[1:] == []
    await pass_time(LEASE_S)
    assert [kind for kind, *_ in holder.told[1:]] == ["fence"]


@in_virtual_time
async def test_an_attempt_is_fenced_before_the_server_may_hand_it_on(running):
    """Whatever the moment at which the server falls silent: the lease counts from its last renewal, which came later."""
    for answered in range(4):
        server = Server(*[None] * (answered + 1), last=StoreUnavailable())
        taken, moments = [], []
        renew, loop = server.renew, asyncio.get_running_loop()

        async def noted(*given, renew=renew, taken=taken, loop=loop):
            found = await renew(*given)
            taken.append(loop.time())
            return found

        server.renew = noted
        taken.append(loop.time())
        holder = await start(server, running)
        holder.on_fence = lambda _reason, moments=moments, loop=loop: moments.append(loop.time())
        await pass_time(4 * LEASE_S)
        assert len(moments) == 1
        assert moments[0] < max(taken) + LEASE_S


@in_virtual_time
async def test_a_silent_server_fences_before_the_lease_is_over(running):
    holder = await start(Server(None, last=StoreUnavailable()), running)
    await pass_time(FENCE_SHARE * LEASE_S - 0.1)
    assert holder.told[1:] == []
    await pass_time(0.2)
    assert [kind for kind, *_ in holder.told[1:]] == ["fence"]


@in_virtual_time
async def test_no_server_at_the_address_is_no_reason_to_stop_running_tasks(running):
    holder = await start(Server(None, last=StoreUnavailable(nobody_listens=True)), running)
    await pass_time(20 * LEASE_S)
    assert holder.told == [("registered", "session1")]


@in_virtual_time
async def test_a_stopped_lease_fences_nobody():
    holder = Holder()
    lease = make_lease(Server(), holder)
    await lease.register()
    lease.stop()
    lease.stop()
    await pass_time(2 * LEASE_S)
    assert holder.told == [("registered", "session1")]
