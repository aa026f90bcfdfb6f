"""The scheduler's loop on a real server, with engines that speak the real protocol."""

import asyncio
import time

import pytest
from helpers import eventually
from msgspec import structs
from scheduling import FakeEngine, engine_info, gpu_needs, scheduling, spec, submit
from structlog.testing import capture_logs

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import DrainOrder, EngineId, Outcome
from stoker.core.protocol_version import PROTOCOL_OLDEST
from stoker.core.states import TaskState
from stoker.embedded import EmbeddedServer
from stoker.log import get_logger
from stoker.protocol import Store
from stoker_scheduler.actions import Rules
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.leader import Leader, LeadershipLost
from stoker_scheduler.loop import Loop


async def done(store, task_id):
    async def check():
        view = await store.tasks.read(task_id)
        return view if view.state is TaskState.COMPLETED else None

    return await eventually(check, f"the end of {task_id}")


async def reason_of(store, task_id, part):
    async def check():
        view = await store.tasks.read(task_id)
        return view.queue_reason if part in view.queue_reason else None

    return await eventually(check, f"a reason with {part!r}")


async def test_a_task_reaches_a_worker_and_its_end(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        task_id = await submit(store, spec("a"))
        view = await done(store, task_id)
        assert view.worker_id == "box-cpu-0"
        assert engine.loads == [("box-cpu-0", "a")]


async def test_two_alternating_setups_stay_on_their_own_workers(store):
    async with FakeEngine(store, engine_info(workers=2)) as engine, scheduling(store):
        placed = {}
        for number in range(50):
            key = "ab"[number % 2]
            view = await done(store, await submit(store, spec(key)))
            placed.setdefault(key, set()).add(view.worker_id)
        assert len(engine.loads) == 2
        assert all(len(workers) == 1 for workers in placed.values())
        assert placed["a"] != placed["b"]


async def test_many_short_tasks_run_in_order_on_one_warm_worker(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store) as loop:
        await done(store, await submit(store, spec("a")))
        ids = [await submit(store, spec("a")) for _ in range(200)]
        await done(store, ids[-1])
        assert [task for _, task in engine.ran][1:] == ids
        assert engine.loads == [("box-cpu-0", "a")]
        assert loop.counters.assigned_ahead > 0


async def test_a_task_without_workers_says_so_and_runs_when_one_joins(store):
    async with scheduling(store):
        task_id = await submit(store, spec("a"))
        assert await reason_of(store, task_id, "no worker is registered")
        async with FakeEngine(store, engine_info()):
            await done(store, task_id)


async def test_a_waiting_task_names_the_worker_it_waits_for(store):
    async with FakeEngine(store, engine_info(), hold=True) as engine, scheduling(store):
        first = await submit(store, spec("a"))
        second = await submit(store, spec("a"))
        assert "box-cpu-0" in await reason_of(store, second, "waiting ~")
        other = await submit(store, spec("b"))
        assert "is busy" in await reason_of(store, other, "the only worker that can run this")
        engine.release.set()
        for task_id in (first, second, other):
            await done(store, task_id)


async def test_a_task_that_needs_more_memory_than_any_gpu_has_says_which_is_the_largest(store):
    async with FakeEngine(store, engine_info(gpus=(16,))), scheduling(store):
        task_id = await submit(store, spec("a", needs=gpu_needs(24)))
        reason = await reason_of(store, task_id, "24.0 GB")
        assert reason == "no worker has 24.0 GB of GPU memory; the largest is box-gpu-0 with 16.0 GB"


async def test_a_task_that_nothing_can_run_fails_after_its_no_match_timeout(store):
    async with FakeEngine(store, engine_info()), scheduling(store):
        task_id = await submit(store, spec("a", needs=gpu_needs(8), no_match_timeout_s=0.01))

        async def failed():
            view = await store.tasks.read(task_id)
            return view if view.state is TaskState.FAILED else None

        view = await eventually(failed, "the failure")
        assert "no worker has a GPU" in view.error
        assert view.error_code == "no_match_timeout"


async def test_a_task_that_waits_too_long_fails_with_its_last_reason(store):
    async with FakeEngine(store, engine_info(), hold=True) as engine, scheduling(store):
        first = await submit(store, spec("a"))
        second = await submit(store, spec("b", queue_timeout_s=0.01))

        async def failed():
            view = await store.tasks.read(second)
            return view if view.state is TaskState.FAILED else None

        view = await eventually(failed, "the failure")
        assert "in the queue and was not started" in view.error
        assert view.error_code == "queue_timeout"
        assert "box-cpu-0" in view.error
        engine.release.set()
        await done(store, first)


async def test_a_cancelled_task_leaves_the_queue(store):
    async with scheduling(store) as loop:
        task_id = await submit(store, spec("a"))
        await eventually(lambda: task_id in loop.mirror.queues, "the task in the queue")
        await store.tasks.cancel(task_id)
        await eventually(lambda: task_id not in loop.mirror.queues, "an empty queue")


async def test_tasks_of_a_silent_engine_are_given_to_another(store):
    async with scheduling(store) as loop:
        dead = FakeEngine(store, engine_info("dead"), hold=True)
        async with dead:
            task_id = await submit(store, spec("a"))
            await eventually(lambda: dead.loads, "the load")
            await dead.renew(lease_s=0.001)
        async with FakeEngine(store, engine_info("alive")):
            view = await done(store, task_id)
        assert (view.attempt, view.worker_id) == (2, "alive-cpu-0")
        assert loop.counters.taken_back == 1
        assert loop.mirror.fleet.worker_of(task_id) is None


async def test_no_engine_is_declared_lost_right_after_an_outage(store, monkeypatch):
    """Its lease ran out because Redis was away: it has the time to renew it."""
    wake, away = store.scheduling.wake, []

    async def unless_away(*arguments):
        if away:
            raise away.pop()
        return await wake(*arguments)

    monkeypatch.setattr(store.scheduling, "wake", unless_away)
    async with (
        FakeEngine(store, engine_info(), hold=True) as box,
        scheduling(store, return_grace_s=3600) as loop,
    ):
        await submit(store, spec("a"))
        await eventually(lambda: box.loads, "the load")
        away.append(StoreUnavailable())
        await eventually(lambda: loop.counters.rebuilt > 1, "the loop after the outage")
        await box.renew(lease_s=0.001)
        rounds = loop.counters.rounds
        await eventually(lambda: loop.counters.rounds > rounds + 2, "further rounds, with a tick")
        assert [engine.status for engine in await store.engines.list()] == ["running"]
        await box.renew()
        assert await store.scheduling.expired() == []


async def test_a_draining_engine_gets_nothing_new(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        await done(store, await submit(store, spec("a")))
        await engine.report(draining=True)
        task_id = await submit(store, spec("a"))
        assert "box-cpu-0" in await reason_of(store, task_id, "shutting down")
        await engine.report()
        await done(store, task_id)


async def test_a_drain_outlives_the_scheduler_and_what_waits_goes_elsewhere(store):
    async with FakeEngine(store, engine_info("old")) as old:
        async with scheduling(store):
            assert (await done(store, await submit(store, spec("a")))).worker_id == "old-cpu-0"
            await store.scheduling.drain(EngineId("old"), DrainOrder(reason="new driver"))
            bound = await submit(store, spec("a", workers=("old",)))
            waiting = await submit(store, spec("a"))
            await reason_of(store, waiting, "shutting down")
        await old.report()  # what it says of itself does not undo it
        async with scheduling(store), FakeEngine(store, engine_info("new")):
            assert (await done(store, waiting)).worker_id == "new-cpu-0"
            assert (await done(store, await submit(store, spec("a")))).worker_id == "new-cpu-0"
            assert "old" in await reason_of(store, bound, "shutting down")
        assert len(old.ran) == 1


async def test_an_engine_of_a_version_that_does_not_fit_gets_nothing(store):
    """It was registered while an older scheduler led, which it understood."""
    about = structs.replace(engine_info("old"), protocol_version=PROTOCOL_OLDEST - 1)
    async with FakeEngine(store, about) as old:
        with capture_logs() as logs:
            async with scheduling(store), FakeEngine(store, engine_info("new")):
                for _ in range(3):
                    assert (await done(store, await submit(store, spec("a")))).worker_id == "new-cpu-0"
        told = [entry for entry in logs if entry["event"] == Event.ENGINE_REFUSED]
        assert [entry["engine"] for entry in told] == ["old"]
        assert "Update the worker daemon" in told[0]["reason"]
        assert old.ran == []


async def test_a_task_handed_back_goes_to_another_worker(store):
    async with (
        FakeEngine(store, engine_info("bad"), hand_back=True),
        FakeEngine(store, engine_info("good")),
        scheduling(store),
    ):
        ids = [await submit(store, spec("a")) for _ in range(3)]
        for task_id in ids:
            assert (await done(store, task_id)).worker_id == "good-cpu-0"


async def test_a_task_bound_to_an_unknown_worker_names_the_known_ones(store):
    async with FakeEngine(store, engine_info()), scheduling(store):
        task_id = await submit(store, spec("a", workers=("x",)))
        reason = await reason_of(store, task_id, "unknown")
        assert reason == "workers: ['x'] is unknown; known: box-cpu-0"


async def test_a_new_leader_finds_the_queue_and_what_runs(store):
    async with FakeEngine(store, engine_info(), hold=True) as engine:
        async with scheduling(store):
            first = await submit(store, spec("a"))
            await eventually(lambda: engine.loads, "the load")
            second = await submit(store, spec("a"))
        async with scheduling(store) as loop:
            await eventually(lambda: loop.mirror.fleet.worker_of(first), "the running task")
            await eventually(lambda: second in loop.mirror.queues, "the waiting task")
            engine.release.set()
            await done(store, first)
            await done(store, second)
        assert len(engine.loads) == 1


async def test_tasks_orphaned_while_nobody_led_are_taken_back(store):
    async with FakeEngine(store, engine_info(), hold=True) as engine, scheduling(store):
        task_id = await submit(store, spec("a"))
        await eventually(lambda: engine.loads, "the load")
    async with FakeEngine(store, engine_info()), scheduling(store):  # registers anew, holding nothing
        view = await done(store, task_id)
        assert view.attempt == 2


async def test_an_unused_instance_is_unloaded(store):
    rules = Rules(idle_unload_s=0.01)
    async with FakeEngine(store, engine_info()) as engine, scheduling(store, rules):
        await done(store, await submit(store, spec("a")))
        await eventually(lambda: engine.evicted == ["a"], "the eviction")


async def test_a_full_worker_evicts_the_instance_that_nobody_wants(store):
    async with FakeEngine(store, engine_info(residents=1)) as engine, scheduling(store):
        await done(store, await submit(store, spec("a")))
        await done(store, await submit(store, spec("b")))
        assert engine.evicted == ["a"]


async def test_an_engine_that_refuses_is_read_again(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store) as loop:
        await done(store, await submit(store, spec("a")))
        await engine.renew(lease_s=0.001)  # assign refuses it, until it is renewed or reaped
        task_id = await submit(store, spec("a"))
        await eventually(
            lambda: loop.counters.refused or not loop.mirror.fleet.engines[EngineId("box")].running,
            "a refusal",
        )
        async with FakeEngine(store, engine_info("other")):
            await done(store, task_id)


class Clock:
    """The wall clock, and what a test adds to it."""

    def __init__(self):
        self.ahead_s = 0

    def __call__(self):
        return time.time_ns() // 1_000_000 + self.ahead_s * 1000


async def test_an_assignment_that_a_living_engine_never_starts_goes_to_another(store):
    clock = Clock()
    async with FakeEngine(store, engine_info("deaf"), deaf=True), scheduling(store, clock=clock) as loop:
        task_id = await submit(store, spec("a"))
        await eventually(lambda: loop.mirror.fleet.worker_of(task_id), "the assignment")
        async with FakeEngine(store, engine_info("good")):
            clock.ahead_s = 61
            view = await done(store, task_id)
    assert (view.worker_id, view.attempt) == ("good-cpu-0", 2)


async def test_a_task_that_is_held_beyond_every_limit_is_taken_back(store):
    clock, limits = Clock(), Limits(hold_timeout_s=100)
    async with (
        FakeEngine(store, engine_info("stuck"), hold=True) as stuck,
        scheduling(store, clock=clock, limits=limits),
    ):
        task_id = await submit(store, spec("a"))
        await eventually(lambda: stuck.loads, "the load")
        async with FakeEngine(store, engine_info("good")):
            clock.ahead_s = 200
            assert (await done(store, task_id)).worker_id == "good-cpu-0"


async def test_a_run_that_its_worker_does_not_end_in_time_is_ended_by_the_scheduler(store):
    clock = Clock()
    async with FakeEngine(store, engine_info(), hold=True) as engine, scheduling(store, clock=clock) as loop:
        task_id = await submit(store, spec("a"), run_timeout_s=30)
        held = await eventually(lambda: loop.mirror.fleet.held(task_id), "the assignment")
        await eventually(lambda: held.running_ms, "the run")
        clock.ahead_s = 30 + 120 + 1

        async def failed():
            view = await store.tasks.read(task_id)
            return view if view.state is TaskState.FAILED else None

        view = await eventually(failed, "the failure")
        assert view.error_code == "run_timeout"
        assert "did not end within 30 s, and box-cpu-0 did not end it" in view.error
        assert (await store.engines.get(EngineId("box"))).tasks == {}
        engine.release.set()  # its own word comes too late


async def test_a_leader_whose_write_is_refused_stops(store):
    async def lose():
        async with FakeEngine(store, engine_info()), scheduling(store) as loop:
            await eventually(lambda: loop.counters.rounds, "a first round")
            await store.scheduling.resign("test", loop._epoch)
            await store.scheduling.lead("other", 60)
            await submit(store, spec("a"))
            await eventually(loop.task.done, "the end of the loop")

    with pytest.raises(LeadershipLost):
        await lose()


async def test_the_loop_goes_on_after_the_server_was_restarted(tmp_path):
    server = EmbeddedServer(tmp_path)
    await server.start()
    opened = await Store.open(server.url, "restart")
    try:
        async with scheduling(opened) as loop:
            first = await submit(opened, spec("a"))
            await eventually(lambda: first in loop.mirror.queues, "the task in the queue")
            await server.stop()
            await server.start()
            await eventually(lambda: loop.counters.rebuilt > 1 and first in loop.mirror.queues, "a rebuild")
            async with FakeEngine(opened, engine_info()):
                await done(opened, first)
    finally:
        await opened.close()
        await server.stop()


async def test_a_second_scheduler_stands_by_and_takes_over(store):
    log = get_logger("test")
    stops = [asyncio.Event(), asyncio.Event()]
    leaders = [Leader(store.scheduling, f"s{i}", 5.0, log) for i in range(2)]
    tasks = [
        asyncio.create_task(leader.run(Loop(store, Rules(), log), stop))
        for leader, stop in zip(leaders, stops, strict=True)
    ]
    await eventually(lambda: sum(leader.epoch is not None for leader in leaders) == 1, "one leader")
    first = next(i for i, leader in enumerate(leaders) if leader.epoch is not None)
    stops[first].set()
    await eventually(lambda: leaders[1 - first].epoch is not None, "the other one to lead")
    async with FakeEngine(store, engine_info()):
        await done(store, await submit(store, spec("a")))
    stops[1 - first].set()
    await asyncio.gather(*tasks)


class Idle:
    """Work that decides nothing."""

    def __init__(self):
        self.epochs = []

    async def run(self, epoch):
        self.epochs.append(epoch)
        await asyncio.Event().wait()

    def deaf_s(self):
        return 0.0

    def on_store_lost(self):
        pass


async def test_a_leader_that_slept_too_long_gives_up_what_its_renewal_took(store, monkeypatch):
    resigned, resign = [], store.scheduling.resign

    async def recorded(holder, epoch):
        resigned.append(epoch)
        await resign(holder, epoch)

    monkeypatch.setattr(store.scheduling, "resign", recorded)
    work, stop = Idle(), asyncio.Event()
    leading = asyncio.create_task(Leader(store.scheduling, "s", 3.0, get_logger("test")).run(work, stop))
    await eventually(lambda: work.epochs, "the lead")
    await resign("s", work.epochs[0])  # as if its time had run out
    await eventually(lambda: len(work.epochs) == 2, "the work's second beginning")
    assert resigned == [work.epochs[0] + 1]
    assert work.epochs[1] == work.epochs[0] + 2
    stop.set()
    await leading


async def test_a_task_that_failed_for_now_is_assigned_again(store):
    lost = Outcome(state=TaskState.FAILED, error="no network", retryable=True)
    async with FakeEngine(store, engine_info(), fails=lost) as engine, scheduling(store):
        task_id = await submit(store, spec("a", retry_delay_s=0.2))
        await reason_of(store, task_id, "it is tried again at")
        engine.fails = None
        assert (await done(store, task_id)).attempt > 1


async def test_an_engine_that_writes_nonsense_is_lost_and_the_scheduler_goes_on(store):
    call, keys = store._connection.command, store._keys
    async with FakeEngine(store, engine_info("bad")) as bad, scheduling(store) as loop:
        await eventually(lambda: "bad" in loop.mirror.fleet.engines, "the engine")
        await call("HSET", keys.engine("bad"), "info", "{")
        await bad.report()
        await call("XADD", keys.wake, "*", "k", "session", "session", "s", "reason", "x")
        await eventually(lambda: "bad" not in loop.mirror.fleet.engines, "the loss of it")
        async with FakeEngine(store, engine_info("good")):
            view = await done(store, await submit(store, spec("a")))
            assert view.engine_id == "good"
        assert loop.counters.rebuilt == 1


async def test_a_worker_on_which_everything_fails_gets_no_tasks_until_it_is_released(store):
    lost = Outcome(state=TaskState.FAILED, error="no network", retryable=True, at_fault=True)
    rules = Rules(quarantine_failures=2)
    async with FakeEngine(store, engine_info(), fails=lost) as engine:
        async with scheduling(store, rules):
            task_id = await submit(store, spec("a", max_attempts=99))
            await submit(store, spec("a", max_attempts=99))
            await reason_of(store, task_id, "2 tasks in a row failed there, and not by their apps")
            engine.fails = None
        async with scheduling(store, rules):  # the next leader knows it
            await reason_of(store, await submit(store, spec("b")), "the last one: no network")
            [found] = (await store.quarantines.list()).values()
            assert (found.worker_id, found.failures, found.reason) == ("box-cpu-0", 2, "no network")
            await store.quarantines.release(found.worker_id)
            await done(store, task_id)
            assert await store.quarantines.list() == {}


async def test_an_attempt_that_failed_does_not_use_up_the_time_in_the_queue(store):
    lost = Outcome(state=TaskState.FAILED, error="no network", retryable=True)
    async with FakeEngine(store, engine_info(), fails=lost, hold=True) as engine, scheduling(store) as loop:
        task_id = await submit(store, spec("a", queue_timeout_s=1, max_attempts=99))
        await eventually(lambda: engine.loads, "the load")
        view = await store.tasks.read(task_id)

        async def late():
            return await store.now_ms() > view.created_ms + 1000 and not len(loop.mirror.deadlines)

        await eventually(late, "the first time in the queue is over")
        engine.release.set()

        async def again():
            return (await store.tasks.read(task_id)).attempt > 1

        await eventually(again, "a second attempt")
        engine.fails = None
        assert (await done(store, task_id)).state is TaskState.COMPLETED
