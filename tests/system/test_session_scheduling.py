"""Sessions in the scheduler's loop on a real server, with engines that speak the real protocol."""

import msgspec
import pytest
from helpers import eventually
from scheduling import OWNER, FakeEngine, engine_info, request, scheduling, spec, submit

from stoker.core.messages import EngineId, WorkerId
from stoker.core.sessions import SessionEnd, SessionInfo, session_key
from stoker.core.states import TaskState

SESSION = "sess_1"
KEY = session_key("a", SESSION)


async def call(store, *, opens=False, idle_s=60.0, run_at_ms=0):
    """Submit a task of the session; the first one opens it."""
    task_spec = spec(KEY, session_id=SESSION, opens_session=opens, max_attempts=1)
    task = msgspec.structs.replace(
        request(task_spec), session_id=SESSION, opens_session=opens, run_at_ms=run_at_ms
    )
    info = SessionInfo(
        id=SESSION, user_id="u1", app_id="app", app="t/a", version_id="v", idle_s=idle_s, spec=task_spec
    )
    return await store.tasks.submit(task, task_spec, OWNER, session=info if opens else None)


async def ended(store, task_id, state=TaskState.COMPLETED):
    async def check():
        view = await store.tasks.read(task_id)
        return view if view.state is state else None

    return await eventually(check, f"{task_id} in {state.name}")


async def over(store):
    async def check():
        return (await store.sessions.read(SESSION)).end

    return await eventually(check, "the end of the session")


async def idle(store):
    """Wait until Redis knows that no call is open."""

    async def check():
        return not (await store.sessions.read(SESSION)).open_tasks

    await eventually(check, "the end of all calls")


async def test_all_calls_run_on_one_worker_in_order(store):
    async with FakeEngine(store, engine_info(workers=3)) as engine, scheduling(store) as loop:
        # Who begins to lead reads the queue by its milliseconds, and two calls may have the same.
        await eventually(lambda: loop.counters.rounds, "a first round")
        tasks = [await call(store, opens=True)] + [await call(store) for _ in range(5)]
        await ended(store, tasks[-1])
        assert [task for _, task in engine.ran] == tasks
        assert len({worker for worker, _ in engine.ran}) == 1
        assert engine.loads == [(engine.ran[0][0], KEY)]
        session = await store.sessions.read(SESSION)
        assert (session.worker_id, session.call_count) == (engine.ran[0][0], 6)


