"""Sessions through the scripts: opened, called, kept, settled, over."""

import msgspec
import pytest
from helpers import eventually
from protocol_scene import once

from stoker.core.errors import (
    Conflict,
    KeyQueueFull,
    ProtocolRefusal,
    QueueFull,
    SessionEnded,
    SessionExpired,
    SessionNotFound,
    WorkerLost,
)
from stoker.core.messages import Needs, Owner, TaskRequest, TaskSpec
from stoker.core.sessions import SessionEnd, SessionInfo, plain_key, session_key, session_of
from stoker.protocol import Room, WakeKind

OWNER = Owner(user_id="u1", key_id="k1")
SESSION = "sess_1"
KEY = session_key("k", SESSION)


def spec(task_id, *, opens=False):
    return TaskSpec(
        id=task_id,
        setup_key=KEY,
        version_id="v",
        env_key="e",
        app="infsh/echo",
        needs=Needs(),
        session_id=SESSION,
        opens_session=opens,
    )


def request(task_id, *, opens=False, session_id=SESSION):
    return TaskRequest(
        id=task_id,
        app_id="a",
        app="infsh/echo",
        version_id="v",
        function="run",
        input={},
        setup={},
        setup_key=session_key("k", session_id),
        env_key="e",
        session_id=session_id,
        opens_session=opens,
    )


def info(idle_s=60.0):
    return SessionInfo(
        id=SESSION,
        user_id="u1",
        app_id="a",
        app="infsh/echo",
        version_id="v",
        idle_s=idle_s,
        spec=spec("t1", opens=True),
    )


async def open_session(store, idle_s=60.0, **options):
    return await store.tasks.submit(
        request("t1", opens=True), spec("t1", opens=True), OWNER, session=info(idle_s), **options
    )


async def call(store, task_id):
    return await store.tasks.submit(request(task_id), spec(task_id), OWNER)


async def idle(store, idle_s=60.0):
    """A session whose only task has ended."""
    await open_session(store, idle_s)
    await store.sessions.settle(SESSION, "t1")


async def expired(store):
    await idle(store, idle_s=0.0)

    async def check():
        return (await store.sessions.read(SESSION)).end

    assert await eventually(check, "the end of the idle time") is SessionEnd.EXPIRED


def test_the_key_of_a_session_tells_what_is_loaded_and_for_whom():
    assert (plain_key(KEY), session_of(KEY)) == ("k", SESSION)
    assert (plain_key("k"), session_of("k")) == ("k", "")


@pytest.mark.parametrize(("room", "refusal"), [(Room(key=1), KeyQueueFull), (Room(queue=1), QueueFull)])
async def test_tasks_that_wait_for_a_time_leave_a_session_no_more_room_than_others(store, room, refusal):
    later = msgspec.structs.replace(request("later", session_id=""), run_at_ms=2**42)
    plain = msgspec.structs.replace(spec("later"), session_id="")
    await store.tasks.submit(later, plain, OWNER, room=room)
    with pytest.raises(refusal, match="1 tasks"):
        await open_session(store, room=room)
    with pytest.raises(SessionNotFound):
        await store.sessions.read(SESSION)
    await store.tasks.cancel("later")
    await open_session(store, room=room)


async def test_the_first_task_opens_a_session(store):
    await open_session(store)
    assert await store.owners.list() == {OWNER.user_id}
    session = await store.sessions.read(SESSION)
    assert session.end is None
    assert session.info == info()
    assert (session.call_count, session.last_task_id, session.open_tasks) == (1, "t1", ("t1",))
    assert session.worker_id == ""
    assert [found.info.id for found in await store.sessions.active()] == [SESSION]


async def test_a_repeated_first_task_counts_once(store):
    await open_session(store)
    await open_session(store)
    assert (await store.sessions.read(SESSION)).call_count == 1
    assert await store.scheduling.pending_count() == 1


async def test_an_idempotency_key_gives_the_first_task_of_the_first_session(store):
    await open_session(store, repeat=once(b"open"))
    again = request("t2", opens=True, session_id="sess_2")
    other = msgspec.structs.replace(info(), id="sess_2")
    options = {"session": other}
    opened = await store.tasks.submit(again, spec("t2", opens=True), OWNER, repeat=once(b"open"), **options)
    assert opened == "t1"
    with pytest.raises(SessionNotFound):
        await store.sessions.read("sess_2")
    with pytest.raises(Conflict):
        await store.tasks.submit(again, spec("t2", opens=True), OWNER, repeat=once(b"other"), **options)


