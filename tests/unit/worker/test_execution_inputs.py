"""One attempt whose input has files: they are fetched beside the load, and end it when they cannot be had."""

import asyncio

import pytest
from executions import CANCEL, COLD, DISOWN, RETURN, Scene, states
from recorders import order, until

from stoker.core.messages import LogType
from stoker.core.states import ResidentState
from stoker.core.states import TaskState as S
from stoker_worker.inputs import told
from stoker_worker.outcomes import InputFileFailed

FILES = {"input": {"image": "http://x/a.png"}, "input_files": ("/image",)}
MISSING = InputFileFailed("input.image: http://x/a.png answered 404 Not Found")


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    await made.residency.stop_all("test over")


async def begin(scene, hold, *, cold=True, **changes):
    if not cold:
        await scene.run(task_id="warm")
        scene.machine.steps.clear()
    return await scene.begin(hold, **FILES, **changes)


async def test_files_are_fetched_beside_the_load_and_the_run_waits_for_them(scene):
    _, running = await begin(scene, "fetch")
    await until(lambda: "setup" in scene.machine.steps)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(scene.machine.steps) == ["fetch", "prepare", "setup", "start"]
    scene.machine.go.set()
    await running
    assert scene.machine.steps[-2:] == ["run", "discard"]
    assert scene.machine.given == {"image": "http://x/a.png", "fetched": True}
    assert states(scene.store.calls) == [S.PREPARING, S.SERVING, S.SETTING_UP, S.RUNNING]


async def test_a_warm_task_is_running_while_its_files_come(scene):
    _, running = await begin(scene, "fetch", cold=False)
    assert states(scene.store.calls)[-1] is S.RUNNING
    assert scene.residents() == {"s": ResidentState.BUSY}
    scene.machine.go.set()
    await running
    assert states(scene.store.calls)[-1] is S.RUNNING
    assert scene.machine.steps == ["fetch", "run", "discard"]


async def test_a_task_without_files_fetches_nothing(scene):
    await scene.run()
    assert scene.machine.steps == COLD


@pytest.mark.parametrize("hold", ["prepare", "start", "setup"])
async def test_a_file_that_cannot_be_had_ends_the_load_at_once(scene, hold):
    scene.machine.fails["fetch"] = MISSING
    _, running = await begin(scene, hold)
    await running  # `go` was never set
    assert (scene.outcome.state, scene.outcome.error_code) == (S.FAILED, "input_file_failed")
    assert scene.outcome.error == MISSING.message
    assert scene.residents() == {}
    assert scene.machine.steps[-1] == "discard"


async def test_a_file_that_cannot_be_had_leaves_a_warm_instance_warm(scene):
    await scene.run(task_id="warm")
    scene.machine.fails["fetch"] = MISSING
    await scene.run(**FILES)
    assert scene.outcome.error_code == "input_file_failed"
    assert scene.residents() == {"s": ResidentState.IDLE}
    assert "run" not in scene.machine.steps[len(COLD) :]


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("stop", [CANCEL, RETURN, DISOWN])
async def test_a_stop_ends_the_fetch_at_once(scene, cold, stop):
    execution, running = await begin(scene, "fetch", cold=cold)
    await until(lambda: scene.residents() == {"s": ResidentState.BUSY})
    execution.stop(stop)
    await running
    assert scene.machine.steps[-1] == "discard"
    assert "run" not in scene.machine.steps
    assert scene.residents() == {"s": ResidentState.IDLE}  # it is loaded: the next task may have it


async def test_a_second_stop_while_the_first_takes_effect_is_harmless(scene):
    execution, running = await begin(scene, "setup")
    execution.stop(CANCEL)
    await asyncio.sleep(0)
    execution.stop(DISOWN)
    await running


async def test_the_files_stay_until_the_result_is_stored(scene):
    scene.machine.result = type(scene.machine.result)(output={}, files=["one"])
    await scene.run(**FILES)
    assert scene.machine.steps[-3:] == ["run", "upload", "discard"]


async def test_progress_of_a_fetch_is_in_the_log_of_the_task(scene):
    scene.machine.lines = {"fetch": (LogType.TASK, "input.image: 64 of 128 MiB")}
    await scene.run(**FILES)
    assert scene.store.texts() == ["input.image: 64 of 128 MiB"]


def test_recorded_orders_have_no_files_unless_they_say_so():
    assert order().task.input_files == ()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("ftp://me:hidden@host/x?signature=hidden", "'ftp://host/x'"),
        ("s3://bucket/x#hidden", "'s3://bucket/x'"),
        ("/etc/passwd", "'/etc/passwd'"),
        ("x" * 1000, None),
    ],
)
def test_an_address_that_is_refused_is_told_without_what_may_be_secret(given, shown):
    text = told(given)
    assert "hidden" not in text
    assert len(text) < 300
    assert shown is None or text == shown
