"""A session's attempts on one worker: the process is its own, and no other one stands in for it."""

import pytest
from recorders import order
from unit.worker.test_execution import Scene
from unit.worker.test_residency import Scene as GpuScene

from stoker.core.errors import NoCapacity
from stoker.core.sessions import session_key
from stoker.core.states import ResidentState
from stoker.core.states import TaskState as S
from stoker_worker.instance_errors import AppError, InstanceLost

KEY = session_key("s", "sess_1")
FIRST = {"setup_key": KEY, "session_id": "sess_1", "opens_session": True}
LATER = {"setup_key": KEY, "session_id": "sess_1"}


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    await made.residency.stop_all("test over")


@pytest.fixture
async def gpu():
    made = GpuScene()
    yield made
    await made.residency.stop_all("test over")


async def test_the_first_task_takes_a_warm_instance_over(scene):
    await scene.run()
    calls = await scene.run(task_id="t2", **FIRST)
    assert calls[0] == ("accept", S.RUNNING)
    assert scene.residents() == {KEY: ResidentState.IDLE}


async def test_the_first_task_loads_an_instance_where_none_is_warm(scene):
    await scene.run(**FIRST)
    assert scene.residents() == {KEY: ResidentState.IDLE}
    assert not scene.outcome.instance_ended


async def test_later_tasks_run_on_the_same_instance(scene):
    await scene.run(**FIRST)
    await scene.run(task_id="t2", **LATER)
    assert scene.outcome.state is S.COMPLETED
    assert scene.machine.steps.count("start") == 1


async def test_a_later_task_does_not_take_a_plain_instance(scene):
    await scene.run()
    await scene.run(task_id="t2", **LATER)
    assert (scene.outcome.state, scene.outcome.error_code) == (S.FAILED, "worker_lost")
    assert scene.residents() == {"s": ResidentState.IDLE}


async def test_a_later_task_fails_when_the_instance_is_gone_and_no_other_is_started(scene):
    await scene.run(**LATER)
    assert (scene.outcome.state, scene.outcome.error_code) == (S.FAILED, "worker_lost")
    assert scene.outcome.instance_ended
    assert scene.machine.steps == []


async def test_a_task_without_the_session_does_not_get_its_instance(scene):
    await scene.run(**FIRST)
    await scene.run(task_id="t2")
    assert scene.machine.steps.count("start") == 2


@pytest.mark.parametrize(
    ("error", "gone"), [(AppError("no"), False), (InstanceLost("killed"), True)], ids=["failed", "died"]
)
async def test_an_outcome_tells_whether_the_instance_lives_on(scene, error, gone):
    await scene.run(**FIRST)
    scene.machine.fails["run"] = error
    await scene.run(task_id="t2", **LATER)
    assert scene.outcome.instance_ended is gone


async def test_an_instance_that_never_came_up_has_ended(scene):
    scene.machine.fails["setup"] = AppError("no model")
    await scene.run(**FIRST)
    assert scene.outcome.instance_ended


async def test_the_instance_of_a_session_goes_only_by_order(gpu):
    await gpu.load(KEY, 20)
    with pytest.raises(NoCapacity, match="busy or pinned"):
        await gpu.load("b", 6, declared=6)
    assert gpu.residency.evict(KEY, "its session was ended")
    await gpu.load("b", 6, declared=6)
    assert gpu.bytes() == {"b": 6}


async def test_the_scheduler_may_count_it_as_gone(gpu):
    await gpu.load(KEY, 20)
    await gpu.load("b", 6, declared=6, ordered=(KEY,))
    assert gpu.bytes() == {"b": 6}


async def test_what_an_instance_takes_is_known_for_its_setup(gpu):
    await gpu.load(KEY, 20)
    gpu.residency.evict(KEY, "its session was ended")
    gpu.residency.use(await gpu.load("b", 6), "t2", None)
    with pytest.raises(NoCapacity, match=r"20.0 GiB of GPU memory are needed"):
        await gpu.residency.admit(order(setup_key="s").task)
