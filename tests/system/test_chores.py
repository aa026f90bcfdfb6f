"""What the clock asks of the leader, on a real server, one look at a time."""

import msgspec
import pytest
from scheduling import FakeEngine, engine_info, spec, submit

from stoker.core.messages import Assignment, EngineId, TaskId
from stoker.core.states import TaskState
from stoker.log import get_logger
from stoker.protocol import AssignOrder
from stoker_scheduler.actions import Rules
from stoker_scheduler.chores import Chores
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.mirror import Mirror

MINUTE_MS = 60_000


async def in_state(store, epoch, state, **fields):
    """A task that the engine `box` has brought to a state."""
    task_id = await submit(store, spec("a"), **fields)
    [found] = await store.scheduling.assign_many(
        epoch, [AssignOrder(task_id=task_id, engine_id="box", worker_id="box-cpu-0")]
    )
    assert found.attempt == 1
    _, inbox = await store.engines.inbox("box", "0", 10)
    entry, order = next((entry, m) for entry, m in inbox if isinstance(m, Assignment))
    await store.engines.accept(order, EngineId("box"), entry, TaskState.RUNNING)
    if state is not TaskState.RUNNING:
        await store.engines.transition(task_id, 1, order.token, state)
    return task_id


async def look_at(store, epoch, task_id: TaskId, limits, later_ms):
    """One audit by a leader that takes the task over; how many tasks it took back."""
    mirror = Mirror(Rules(), limits)
    now_ms = await store.now_ms()
    mirror.on_engine(await store.engines.get(EngineId("box")), now_ms)
    mirror.restore(await store.tasks.read(task_id), "test/a", now_ms)
    return await Chores(store, mirror, epoch, get_logger("test")).audit(now_ms + later_ms)


@pytest.mark.parametrize(
    ("timeouts", "hold_timeout_s"),
    [
        ({"setup_timeout_s": 900, "run_timeout_s": 120}, 86_400),
        ({"setup_timeout_s": 900, "run_timeout_s": 120}, 60),
        ({"setup_timeout_s": 900, "run_timeout_s": 120, "upload_timeout_s": 1_800}, 60),
        ({"upload_timeout_s": 1_800}, 60),
    ],
)
async def test_an_upload_within_its_own_time_is_left_to_its_worker(store, timeouts, hold_timeout_s):
    epoch, limits = await store.scheduling.lead("test", 60), Limits(hold_timeout_s=hold_timeout_s)
    async with FakeEngine(store, engine_info(), deaf=True):
        task_id = await in_state(store, epoch, TaskState.UPLOADING, **timeouts)
        assert await look_at(store, epoch, task_id, limits, 25 * MINUTE_MS) == 0
        assert (await store.tasks.read(task_id)).state is TaskState.UPLOADING


@pytest.mark.parametrize(("fetch_timeout_s", "later_ms"), [(3_600, 61 * MINUTE_MS), (7_200, 121 * MINUTE_MS)])
async def test_a_worker_may_fetch_the_files_of_an_input_for_as_long_as_it_registered_with(
    store, fetch_timeout_s, later_ms
):
    epoch, limits = await store.scheduling.lead("test", 60), Limits(hold_timeout_s=60)
    info = msgspec.structs.replace(engine_info(), fetch_timeout_s=fetch_timeout_s)
    async with FakeEngine(store, info, deaf=True):
        timeouts = {"run_timeout_s": 120, "input_files": ("/file",)}
        task_id = await in_state(store, epoch, TaskState.RUNNING, **timeouts)
        assert await look_at(store, epoch, task_id, limits, later_ms) == 0
        assert await look_at(store, epoch, task_id, limits, later_ms + 4 * MINUTE_MS) == 1


async def test_an_upload_beyond_every_limit_is_taken_back(store):
    epoch, limits = await store.scheduling.lead("test", 60), Limits(hold_timeout_s=60)
    async with FakeEngine(store, engine_info(), deaf=True):
        task_id = await in_state(store, epoch, TaskState.UPLOADING, setup_timeout_s=900, run_timeout_s=120)
        later_ms = (900 + 120 + 3600 + 120 + 1) * 1000
        assert await look_at(store, epoch, task_id, limits, later_ms) == 1
        assert (await store.tasks.read(task_id)).state is TaskState.QUEUED