async def test_the_instance_is_unloaded_and_the_worker_given_back_at_the_end(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        await ended(store, await call(store, opens=True))
        other = await submit(store, spec("b"))
        await store.sessions.end(SESSION, SessionEnd.ENDED)
        await ended(store, other)
        await eventually(lambda: engine.evicted == [KEY], "the unloading")


async def test_the_idle_time_ends_a_session(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        await ended(store, await call(store, opens=True, idle_s=0.01))
        assert await over(store) is SessionEnd.EXPIRED
        await eventually(lambda: engine.evicted == [KEY], "the unloading")


async def test_a_call_that_runs_keeps_the_session(store):
    async with FakeEngine(store, engine_info(), hold=True) as engine, scheduling(store) as loop:
        task_id = await call(store, opens=True, idle_s=0.01)
        await eventually(lambda: engine.loads, "the load")
        rounds = loop.counters.rounds
        await eventually(lambda: loop.counters.rounds > rounds + 2, "rounds of the clock")
        assert (await store.sessions.read(SESSION)).end is None
        engine.release.set()
        await ended(store, task_id)
        assert await over(store) is SessionEnd.EXPIRED


async def test_calls_that_wait_fail_when_the_session_is_ended_and_the_one_that_runs_completes(store):
    async with FakeEngine(store, engine_info(), hold=True) as engine, scheduling(store) as loop:
        first = await call(store, opens=True)
        await eventually(lambda: engine.loads, "the load")
        second = await call(store)
        await store.sessions.end(SESSION, SessionEnd.ENDED)
        view = await ended(store, second, TaskState.FAILED)
        assert view.error_code == "SESSION_ENDED"
        rounds = loop.counters.rounds
        await eventually(lambda: loop.counters.rounds > rounds + 1, "a further round")
        assert engine.evicted == []
        engine.release.set()
        await ended(store, first)
        await eventually(lambda: engine.evicted == [KEY], "the unloading")


async def test_a_lost_engine_ends_its_sessions_and_fails_their_calls(store):
    async with scheduling(store):
        async with FakeEngine(store, engine_info(), hold=True) as engine:
            first = await call(store, opens=True)
            second = await call(store)
            await eventually(lambda: engine.loads, "the load")
            await engine.renew(lease_s=0.001)
        views = [await ended(store, task_id, TaskState.FAILED) for task_id in (first, second)]
        assert [view.error_code for view in views] == ["worker_lost", "worker_lost"]
        assert await over(store) is SessionEnd.WORKER_LOST


async def test_a_restarted_engine_ends_the_session_whose_call_it_ran(store):
    async with scheduling(store):
        async with FakeEngine(store, engine_info(), hold=True) as engine:
            first = await call(store, opens=True)
            await eventually(lambda: engine.loads, "the load")
        async with FakeEngine(store, engine_info()) as again:
            await again.renew(lease_s=600)  # what ends the session is not the loss of this one
            view = await ended(store, first, TaskState.FAILED)
            assert view.error_code == "worker_lost"
            assert await over(store) is SessionEnd.WORKER_LOST


async def test_a_first_call_that_is_handed_back_is_placed_again(store):
    async with FakeEngine(store, engine_info("full"), hand_back=True), scheduling(store) as loop:
        task_id = await call(store, opens=True)
        await eventually(lambda: loop.mirror.queues.backlog(KEY), "the task in the queue again")
        async with FakeEngine(store, engine_info("good")):
            assert (await ended(store, task_id)).worker_id == "good-cpu-0"
        assert (await store.sessions.read(SESSION)).worker_id == "good-cpu-0"


@pytest.mark.parametrize("silent", [False, True], ids=["starts anew", "falls silent"])
async def test_a_first_call_that_its_engine_had_not_taken_is_placed_again(store, silent):
    async with scheduling(store):
        async with FakeEngine(store, engine_info("lost"), deaf=True) as engine:
            task_id = await call(store, opens=True)
            await ended(store, task_id, TaskState.SCHEDULED)
            if silent:
                await engine.renew(lease_s=0.001)
        async with FakeEngine(store, engine_info("good" if silent else "lost")) as again:
            await ended(store, task_id)
            assert [task for _, task in again.ran] == [task_id]
        session = await store.sessions.read(SESSION)
        assert (session.worker_id, session.end) == (again.ran[0][0], None)


async def test_a_first_call_that_is_cancelled_in_the_queue_ends_the_session(store):
    async with scheduling(store):
        first, second = await call(store, opens=True), await call(store)
        await store.tasks.cancel(first)
        assert await over(store) is SessionEnd.ENDED
        assert (await ended(store, second, TaskState.FAILED)).error_code == "SESSION_ENDED"


@pytest.mark.parametrize("running", [True, False], ids=["while a call runs", "while idle"])
async def test_a_new_leader_knows_the_sessions(store, running):
    async with FakeEngine(store, engine_info(workers=2), hold=running) as engine:
        async with scheduling(store):
            first = await call(store, opens=True)
            await eventually(lambda: engine.loads, "the load")
            if not running:
                await ended(store, first)
                await idle(store)
        engine.release.set()
        await ended(store, first)  # unseen by any scheduler
        async with scheduling(store) as loop:
            plain = [await submit(store, spec(key)) for key in "bcde"]
            for task_id in plain:
                await ended(store, task_id)
            second = await call(store)
            await ended(store, second)
            places = {task: worker for worker, task in engine.ran}
            assert places[first] == places[second]
            assert places[first] not in {places[task_id] for task_id in plain}
            await idle(store)
            await store.sessions.end(SESSION, SessionEnd.ENDED)
            await eventually(lambda: engine.evicted == [KEY], "the unloading")
            assert SESSION not in loop.mirror.sessions


async def test_a_new_leader_finds_the_worker_that_the_old_one_could_not_write_down(store):
    async with FakeEngine(store, engine_info(workers=2)) as engine:
        async with scheduling(store) as loop:
            await ended(store, await call(store, opens=True))
            await idle(store)
            await store.sessions.bind(loop._epoch, SESSION, EngineId(""), WorkerId(""))
        async with scheduling(store):
            await ended(store, await call(store))
            assert len({worker for worker, _ in engine.ran}) == 1
            assert (await store.sessions.read(SESSION)).worker_id == engine.ran[0][0]


async def test_a_new_leader_unloads_the_instance_of_a_session_that_ended_unseen(store):
    async with FakeEngine(store, engine_info()) as engine:
        async with scheduling(store):
            await ended(store, await call(store, opens=True))
        await store.sessions.end(SESSION, SessionEnd.ENDED)
        async with scheduling(store):
            await eventually(lambda: engine.evicted == [KEY], "the unloading")


async def test_an_engine_that_drains_ends_its_sessions(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store):
        await ended(store, await call(store, opens=True))
        await engine.report(draining=True)
        assert await over(store) is SessionEnd.WORKER_LOST


async def test_a_session_goes_on_after_a_refused_assignment(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store) as loop:
        await ended(store, await call(store, opens=True))
        loop.mirror.fleet.suspect(EngineId("box"))
        await ended(store, await call(store))
        assert len(engine.ran) == 2


async def test_a_new_leader_gives_no_worker_to_a_session_that_ended_while_its_first_call_waited(store):
    async with scheduling(store) as loop:
        first = await call(store, opens=True)
        await eventually(lambda: first in loop.mirror.queues, "the call in the queue")
    await store.sessions.end(SESSION, SessionEnd.ENDED)  # the gateway does no more than this
    async with FakeEngine(store, engine_info()) as engine, scheduling(store) as loop:
        assert (await ended(store, first, TaskState.FAILED)).error_code == "SESSION_ENDED"
        await ended(store, await submit(store, spec("b")))
        assert engine.loads == [("box-cpu-0", "b")]
        await eventually(lambda: SESSION not in loop.mirror.sessions, "the session to be forgotten")


async def test_a_first_call_whose_time_comes_after_the_end_of_its_session_fails(store):
    async with FakeEngine(store, engine_info()) as engine, scheduling(store) as loop:
        first = await call(store, opens=True, run_at_ms=await store.now_ms() + 1500)
        await eventually(lambda: loop._due_ms, "the loop to know of it")
        await store.sessions.end(SESSION, SessionEnd.ENDED)
        assert (await ended(store, first, TaskState.FAILED)).error_code == "SESSION_ENDED"
        assert engine.loads == []
