"""The life of a task through the scripts, on a real server."""

import asyncio
import time

import msgspec
import pytest
from protocol.faulty import lose_replies
from protocol.lifecycle_model import UNTAKEN
from protocol_scene import DONE, OWNER, TELEMETRY, Scene, info, once, request, spec

from stoker.core.errors import (
    Conflict,
    IncompatibleVersion,
    KeyQueueFull,
    NotFound,
    ProtocolRefusal,
    QueueFull,
    StaleAttempt,
    Unauthorized,
)
from stoker.core.messages import (
    CANCEL_GRACE_MAX_MS,
    CancelOrder,
    EngineReport,
    LogLine,
    LogType,
    Owner,
)
from stoker.core.protocol_version import Speaks
from stoker.core.states import TaskState as S
from stoker.protocol import Room, WakeKind
from stoker.protocol.keys import Keys
from stoker.protocol.scheduling import Scheduling

pytestmark = pytest.mark.protocol


async def test_a_task_goes_from_queue_to_completed(scene):
    order = await scene.running()
    await scene.store.engines.finish(order, "box", DONE)
    view = await scene.store.tasks.read("t1")
    assert [state for _, state, _ in view.history] == [1, 2, 3, 7, 9]
    assert (view.state, bytes(view.output), view.request.input) == (
        S.COMPLETED,
        b'{"ok":1}',
        {"message": "hé"},
    )
    finished = [e for e in await scene.wake() if e.kind is WakeKind.FINISHED]
    assert [(e.measures.worker, e.measures.load_s) for e in finished] == [("box-cpu-0", 2.0)]


async def test_a_repeated_submit_makes_one_task(scene):
    await scene.submit()
    assert await scene.store.scheduling.pending_count() == 1


async def test_an_idempotency_key_gives_the_first_task_and_refuses_another_body(scene):
    tasks = scene.store.tasks
    first = await tasks.submit(request("i1"), spec("i1"), OWNER, repeat=once(b"body"))
    assert await tasks.submit(request("i2"), spec("i2"), OWNER, repeat=once(b"body")) == first
    with pytest.raises(Conflict, match="Use a new key"):
        await tasks.submit(request("i3"), spec("i3"), OWNER, repeat=once(b"other"))
    assert await tasks.first_of(OWNER, once(b"body")) == first
    assert await tasks.first_of(OWNER, once(b"other")) is None
    assert await tasks.first_of(Owner(user_id="somebody else", key_id="k"), once(b"body")) is None


async def test_of_requests_at_once_with_one_key_all_get_the_same_task(scene):
    tasks = scene.store.tasks
    waits_before = await scene.store.scheduling.pending_count()
    names = [f"i{number}" for number in range(20)]
    calls = [tasks.submit(request(i), spec(i), OWNER, repeat=once(b"body")) for i in names]
    assert len(set(await asyncio.gather(*calls))) == 1
    assert await scene.store.scheduling.pending_count() == waits_before + 1


async def test_a_repeat_needs_no_room_in_a_queue_that_is_full(scene):
    tasks, room = scene.store.tasks, Room(queue=2)
    first = await tasks.submit(request("i1"), spec("i1"), OWNER, repeat=once(b"body"), room=room)
    with pytest.raises(QueueFull, match="2 tasks wait, and 2 may") as caught:
        await tasks.submit(request("i2"), spec("i2"), OWNER, room=room)
    assert caught.value.fields["retry_after"] > 0
    assert await tasks.submit(request("i3"), spec("i3"), OWNER, repeat=once(b"body"), room=room) == first


async def test_the_limit_of_one_key_does_not_bind_another(scene):
    tasks, room = scene.store.tasks, Room(key=1)
    other = Owner(user_id=OWNER.user_id, key_id="another key")
    await tasks.submit(request("i1"), spec("i1"), OWNER, room=room)
    with pytest.raises(KeyQueueFull, match="1 tasks of this API key wait"):
        await tasks.submit(request("i2"), spec("i2"), OWNER, room=room)
    await tasks.submit(request("i3"), spec("i3"), other, room=room)
    await tasks.cancel("i1")
    await tasks.submit(request("i4"), spec("i4"), OWNER, room=room)


