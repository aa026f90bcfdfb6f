"""Loads for tasks to come, on one worker: what they do, what is told of them, what ends them."""

import asyncio

import pytest
from executions import WORKER, recording_tools
from helpers import eventually
from recorders import NoDevices, Version, order, until
from structlog.testing import capture_logs

from stoker.core.events import Event
from stoker.core.loads import ENDED_KEPT, LoadState
from stoker.core.messages import LoadOrder, LogType, PinOrder
from stoker.core.states import ResidentState
from stoker_worker.instance_errors import InstanceFailed
from stoker_worker.workload import Workload

BROKEN = InstanceFailed("RuntimeError: there is no such model")


class Scene:
    """A workload of one worker that is served."""

    def __init__(self, folder):
        tools = recording_tools(folder)
        self.store, self.machine = tools.store, tools.machine
        self.changes = 0
        self.workload = Workload([WORKER], tools, NoDevices(), self.changed)
        self.serving = asyncio.ensure_future(self.workload.serve())

    def changed(self):
        self.changes += 1

    def load(self, load_id="load~1", worker_id=WORKER.id, evict=(), **request):
        task = order(load_id, function="", **request).task
        self.workload.on_load(LoadOrder(task=task, token="secret", worker_id=worker_id, evict=evict))

    def pin(self, *keys):
        self.workload.on_pins(PinOrder(worker_id=WORKER.id, setup_keys=keys))

    def told(self):
        return {report.id: report.state for report in self.workload.loads.reports()}

    def residents(self):
        return {resident.setup_key: resident.state for resident in self.workload.snapshot()}

    async def ended(self, load_id="load~1"):
        """What is told of a load that has ended."""
        await until(lambda: self.told().get(load_id) in (LoadState.LOADED, LoadState.FAILED))
        return next(report for report in self.workload.loads.reports() if report.id == load_id)


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    made.serving.cancel()
    await made.workload.unload("test over")


async def test_a_load_leaves_an_idle_instance_that_the_first_task_finds(scene):
    before = scene.changes
    scene.load()
    assert scene.changes > before  # it is told of at once: an order that is not heard of is sent again
    report = await scene.ended()
    assert (report.state, report.error) == (LoadState.LOADED, "")
    assert scene.machine.steps == ["prepare", "start", "setup"]
    assert scene.residents() == {"s": ResidentState.IDLE}
    assert scene.store.calls == []  # nothing is written for it but reports
    scene.workload.on_assign("1-0", order())
    await scene.workload.empty()
    assert scene.machine.steps[3:] == ["run"]


async def test_an_order_that_is_read_twice_loads_once_and_one_for_what_is_there_loads_nothing(scene):
    scene.load()
    scene.load()
    await scene.ended()
    scene.load()
    scene.load("load~2")
    assert (await scene.ended("load~2")).state is LoadState.LOADED
    assert scene.machine.steps.count("setup") == 1


async def test_a_load_waits_for_the_task_before_it_and_a_task_for_the_load(scene):
    scene.machine.holds = "run"
    scene.workload.on_assign("1-0", order("t1", setup_key="other"))
    await until(lambda: "run" in scene.machine.steps)
    scene.load()
    assert scene.told() == {"load~1": LoadState.WAITING}
    scene.workload.on_assign("2-0", order("t2"))
    scene.machine.go.set()
    await scene.workload.empty()
    assert scene.machine.steps.count("setup") == 2
    assert scene.told() == {"load~1": LoadState.LOADED}


async def test_a_load_that_fails_tells_the_apps_words_and_leaves_nothing(scene):
    scene.machine.fails["setup"] = BROKEN
    scene.machine.lines["start"] = (LogType.SERVE, "reading the model")
    with capture_logs() as logs:
        scene.load()
        report = await scene.ended()
    [said] = [entry for entry in logs if entry["event"] == Event.LOAD_FAILED]
    assert said["printed"] == "reading the model"
    assert (report.state, report.hindered) == (LoadState.FAILED, False)
    assert "there is no such model" in report.error
    await until(lambda: scene.residents() == {})
    assert scene.machine.processes[0].exited.is_set()


