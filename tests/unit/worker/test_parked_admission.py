"""A parked instance that ends while its setup is wanted again."""

import asyncio

import pytest
from recorders import order, until
from unit.worker.test_parking import ParkScene

from stoker.core.states import ResidentState
from stoker_worker.outcomes import PreparationFailed


@pytest.fixture
async def scene(tmp_path):
    made = ParkScene(tmp_path)
    yield made
    made.device.settling.set()
    await made.residency.stop_all("test over")


def ends_at_reading(scene, number):
    """Have `a` end at a reading, as it does when the machine is short of memory then."""
    readings = iter(range(1, 100))

    async def sample():
        if next(readings) == number:
            assert scene.residency.bay.end("a", "the machine runs short of memory")

    scene.device.sample = sample


async def test_one_that_ends_while_its_setup_is_admitted_does_not_hide_the_newcomer(scene):
    process = await scene.park_a()
    ends_at_reading(scene, 2)  # the newcomer waits for the room that `b` makes
    newcomer = await scene.residency.admit(order(setup_key="a").task, unpark=True)
    assert process.exited.is_set()
    assert newcomer.instance is None
    assert scene.residents() == {"a": ResidentState.LOADING}
    scene.residency.discard(newcomer, "enough")
    await until(newcomer.gone.is_set)
    assert scene.residents() == {}


async def test_one_that_ends_while_it_is_admitted_leaves_nothing_when_its_app_cannot_be_prepared(scene):
    await scene.park_a()
    scene.machine.fails["prepare"] = PreparationFailed("no network")
    ends_at_reading(scene, 2)
    await scene.run(setup_key="a", task_id="t3")
    assert scene.machine.steps[-1] == "prepare"
    assert scene.outcome.error == "no network"
    await until(lambda: "a" not in scene.residents())


async def test_one_that_ends_before_its_newcomer_is_counted_is_waited_for(scene):
    scene.machine.keeps = 2
    process = await scene.park_a()
    scene.device.settling.clear()  # its memory is not back yet
    ends_at_reading(scene, 1)
    admitting = asyncio.ensure_future(scene.residency.admit(order(setup_key="a").task, unpark=True))
    await until(process.exited.is_set)
    assert scene.residents()["a"] is ResidentState.STOPPING
    scene.device.settling.set()
    await admitting
    assert scene.residents() == {"a": ResidentState.LOADING}