async def test_a_count_that_an_engine_made_up_shuts_nobody_out(scene):
    tasks, room = scene.store.tasks, Room(key=5)
    await scene.store._connection.command("HSET", Keys(scene.store.pool).queued, room.tag(OWNER.key_id), 1000)
    assert await tasks.submit(request("i1"), spec("i1"), OWNER, room=room) == "i1"


FUTURE = Speaks(version=7, oldest=6, release="7.0")


async def register(scene, version, oldest, **more):
    about = msgspec.structs.replace(info(), protocol_version=version, protocol_oldest=oldest)
    return await scene.store.engines.register(about, EngineReport(), more.pop("held", {}), 30, **more)


@pytest.mark.parametrize(("version", "oldest"), [(6, 5), (7, 6), (8, 7)])
async def test_neighbouring_versions_register(store, version, oldest):
    await Scheduling(store._connection, Keys(store.pool), FUTURE).lead("me", 30)
    await register(Scene(store), version, oldest)
    assert (await store.engines.get("box")).status == "running"


@pytest.mark.parametrize(("version", "oldest", "side"), [(5, 4, "worker daemon"), (9, 8, "control plane")])
async def test_a_version_that_does_not_fit_is_refused_on_both_sides(scene, version, oldest, side):
    store = scene.store
    await scene.assign()
    await store._connection.command("DEL", Keys(store.pool).leader)
    await Scheduling(store._connection, Keys(store.pool), FUTURE).lead("new", 30)
    with pytest.raises(IncompatibleVersion, match=f"Update the {side}"):
        await register(scene, version, oldest)
    engine = await store.engines.get("box")
    assert (engine.status, engine.info.speaks.version) == ("refused", version)
    assert await store.scheduling.expired() == []  # it has no lease, and nobody waits for its end
    orphaned = [e for e in await scene.wake() if e.kind is WakeKind.ORPHANED]
    assert [e.task_id for e in orphaned] == ["t1"]


async def test_only_the_leader_assigns(scene):
    scene.epoch += 1
    assert (await scene.assign()).refusal == "NOT_LEADER"
    assert await scene.store.scheduling.lead("other", 30) is None


async def test_a_lead_whose_reply_was_lost_is_held(store, monkeypatch):
    lose_replies(store, monkeypatch)
    epoch = await store.scheduling.lead("me", 30)
    assert epoch is not None
    assert await store.scheduling.lead("me", 30, epoch) == epoch
    assert await store.scheduling.lead("me", 30) is None, "another call of the same holder"
    assert await store.scheduling.lead("other", 30) is None
    await store._connection.command("DEL", store._keys.leader)
    assert await store.scheduling.lead("me", 30, epoch) > epoch, "it ran out before it was renewed"


async def test_a_task_is_assigned_once(scene):
    assert (await scene.assign()).attempt == 1
    assert (await scene.assign()).refusal == "NOT_QUEUED"


async def test_an_engine_without_a_lease_gets_nothing(scene):
    await scene.store.engines.deregister("box", scene.session)
    assert (await scene.assign()).refusal == "ENGINE_GONE"


async def test_accept_and_finish_may_be_repeated(scene):
    await scene.assign()
    entry, order = await scene.take()
    for _ in range(2):
        await scene.store.engines.accept(order, "box", entry, S.RUNNING)
    for _ in range(2):
        await scene.store.engines.finish(order, "box", DONE)
    assert len([e for e in await scene.wake() if e.kind is WakeKind.FINISHED]) == 1