async def test_a_load_that_takes_too_long_tells_where_more_is_allowed(scene):
    scene.machine.holds = "setup"
    scene.load(setup_timeout_s=0.01)
    await eventually(lambda: scene.told() == {"load~1": LoadState.FAILED}, "the limit")
    report = await scene.ended()
    assert "not ready within 0.01 s" in report.error
    assert "STOKER_SETUP_TIMEOUT_S" in report.error
    assert not report.hindered


async def test_a_load_without_room_was_hindered_and_evicts_nothing_that_is_pinned(scene):
    for key in ("a", "b"):
        scene.load(f"load_{key}", setup_key=key)
        await scene.ended(f"load_{key}")
    scene.pin("a", "b")
    scene.load("load_c", setup_key="c", evict=("a",))
    report = await scene.ended("load_c")
    assert (report.state, report.hindered) == (LoadState.FAILED, True)
    assert "the worker holds 2 of at most 2 instances, and what is loaded is busy or pinned" in report.error
    scene.pin("b")
    scene.load("load_c2", setup_key="c")
    await scene.ended("load_c2")
    assert set(scene.residents()) == {"b", "c"}


async def test_a_task_makes_no_room_of_a_pinned_instance(scene):
    for key in ("a", "b"):
        scene.load(f"load_{key}", setup_key=key)
        await scene.ended(f"load_{key}")
    scene.pin("a")
    scene.workload.on_assign("1-0", order(setup_key="c"))
    await scene.workload.empty()
    assert set(scene.residents()) == {"a", "c"}


async def test_what_is_pinned_is_told_and_each_order_replaces_the_one_before(scene):
    scene.pin("a", "b")
    assert scene.workload.pins() == {WORKER.id: ("a", "b")}
    before = scene.changes
    scene.pin("b", "a")
    assert scene.changes == before
    scene.pin()
    assert (scene.workload.pins(), scene.changes) == ({}, before + 1)


@pytest.mark.parametrize("step", ["prepare", "start", "setup"])
async def test_a_drain_stops_a_load_and_leaves_no_process(scene, step):
    scene.machine.holds = step
    scene.load()
    await until(lambda: step in scene.machine.steps)
    scene.workload.refuse("the worker is draining")
    scene.workload.give_back("the worker is draining", running=False)
    await scene.workload.empty()
    report = await scene.ended()
    assert (report.error, report.hindered) == ("the worker is draining", True)
    assert scene.residents() == {}
    assert all(process.exited.is_set() for process in scene.machine.processes)
    scene.load("load~2")
    assert (await scene.ended("load~2")).error == "the worker is draining"


async def test_a_load_that_waits_is_stopped_too(scene):
    scene.machine.holds = "run"
    scene.workload.on_assign("1-0", order("t1", setup_key="other"))
    await until(lambda: "run" in scene.machine.steps)
    scene.load()
    scene.workload.give_back("the worker is draining", running=False)
    assert (await scene.ended()).error == "the worker is draining"
    scene.machine.go.set()
    await scene.workload.empty()
    assert set(scene.residents()) == {"other"}


async def test_a_load_for_a_worker_that_is_not_here_is_refused(scene):
    scene.load(worker_id="box-cpu-7")
    assert "known: box-cpu-0" in (await scene.ended()).error


async def test_what_a_load_took_from_the_shelf_is_given_back(scene):
    before = Version.released
    scene.load()
    await scene.ended()
    scene.machine.fails["start"] = BROKEN
    scene.load("load~2", setup_key="other")
    await scene.ended("load~2")
    assert Version.released == before + 2


async def test_the_last_loads_are_told_and_no_more(scene):
    for number in range(ENDED_KEPT + 3):
        scene.load(f"load_{number}")
        await scene.ended(f"load_{number}")
    assert len(scene.told()) == ENDED_KEPT