async def test_a_task_of_an_unknown_session_is_refused(store):
    with pytest.raises(SessionNotFound):
        await call(store, "t2")
    assert await store.scheduling.pending_count() == 0


async def test_the_idle_time_does_not_pass_while_a_task_waits_or_runs(store):
    await open_session(store, idle_s=0.0)
    before = (await store.sessions.read(SESSION)).expires_ms

    async def time_has_passed():
        return (await store.sessions.read(SESSION)).expires_ms > before

    await eventually(time_has_passed, "the server's clock")
    assert await store.sessions.idle_over() == []
    assert not await store.sessions.end(SESSION, SessionEnd.EXPIRED)
    await call(store, "t2")
    await store.sessions.settle(SESSION, "t1")
    assert (await store.sessions.read(SESSION)).open_tasks == ("t2",)
    assert await store.sessions.idle_over() == []


async def test_a_session_expires_when_nothing_comes(store):
    await expired(store)
    with pytest.raises(SessionExpired):
        await call(store, "t2")
    with pytest.raises(SessionExpired):
        await store.sessions.keep(SESSION)
    assert await store.sessions.idle_over() == [SESSION]
    assert await store.sessions.end(SESSION, SessionEnd.EXPIRED)
    assert await store.sessions.idle_over() == []
    with pytest.raises(SessionExpired):
        await call(store, "t2")


async def test_an_expired_session_is_not_said_to_be_ended_by_whoever_comes_late(store):
    await expired(store)
    await store.sessions.end(SESSION, SessionEnd.ENDED)
    assert (await store.sessions.read(SESSION)).end is SessionEnd.EXPIRED


async def test_keeping_a_session_begins_its_idle_time_anew(store):
    await idle(store)
    before = await store.sessions.read(SESSION)

    async def later():
        await store.sessions.keep(SESSION)
        return (await store.sessions.read(SESSION)).expires_ms > before.expires_ms

    await eventually(later, "a later expiry")
    with pytest.raises(SessionNotFound):
        await store.sessions.keep("sess_other")


@pytest.mark.parametrize(
    ("why", "error"), [(SessionEnd.ENDED, SessionEnded), (SessionEnd.WORKER_LOST, WorkerLost)]
)
async def test_a_session_that_is_over_takes_no_task_and_says_why(store, why, error):
    await open_session(store)
    assert await store.sessions.end(SESSION, why)
    assert await store.sessions.active() == []
    session = await store.sessions.read(SESSION)
    assert session.end is why
    assert session.ended_ms > 0
    with pytest.raises(error):
        await call(store, "t2")
    with pytest.raises(error):
        await store.sessions.keep(SESSION)


async def test_the_first_reason_of_an_end_stays(store):
    await open_session(store)
    await store.sessions.end(SESSION, SessionEnd.ENDED)
    await store.sessions.end(SESSION, SessionEnd.WORKER_LOST)
    assert (await store.sessions.read(SESSION)).end is SessionEnd.ENDED
    with pytest.raises(SessionNotFound):
        await store.sessions.end("sess_other", SessionEnd.ENDED)


async def test_the_end_of_a_session_wakes_the_scheduler_once(store):
    await open_session(store)
    await store.sessions.end(SESSION, SessionEnd.ENDED)
    await store.sessions.end(SESSION, SessionEnd.ENDED)
    _, events = await store.scheduling.wake("0", 1)
    over = [event for event in events if event.kind is WakeKind.SESSION]
    assert [(event.session_id, event.session_end) for event in over] == [(SESSION, SessionEnd.ENDED)]


async def test_settling_a_task_of_an_ended_session_does_not_revive_it(store):
    await open_session(store)
    await store.sessions.end(SESSION, SessionEnd.ENDED)
    await store.sessions.settle(SESSION, "t1")
    assert await store._connection.command("ZCARD", store._keys.sessions) == 0
    assert (await store.sessions.read(SESSION)).open_tasks == ()


async def test_only_the_leader_binds_a_session_to_a_worker(store):
    await open_session(store)
    epoch = await store.scheduling.lead("one", 60)
    with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
        await store.sessions.bind(epoch + 1, SESSION, "box", "box-cpu-0")
    await store.sessions.bind(epoch, SESSION, "box", "box-cpu-0")
    session = await store.sessions.read(SESSION)
    assert (session.engine_id, session.worker_id) == ("box", "box-cpu-0")
    await store.sessions.bind(epoch, "sess_other", "box", "box-cpu-0")