async def test_a_stale_attempt_cannot_change_a_task(scene):
    old = await scene.running()
    await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 1, "lost")
    await scene.assign()
    engines = scene.store.engines
    for call in (
        engines.transition("t1", old.attempt, old.token, S.UPLOADING),
        engines.append("t1", old.attempt, old.token, partial=b"1"),
        engines.finish(old, "box", DONE),
        engines.hand_back(old, "box", "0-1", "late"),
    ):
        with pytest.raises(StaleAttempt):
            await call
    view = await scene.store.tasks.read("t1")
    assert (view.state, view.attempt) == (S.SCHEDULED, 2)


async def test_the_number_of_an_attempt_is_not_enough_without_its_token(scene):
    order = await scene.running()
    with pytest.raises(StaleAttempt):
        await scene.store.engines.finish(msgspec.structs.replace(order, token="guess"), "box", DONE)


async def test_an_ended_task_absorbs_what_comes_later(scene):
    order = await scene.running()
    await scene.store.engines.finish(order, "box", DONE)
    with pytest.raises(StaleAttempt):
        await scene.store.engines.append("t1", order.attempt, order.token, partial=b"2")
    assert await scene.store.tasks.cancel("t1") is S.COMPLETED
    assert (await scene.store.tasks.read("t1")).state is S.COMPLETED


async def test_a_move_that_the_table_lacks_is_refused(scene):
    order = await scene.running()
    with pytest.raises(ProtocolRefusal, match="ILLEGAL_MOVE"):
        await scene.store.engines.transition("t1", order.attempt, order.token, S.PREPARING)


async def test_log_lines_arrive_once_and_in_order(scene):
    order = await scene.running()
    lines = [LogLine(number=n, at_ms=n, type=LogType.TASK, text=f"line {n}") for n in (1, 2)]
    for _ in range(2):
        await scene.store.engines.append("t1", order.attempt, order.token, lines=lines, dropped=3)
    view = await scene.store.tasks.read("t1")
    assert [line.text for line in view.logs] == ["line 1", "line 2"]
    assert view.log_dropped == 3


async def test_the_live_log_is_bounded(scene):
    order = await scene.running()
    for number in range(1, 80):
        line = LogLine(number=number, at_ms=0, type=LogType.TASK, text="x" * 8000)
        await scene.store.engines.append("t1", order.attempt, order.token, lines=[line])
    view = await scene.store.tasks.read("t1")
    assert view.logs[-1].number == 79
    assert sum(len(line.text) for line in view.logs) <= 256 * 1024


async def test_a_queued_task_is_cancelled_at_once(scene):
    assert await scene.store.tasks.cancel("t1") is S.CANCELLED
    assert await scene.store.scheduling.pending_count() == 0


async def test_a_cancel_reaches_the_engine_by_inbox_and_by_renewal(scene):
    order = await scene.running()
    assert await scene.store.tasks.cancel("t1", grace_ms=500) is S.RUNNING
    _, found = await scene.store.engines.inbox("box", "0", 1)
    expected = CancelOrder(task_id="t1", attempt=1, grace_ms=500)
    assert [m for _, m in found] == [expected]
    renewal = await scene.store.engines.renew("box", scene.session, TELEMETRY, {"t1": order.attempt}, 30)
    assert (renewal.cancelled, renewal.lost) == ((expected,), frozenset())


async def test_a_cancel_that_would_wait_for_ever_reaches_the_engine_within_bounds(scene):
    order = await scene.running()
    await scene.store.tasks.cancel("t1", grace_ms=10**400)
    _, found = await scene.store.engines.inbox("box", "0", 1)
    renewal = await scene.store.engines.renew("box", scene.session, TELEMETRY, {"t1": order.attempt}, 30)
    assert [each.grace_ms for each in (found[0][1], *renewal.cancelled)] == [CANCEL_GRACE_MAX_MS] * 2


async def test_a_task_that_was_to_be_cancelled_is_not_queued_again(scene):
    await scene.running()
    await scene.store.tasks.cancel("t1")
    assert await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 1, "lost") is S.CANCELLED


