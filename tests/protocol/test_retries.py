"""What becomes of a task whose attempt failed, and of one that is to run later."""

import re

import pytest
from protocol_scene import DONE, OWNER, TELEMETRY, request, spec

from stoker.core.errors import ProtocolRefusal, StaleAttempt
from stoker.core.messages import Outcome
from stoker.core.states import TaskState as S
from stoker.protocol import WakeKind

pytestmark = pytest.mark.protocol


def failed(reason, *, kills=False):
    return Outcome(state=S.FAILED, error=reason, error_code="app_crashed", retryable=True, kills=kills)


async def test_a_failure_that_may_pass_is_tried_again_and_says_so(scene):
    await scene.submit("t2", retry_delay_s=600)
    order = await scene.running("t2")
    await scene.store.engines.finish(order, "box", failed("no network"))
    view = await scene.store.tasks.read("t2")
    assert view.state is S.QUEUED
    assert re.fullmatch(r"it is tried again at \S+Z: attempt 1 failed \(no network\)", view.queue_reason)
    assert round((view.due_ms - view.updated_ms) / 1000) == 600
    [event] = [e for e in await scene.wake() if e.kind is WakeKind.DELAYED]
    assert (event.task_id, event.attempt, event.due_ms) == ("t2", 1, view.due_ms)


async def test_the_pause_doubles_with_each_attempt(scene):
    pauses = []
    await scene.submit("t2", retry_delay_s=4, max_attempts=9)
    for attempt in range(1, 9):
        order = await scene.running("t2")
        await scene.store.engines.finish(order, "box", failed(f"again {attempt}"))
        view = await scene.store.tasks.read("t2")
        pauses.append(round((view.due_ms - view.updated_ms) / 1000))
        await scene.come("t2")
    assert pauses == [4, 8, 16, 32, 64, 128, 256, 300]


async def test_a_task_whose_gpu_memory_ran_out_gets_one_more_attempt_however_many_are_left(scene):
    await scene.submit("t2", max_attempts=9)
    short = Outcome(
        state=S.FAILED,
        error="CUDA out of memory",
        error_code="gpu_out_of_memory",
        retryable=True,
        vram_short=24,
    )
    order = await scene.running("t2")
    for _ in range(2):  # a repeat does no harm
        await scene.store.engines.finish(order, "box", short)
    assert (await scene.store.tasks.read("t2")).state is S.QUEUED
    [event] = [e for e in await scene.wake() if e.kind is WakeKind.DELAYED]
    assert event.measures.vram_short == 24
    await scene.come("t2")
    order = await scene.running("t2")
    await scene.store.engines.finish(order, "box", short)
    view = await scene.store.tasks.read("t2")
    assert (view.state, view.error_code) == (S.FAILED, "gpu_out_of_memory")
    assert view.error.startswith("The task failed in each of its 2 attempts: [attempt 1 on ")
    assert view.error.count("CUDA out of memory") == 2


async def test_a_task_that_kills_its_process_three_times_is_not_run_again(scene):
    await scene.submit("t2", max_attempts=9)
    for attempt in (1, 2, 3):
        order = await scene.running("t2")
        if attempt == 2:
            await scene.store.scheduling.requeue(scene.epoch, "t2", "box", 2, "power cut 2")
        else:
            await scene.store.engines.finish(order, "box", failed(f"SIGKILL {attempt}", kills=True))
            await scene.come("t2")
    view = await scene.store.tasks.read("t2")
    assert (view.state, view.error_code) == (S.FAILED, "poison")
    assert all(
        f"[attempt {n} on box-cpu-0] {why}" in view.error
        for n, why in ((1, "SIGKILL 1"), (2, "power cut 2"), (3, "SIGKILL 3"))
    )


