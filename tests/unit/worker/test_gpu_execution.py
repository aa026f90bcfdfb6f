"""Attempts on a worker with a GPU: memory that runs out, a device that is lost, a worker without room."""

import asyncio

import pytest
from executions import Scene
from recorders import until
from unit.worker.test_residency import GIB, WORKER, Device

from stoker.core.states import TaskState as S
from stoker_worker.instance_errors import AppError, InstanceFailed, InstanceLost
from stoker_worker.residency import Residency
from stoker_worker.workload import Slot, Workload

FIRST = {"session_id": "sess_1", "opens_session": True, "setup_key": "s.sess_1"}


class GpuScene(Scene):
    """One GPU worker; its app takes no memory, others do."""

    def __init__(self, folder):
        super().__init__(folder)
        self.device = Device()
        self.residency = Residency(WORKER, self.device, lambda: None)

    async def run(self, **changes):
        seen = len(self.store.calls)
        await self.execution(worker_id=WORKER.id, **changes).run(WORKER, self.residency)
        return self.store.calls[seen:]


@pytest.fixture
async def scene(tmp_path):
    made = GpuScene(tmp_path)
    yield made
    await made.residency.stop_all("test over")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("setup", InstanceFailed("CUDA out of memory.", "setup", vram_short=True)),
        ("run", AppError("CUDA out of memory.", vram_short=True)),
    ],
)
async def test_gpu_memory_that_ran_out_is_tried_again_and_not_on_that_instance(scene, step, error):
    scene.machine.fails[step] = error
    await scene.run()
    outcome = scene.outcome
    assert (outcome.error_code, outcome.retryable, outcome.at_fault) == ("gpu_out_of_memory", True, False)
    assert outcome.error.startswith(
        "CUDA out of memory. (GPU memory ran out: it held 0.0 GiB of the 24.0 GiB"
    )
    assert outcome.vram_short == 24 * GIB
    assert outcome.instance_ended
    await until(lambda: scene.residents() == {})


async def test_a_session_keeps_its_instance_when_memory_ran_out(scene):
    await scene.run(**FIRST)
    scene.machine.fails["run"] = AppError("CUDA out of memory.", vram_short=True)
    await scene.run(task_id="t2", **(FIRST | {"opens_session": False}))
    assert (scene.outcome.error_code, scene.outcome.instance_ended) == ("app_failed", False)


@pytest.mark.parametrize("error", [AppError("CUDA error"), InstanceLost("killed", -9)])
async def test_what_fails_on_a_lost_device_is_tried_again_elsewhere(scene, error):
    scene.machine.fails["run"] = error
    step = scene.machine.step

    async def lose(name, on_line=None):
        if name == "run":
            scene.device.error = "NVML: GPU is lost"
        await step(name, on_line)

    scene.machine.step = lose
    await scene.run()
    assert (scene.outcome.error_code, scene.outcome.retryable) == ("gpu_lost", True)
    assert error.message in scene.outcome.error


async def test_a_worker_without_room_hands_the_task_back_and_no_attempt_is_spent(scene, monkeypatch):
    scene.device.foreign = 20 * GIB
    monkeypatch.setattr("recorders.Version.vram_bytes", 10 * GIB)
    [*_, (name, reason)] = await scene.run()
    assert name == "hand_back"
    assert "11.0 GiB of GPU memory are needed and 3.0 GiB are free" in reason
    assert "start" not in scene.machine.steps


async def begin(scene, hold):
    """A workload whose first task has reached a step that lasts."""
    scene.machine.holds = hold
    workload = Workload((WORKER,), scene.tools, scene.device, lambda: None)
    serving = asyncio.ensure_future(workload.serve())
    workload.on_assign("1-0", scene.execution(worker_id=WORKER.id).order)
    await until(lambda: hold in scene.machine.steps)
    return workload, serving


def lose(scene, workload):
    scene.device.error = "NVML: GPU is lost"
    for slot in workload.slots.values():
        slot.residency.refresh()
    workload.leave_lost_devices()


def ends(scene):
    return [call[0] for call in scene.store.calls if call[0] in ("finish", "hand_back")]


async def test_what_runs_on_a_lost_device_goes_back_and_nothing_new_is_taken(scene):
    workload, serving = await begin(scene, "run")
    lose(scene, workload)
    await until(lambda: ends(scene) == ["hand_back"])
    workload.on_assign("2-0", scene.execution(task_id="t2", worker_id=WORKER.id).order)
    await until(lambda: ends(scene) == ["hand_back", "hand_back"])
    assert [v.trouble for v in workload.vram_states().values()] == [
        "GPU 0 (GPU-a) is lost: NVML: GPU is lost"
    ]
    scene.device.error = ""
    workload.slots[WORKER.id].residency.refresh()
    scene.machine.holds = ""
    workload.on_assign("3-0", scene.execution(task_id="t3", worker_id=WORKER.id).order)
    await until(lambda: ends(scene)[2:] == ["finish"])
    assert scene.outcome.state is S.COMPLETED
    serving.cancel()
    await workload.unload("test over")


async def test_a_result_that_is_on_its_way_does_not_need_the_device(scene):
    from stoker_worker.instance import RunResult

    scene.machine.result = RunResult(output={}, files=["one"])
    workload, serving = await begin(scene, "upload")
    lose(scene, workload)
    scene.machine.go.set()
    await until(lambda: ends(scene))
    assert scene.outcome.state is S.COMPLETED
    serving.cancel()
    await workload.unload("test over")


async def test_a_sessions_later_task_ends_on_a_lost_device(scene):
    """Handed back it would come to the same worker again, and again."""
    slot = Slot(WORKER, scene.device, lambda: None)
    workload = Workload((WORKER,), scene.tools, scene.device, lambda: None)
    workload.slots[WORKER.id] = slot
    lose(scene, workload)
    later = scene.execution(worker_id=WORKER.id, session_id="sess_1", setup_key="s.sess_1")
    workload.on_assign("1-0", later.order)
    assert slot.queue.qsize() == 1