async def test_the_loss_of_its_last_attempt_fails_the_task_with_its_reasons(scene):
    await scene.submit("t2", max_attempts=2)
    states = []
    for attempt in (1, 2):
        await scene.running("t2")
        states.append(
            await scene.store.scheduling.requeue(scene.epoch, "t2", "box", attempt, f"power cut {attempt}")
        )
    view = await scene.store.tasks.read("t2")
    assert states == [S.QUEUED, S.FAILED]
    assert view.error_code == "worker_lost"
    assert all(f"power cut {n}" in view.error for n in (1, 2))


async def test_a_loss_before_the_engine_took_the_task_spends_not_even_its_only_attempt(scene):
    await scene.submit("t2", max_attempts=1)
    await scene.assign("t2")
    await scene.store.engines.register(info(), EngineReport(), {}, 30)
    [orphan] = [e for e in await scene.wake() if e.kind is WakeKind.ORPHANED]
    back = await scene.store.scheduling.requeue(scene.epoch, "t2", "box", orphan.attempt, orphan.reason)
    assert back is S.QUEUED
    await scene.running("t2")
    assert await scene.store.scheduling.requeue(scene.epoch, "t2", "box", 2, "power cut") is S.FAILED
    view = await scene.store.tasks.read("t2")
    assert view.error == "The worker was lost while it ran this task: power cut"


async def test_a_task_that_ends_each_daemon_before_it_is_taken_does_not_come_back_for_ever(scene):
    for attempt in range(1, UNTAKEN + 1):
        await scene.assign()
        state = await scene.store.scheduling.requeue(scene.epoch, "t1", "box", attempt, f"lost {attempt}")
        assert state is (S.QUEUED if attempt < UNTAKEN else S.FAILED)
    view = await scene.store.tasks.read("t1")
    assert view.error_code == "poison"
    assert view.error == "6 workers were lost before they took this task, the last one because lost 6"


async def test_a_task_that_a_living_engine_does_not_start_comes_back_however_often(scene):
    for attempt in range(1, UNTAKEN + 2):
        await scene.assign()
        call = scene.store.scheduling.requeue(scene.epoch, "t1", "box", attempt, "not started", code="")
        assert await call is S.QUEUED


async def test_handing_back_spends_no_attempt(scene):
    for _ in range(5):
        await scene.assign()
        entry, order = await scene.take()
        await scene.store.engines.hand_back(order, "box", entry, "drains")
    assert (await scene.store.tasks.read("t1")).state is S.QUEUED


async def test_what_is_queued_again_names_the_attempt_that_is_over(scene):
    await scene.assign()
    entry, order = await scene.take()
    await scene.store.engines.hand_back(order, "box", entry, "drains")
    await scene.assign()
    await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 2, "lost")
    requeued = [e for e in await scene.wake() if e.kind is WakeKind.REQUEUED]
    assert [(e.task_id, e.attempt) for e in requeued] == [("t1", 1), ("t1", 2)]


async def test_an_engine_that_restarts_gives_its_tasks_back(scene):
    await scene.running()
    await scene.store.engines.register(info(), EngineReport(), {}, 30)
    orphaned = [e for e in await scene.wake() if e.kind is WakeKind.ORPHANED]
    assert [(e.task_id, e.engine_id, e.attempt) for e in orphaned] == [("t1", "box", 1)]


async def test_a_loss_that_is_named_again_does_not_touch_the_attempt_after_it(scene):
    """A leader that Redis was away from reads again what it acted upon, and the task may be back on the same engine."""
    await scene.running()
    await scene.store.engines.register(info(), EngineReport(), {}, 30)
    [orphan] = [e for e in await scene.wake() if e.kind is WakeKind.ORPHANED]
    again = (scene.epoch, orphan.task_id, orphan.engine_id, orphan.attempt, orphan.reason)
    assert await scene.store.scheduling.requeue(*again) is S.QUEUED
    session, _ = await scene.store.engines.register(info(), EngineReport(), {}, 30)
    assert (await scene.assign()).attempt == 2
    assert await scene.store.scheduling.requeue(*again) is None
    assert (await scene.store.engines.renew("box", session, TELEMETRY, {"t1": 2}, 30)).lost == frozenset()


