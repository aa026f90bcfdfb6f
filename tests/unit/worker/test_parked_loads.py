"""Loads for tasks to come, and pins, where instances are parked: what is parked comes back, what is pinned is never parked."""

import asyncio

import pytest
from recorders import Version, order, until
from unit.worker.test_parking import ParkScene
from unit.worker.test_residency import WORKER

from stoker.core.loads import LoadState
from stoker.core.messages import LoadOrder
from stoker.core.states import ResidentState
from stoker_worker.loading import Load
from stoker_worker.parking_ways import ParkingFailed


@pytest.fixture
async def scene(tmp_path):
    made = ParkScene(tmp_path)
    yield made
    await made.residency.stop_all("test over")


def load_of(scene, key, evict=()):
    scene.machine.steps.clear()
    task = order("load~1", function="", setup_key=key).task
    return Load(LoadOrder(task=task, token="", worker_id=WORKER.id, evict=evict), scene.tools, lambda: None)


async def loaded(scene, key, evict=()):
    """What is told of a load that has ended."""
    load = load_of(scene, key, evict)
    await load.run(WORKER, scene.residency)
    return load.report()


async def test_a_load_brings_back_what_is_parked_and_says_so(scene):
    await scene.park_a()
    report = await loaded(scene, "a")
    assert (report.state, report.unparked) == (LoadState.LOADED, True)
    assert "unpark" in scene.machine.steps
    assert not {"prepare", "start", "setup"}.intersection(scene.machine.steps)
    assert scene.residents() == {"a": ResidentState.IDLE}
    assert list(scene.parked()) == ["b"]  # it made room
    scene.machine.steps.clear()
    await scene.run(setup_key="a", task_id="t4")
    assert scene.machine.steps == ["run"]


async def test_a_load_of_what_is_not_parked_is_told_as_a_load(scene):
    report = await loaded(scene, "a")
    assert (report.state, report.unparked) == (LoadState.LOADED, False)
    assert scene.machine.steps == ["prepare", "start", "setup"]


async def test_what_does_not_come_back_for_a_load_is_loaded_anew(scene):
    process = await scene.park_a()
    scene.machine.fails["unpark"] = ParkingFailed("the driver refuses")
    report = await loaded(scene, "a")
    assert (report.state, report.unparked) == (LoadState.LOADED, False)
    assert process.exited.is_set()
    assert scene.machine.steps[-3:] == ["prepare", "start", "setup"]
    assert scene.residents() == {"a": ResidentState.IDLE}


@pytest.mark.parametrize("last", ["setup", "unpark"])
async def test_a_load_that_is_stopped_while_it_is_measured_leaves_no_process(scene, last):
    if last == "unpark":
        await scene.park_a()
    load = load_of(scene, "a")
    measuring, read = asyncio.Event(), scene.device.sample

    async def sample():
        if last in scene.machine.steps and not measuring.is_set():
            measuring.set()
            await asyncio.Event().wait()
        await read()

    scene.device.sample = sample
    running = asyncio.ensure_future(load.run(WORKER, scene.residency))
    await until(measuring.is_set)
    load.stop("the lease is over")
    await running
    assert (load.report().state, load.report().error) == (LoadState.FAILED, "the lease is over")
    await until(lambda: "a" not in scene.residents())
    process = scene.machine.processes[0]
    assert process.exited.is_set()
    assert process.pgid not in scene.device.groups


async def test_a_load_that_brings_back_takes_nothing_from_the_shelf_and_one_after_it_gives_it_back(scene):
    version = Version()
    scene.machine.prepared = lambda request: version
    await scene.park_a()
    released = version.released
    await loaded(scene, "a")
    assert version.released == released
    await loaded(scene, "c")
    assert version.released == released + 1


async def test_what_is_pinned_is_neither_parked_nor_ended_while_it_is_parked(scene):
    await scene.run(setup_key="a", task_id="t1")
    scene.residency.pins = frozenset({"a"})
    await scene.run(setup_key="b", task_id="t2")
    assert scene.residents() == {"a": ResidentState.IDLE}
    assert not scene.parked()
    scene.residency.pins = frozenset()
    await scene.run(setup_key="b", task_id="t3")
    scene.residency.pins = frozenset({"a"})
    assert not scene.residency.evict("a", "not used for 60 s")
    assert list(scene.parked()) == ["a"]