@pytest.mark.parametrize("start", ["", "x", "xx"])
async def test_a_long_error_is_cut_between_characters(scene, start):
    await scene.submit("t2", max_attempts=2)
    for _ in range(2):
        order = await scene.running("t2")
        await scene.store.engines.finish(order, "box", failed(start + "错" * 400))
        await scene.come("t2")
    view = await scene.store.tasks.read("t2")
    kept = start + "错" * ((1000 - len(start)) // 3)
    assert view.error == "The task failed in each of its 2 attempts: " + "".join(
        f"[attempt {number} on box-cpu-0] {kept} " for number in (1, 2)
    )


async def test_a_task_with_one_attempt_fails_in_the_words_of_its_failure(scene):
    await scene.submit("t2", max_attempts=1)
    order = await scene.running("t2")
    await scene.store.engines.finish(order, "box", failed("no network"))
    view = await scene.store.tasks.read("t2")
    assert (view.state, view.error, view.error_code) == (S.FAILED, "no network", "app_crashed")


async def test_a_task_that_was_to_be_cancelled_is_not_tried_again(scene):
    order = await scene.running()
    await scene.store.tasks.cancel("t1")
    await scene.store.engines.finish(order, "box", failed("no network"))
    assert (await scene.store.tasks.read("t1")).state is S.CANCELLED


async def test_a_task_for_later_joins_the_queue_when_its_time_has_come(scene):
    at_ms = await scene.store.now_ms() + 3_600_000
    later = request("t2", run_at_ms=at_ms)
    await scene.store.tasks.submit(later, spec("t2"), OWNER)
    view = await scene.store.tasks.read("t2")
    assert (view.state, view.due_ms) == (S.QUEUED, at_ms)
    assert re.fullmatch(r"it is to run at \S+Z, not before", view.queue_reason)
    assert await scene.store.scheduling.release(scene.epoch, at_ms - 3_000_000) == ([], at_ms)
    assert (await scene.store.scheduling.release(scene.epoch, at_ms))[0] == [], "the server's clock counts"
    assert await scene.store.scheduling.delayed_count() == 1
    await scene.come("t2", release=False)
    [released], _ = await scene.store.scheduling.release(scene.epoch, at_ms)
    assert (released.id, released.created_ms) == ("t2", at_ms), "its wait begins with its time"
    assert 0 < released.queued_ms < at_ms
    assert await scene.store.scheduling.delayed_count() == 0
    assert "scheduler" in (await scene.store.tasks.read("t2")).queue_reason


async def test_a_task_for_later_is_cancelled_at_once(scene):
    later = request("t2", run_at_ms=await scene.store.now_ms() + 3_600_000)
    await scene.store.tasks.submit(later, spec("t2"), OWNER)
    assert await scene.store.tasks.cancel("t2") is S.CANCELLED
    assert await scene.store.scheduling.delayed_count() == 0


async def expire(scene, attempt=1):
    return await scene.store.scheduling.expire(scene.epoch, "t1", "box", attempt, "run_timeout", "too long")


async def test_an_attempt_whose_time_is_over_is_ended_and_its_engine_told(scene):
    order = await scene.running()
    assert await expire(scene) is S.FAILED
    assert await expire(scene) is None
    view = await scene.store.tasks.read("t1")
    assert (view.error_code, view.error) == ("run_timeout", "too long")
    renewal = await scene.store.engines.renew("box", scene.session, TELEMETRY, {"t1": order.attempt}, 30)
    assert renewal.lost == {"t1"}
    with pytest.raises(StaleAttempt):
        await scene.store.engines.finish(order, "box", DONE)


async def test_an_attempt_that_was_to_be_cancelled_ends_so(scene):
    await scene.running()
    await scene.store.tasks.cancel("t1")
    assert await expire(scene) is S.CANCELLED


async def test_a_former_leader_and_a_former_attempt_end_nothing(scene):
    await scene.running()
    assert await expire(scene, attempt=2) is None
    scene.epoch -= 1
    with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
        await expire(scene)
    assert (await scene.store.tasks.read("t1")).state is S.RUNNING


async def test_the_time_in_the_queue_begins_anew_after_an_attempt(scene):
    [fresh] = await scene.store.scheduling.pending()
    await scene.running()
    await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 1, "lost")
    [again] = await scene.store.scheduling.pending()
    assert (fresh.queued_ms, again.created_ms) == (0, fresh.created_ms)
    assert again.queued_ms >= fresh.created_ms


async def test_the_time_in_the_queue_begins_anew_after_an_attempt_that_is_handed_back(scene):
    order = await scene.running()
    await scene.store.engines.hand_back(order, "box", "0-1", "drains")
    back_ms = (await scene.store.tasks.read("t1")).updated_ms
    [event] = [e for e in await scene.wake() if e.kind is WakeKind.REQUEUED]
    [as_a_new_leader_reads_it] = await scene.store.scheduling.pending()
    for told in (event.spec, as_a_new_leader_reads_it):
        assert back_ms - 1000 <= told.queued_ms <= back_ms + 1000


@pytest.mark.parametrize("told", ["nonsense", "-5", "9" * 18, "9" * 400])
async def test_no_engine_says_that_a_task_came_back_later_than_now(scene, told):
    await scene.store._connection.command("HSET", scene.store._keys.task("t1"), "returned", told)
    [waiting] = await scene.store.scheduling.pending()
    assert 0 <= waiting.queued_ms <= await scene.store.now_ms()


@pytest.mark.parametrize("state", [S.RUNNING, S.UPLOADING])
async def test_a_task_with_one_attempt_that_may_have_begun_is_not_started_again(scene, state):
    await scene.submit("t2", max_attempts=1)
    order = await scene.running("t2")
    await scene.store.engines.transition("t2", order.attempt, order.token, state)
    await scene.store.engines.hand_back(order, "box", "0-1", "the worker is draining")
    view = await scene.store.tasks.read("t2")
    assert (view.state, view.error_code) == (S.FAILED, "worker_lost")
    assert view.error == (
        "The worker had to stop this task, which may not be started a second time (max_attempts is 1): "
        "the worker is draining"
    )
    assert [e.task_id for e in await scene.wake() if e.kind is WakeKind.FINISHED] == ["t2"]
    assert not (await scene.store.engines.get("box")).tasks


@pytest.mark.parametrize(("max_attempts", "state"), [(1, S.SETTING_UP), (2, S.RUNNING)])
async def test_a_task_that_has_not_begun_or_has_attempts_left_is_handed_back_unspent(
    scene, max_attempts, state
):
    await scene.submit("t2", max_attempts=max_attempts)
    for _ in range(3):
        await scene.assign("t2")
        entry, order = await scene.take()
        await scene.store.engines.accept(order, "box", entry, state)
        await scene.store.engines.hand_back(order, "box", entry, "drains")
        assert (await scene.store.tasks.read("t2")).state is S.QUEUED


async def test_a_task_that_was_not_started_waits_on(scene):
    await scene.assign()
    entry, order = await scene.take()
    await scene.store.engines.hand_back(order, "box", entry, "drains")
    assert [spec.queued_ms for spec in await scene.store.scheduling.pending()] == [0]