async def test_an_engine_that_returns_keeps_what_it_still_runs(scene):
    await scene.running()
    _, lost = await scene.store.engines.register(info(), EngineReport(), {"t1": 1, "other": 4}, 30)
    assert lost == {"other"}
    assert not [e for e in await scene.wake() if e.kind is WakeKind.ORPHANED]


async def test_a_silent_engine_is_reaped_by_the_servers_clock(store):
    scene = Scene(store)
    await scene.set_up(lease_s=-1)
    assert await store.scheduling.expired() == ["box"]
    assert await store.scheduling.reap(scene.epoch, "box")
    with pytest.raises(ProtocolRefusal, match="ENGINE_UNKNOWN"):
        await store.engines.renew("box", scene.session, TELEMETRY, {}, 30)
    assert (await store.engines.get("box")).status == "lost"


async def test_a_valid_lease_is_not_reaped(scene):
    assert not await scene.store.scheduling.reap(scene.epoch, "box")


async def test_renewal_names_the_tasks_to_stop(scene):
    renewal = await scene.store.engines.renew("box", scene.session, TELEMETRY, {"ghost": 1}, 30)
    assert renewal.lost == {"ghost"}


async def test_a_task_is_deleted_after_its_end_only(scene):
    with pytest.raises(Conflict):
        await scene.store.tasks.delete("t1")
    await scene.store.tasks.cancel("t1")
    await scene.store.tasks.delete("t1")
    with pytest.raises(NotFound):
        await scene.store.tasks.read("t1")


async def test_a_task_whose_deletion_lost_its_reply_is_deleted_once(scene, monkeypatch):
    await scene.store.tasks.cancel("t1")
    lose_replies(scene.store, monkeypatch)
    await scene.store.tasks.delete("t1")
    with pytest.raises(NotFound):
        await scene.store.tasks.delete("t1")
    [mark] = await scene.store._connection.command("KEYS", scene.store._keys.removal("*").replace("{", "[{]"))
    assert await scene.store._connection.command("PTTL", mark) > 0, "nobody else would take it away"


async def test_the_token_opens_the_task_of_its_attempt_alone(scene):
    order = await scene.running()
    assert (await scene.store.tasks.check_token("t1", order.token)).attempt == 1
    with pytest.raises(Unauthorized):
        await scene.store.tasks.check_token("t1", "guess")


async def test_pages_go_from_new_to_old(scene):
    for number in range(2, 6):
        await scene.submit(f"t{number}")
    first, more = await scene.store.tasks.after("u1", None, 3)
    rest, more_then = await scene.store.tasks.after("u1", first[-1], 3)
    assert (len(first), more, more_then) == (3, True, False)
    assert [*first, *rest] == sorted([*first, *rest], reverse=True)
    assert sorted(task_id for _, task_id in [*first, *rest]) == [f"t{n}" for n in range(1, 6)]
    back, _ = await scene.store.tasks.after("u1", rest[-1], 3, newer=True)
    assert back == [rest[-2], *reversed(first)][:3]


async def test_priority_goes_before_age(scene):
    await scene.submit("urgent", priority=5)
    assert [s.id for s in await scene.store.scheduling.pending()] == ["urgent", "t1"]


async def test_the_limiter_counts_per_key_and_kind(store):
    states = [await store.limits.hit("k", "run", 2) for _ in range(3)]
    assert [s.allowed for s in states] == [True, True, False]
    assert [s.remaining for s in states] == [1, 0, 0]
    assert (await store.limits.hit("k", "get", 2)).allowed
    assert (await store.limits.hit("k", "free", 0)).allowed
    now_s = time.time()
    assert all(now_s + 50 < state.reset_at <= now_s + 62 for state in states)
