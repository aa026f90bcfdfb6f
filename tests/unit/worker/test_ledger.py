"""Whose the memory of a worker's GPUs is: what is not free is given to nobody, and a lost device gets no tasks."""

import asyncio

import pytest
from recorders import order, until
from unit.worker.test_residency import GIB, Scene

from stoker.core.errors import NoCapacity
from stoker.core.states import ResidentState
from stoker.core.vram import VramState
from stoker_worker import ledger, residency
from stoker_worker.instance_errors import AppError, DeviceLost, InstanceFailed, InstanceLost, OutOfGpuMemory
from stoker_worker.process_tree import Holder

LOST = "GPU 0 (GPU-a) is lost: NVML: GPU is lost"


@pytest.fixture
async def scene():
    made = Scene()
    yield made
    made.device.settling.set()
    await made.residency.stop_all("test over")


def admit(scene, key, declared):
    return scene.residency.admit(order(setup_key=key).task, declared_bytes=int(declared * GIB))


async def ran(scene, residence):
    """A task has run on an instance; what was to be read after it is read."""
    scene.residency.use(residence, "t", lambda *_: None)
    scene.residency.release(residence)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_memory_of_other_programs_is_not_given_away(scene):
    scene.device.foreign = 12 * GIB
    with pytest.raises(NoCapacity) as refused:
        await admit(scene, "a", 16)
    assert refused.value.message == (
        "Worker 'box-gpu-0' has no room for this app: 17.6 GiB of GPU memory are needed and 11.0 GiB are free "
        "(13.0 GiB are in use by other programs, or not freed yet)"
    )
    assert scene.bytes() == {}
    scene.device.foreign = 0
    await admit(scene, "a", 16)


async def test_a_model_of_the_size_of_the_device_fits_beside_its_driver(scene):
    await admit(scene, "a", 24)


async def test_what_is_declared_is_counted_with_a_margin_and_what_was_measured_is_not(scene):
    await ran(scene, await scene.load("b", 10))
    scene.residency.evict("b", "room")
    await until(lambda: scene.bytes() == {})
    await scene.load("a", 12)
    await scene.load("b", 10, declared=10)  # 11 with the margin: 1 + 12 + 11 is all that there is
    assert set(scene.bytes()) == {"a", "b"}
    await scene.load("c", 1, declared=10.5)
    assert len(scene.bytes()) == 2


async def test_an_instance_counts_with_the_most_that_it_took(scene):
    residence = await scene.load("a", 4)
    group = residence.instance.pgid
    scene.device.groups[group] = 14 * GIB
    scene.residency.refresh()
    scene.device.groups[group] = 4 * GIB
    scene.residency.refresh()
    scene.residency.use(residence, "t", lambda *_: None)
    assert scene.bytes() == {"a": 14}
    with pytest.raises(NoCapacity, match=r"11\.0 GiB of GPU memory are needed and -?\d"):
        await admit(scene, "b", 10)


async def test_the_first_run_is_read_for_however_short_it_was(scene):
    residence = await scene.load("a", 4)
    scene.device.groups[residence.instance.pgid] = 9 * GIB
    await ran(scene, residence)
    assert scene.bytes() == {"a": 9}


async def test_a_peak_within_the_first_run_is_seen(scene, monkeypatch):
    monkeypatch.setattr(residency, "FIRST_RUN_POLL_S", 0)
    residence = await scene.load("a", 4)
    group = residence.instance.pgid
    scene.residency.use(residence, "t", lambda *_: None)
    scene.device.groups[group] = 9 * GIB
    await until(lambda: scene.bytes() == {"a": 9})
    scene.device.groups[group] = 4 * GIB
    scene.residency.release(residence)
    assert scene.bytes() == {"a": 9}


async def test_memory_that_a_dead_process_gave_back_already_is_not_waited_for(scene):
    residence = await scene.load("a", 14)
    residence.instance.exited.set()
    scene.device.end(residence.instance.pgid)
    scene.residency.refresh()
    await until(lambda: scene.bytes() == {})
    assert scene.residency.vram_state == VramState(other_bytes=1 * GIB)


async def test_memory_that_does_not_come_back_takes_the_worker_out_until_it_does(scene):
    await scene.load("a", 14)
    scene.device.frees = False
    with pytest.raises(NoCapacity, match=r"17\.6 GiB of GPU memory are needed and 9\.0 GiB are free"):
        await admit(scene, "b", 16)
    await until(lambda: scene.bytes() == {})
    assert scene.residency.vram_state.trouble == (
        "14.0 GiB of GPU memory are not free since infsh/echo was unloaded"
    )
    assert scene.residency.vram_state.since_ms
    scene.residency.refresh()
    assert scene.residency.vram_state.other_bytes == 15 * GIB
    scene.device.free()
    scene.residency.refresh()
    assert scene.residency.vram_state == VramState(other_bytes=1 * GIB)
    await admit(scene, "b", 16)


async def test_what_stays_away_for_long_is_somebody_elses_and_the_worker_goes_on(scene, monkeypatch):
    monkeypatch.setattr(ledger, "HELD_MAX_S", -1)
    await scene.load("a", 14)
    scene.device.frees = False
    scene.residency.evict("a", "room")
    await until(lambda: scene.bytes() == {})
    scene.residency.refresh()
    assert scene.residency.vram_state == VramState(other_bytes=15 * GIB)
    await admit(scene, "b", 8)


async def test_another_program_that_takes_memory_meanwhile_is_no_leak(scene):
    await scene.load("a", 14)
    scene.device.foreign = 5 * GIB
    scene.residency.evict("a", "room")
    await until(lambda: scene.bytes() == {})
    scene.residency.refresh()
    assert scene.residency.vram_state == VramState(other_bytes=6 * GIB)


async def test_only_what_is_worth_a_decision_is_told(scene):
    scene.residency.refresh()
    before = scene.changes
    scene.device.foreign += 1000
    scene.residency.refresh()
    assert (scene.changes, scene.residency.vram_state.other_bytes) == (before, 1 * GIB)
    scene.device.foreign += GIB
    scene.residency.refresh()
    assert scene.changes == before + 1


async def test_a_lost_device_ends_what_is_idle_on_it_and_comes_back(scene):
    await scene.load("a", 6)
    scene.device.error = "NVML: GPU is lost"
    scene.residency.refresh()
    assert (scene.residency.lost, scene.residency.vram_state.trouble) == (LOST, LOST)
    await until(lambda: scene.bytes() == {})
    scene.device.error = ""
    scene.residency.refresh()
    assert (scene.residency.lost, scene.residency.vram_state.trouble) == ("", "")


async def test_a_driver_that_only_does_not_answer_ends_nothing(scene):
    await scene.load("a", 6)
    scene.device.error = "NVML did not answer within 3 s"
    scene.residency.refresh()
    assert scene.residency.lost == ""
    assert "did not answer" in scene.residency.vram_state.trouble
    assert [r.state for r in scene.residency.snapshot()] == [ResidentState.IDLE]


SILENT = "NVML did not answer within 3 s"


async def test_a_reading_that_failed_does_not_show_that_memory_is_back(scene):
    await scene.load("a", 14)
    scene.device.frees, scene.device.error = False, SILENT
    scene.residency.evict("a", "room")
    await until(lambda: scene.bytes() == {})
    scene.device.error = ""
    scene.residency.refresh()
    assert scene.residency.vram_state.trouble == (
        "no reading has shown that GPU memory is free since infsh/echo was unloaded"
    )
    scene.device.free()
    scene.residency.refresh()
    assert scene.residency.vram_state.trouble == ""


async def test_nothing_is_loaded_while_nobody_knows_what_is_in_use(scene):
    await scene.load("a", 6, by_group=False)
    scene.device.error = SILENT
    with pytest.raises(NoCapacity, match=f"'box-gpu-0' loads nothing now: .*{SILENT}"):
        await admit(scene, "b", 3)
    await until(lambda: scene.bytes() == {"a": 6})
    scene.device.error = ""
    await scene.load("b", 3, by_group=False)
    assert scene.bytes() == {"a": 6, "b": 3}


@pytest.mark.parametrize("failed", [AppError("CUDA error: unknown"), InstanceLost("killed", -9)])
async def test_a_failure_on_a_lost_device_is_not_the_apps(scene, failed):
    residence = await scene.load("a", 6)
    scene.residency.use(residence, "t", lambda *_: None)
    scene.device.error = "NVML: GPU is lost"
    with pytest.raises(DeviceLost, match=r"GPU-a.*The app said: "):
        await scene.residency.blame(residence, failed)


@pytest.mark.parametrize("short", [True, False])
async def test_memory_that_ran_out_is_told_in_numbers_and_the_next_one_is_alone(scene, short):
    await scene.load("a", 6)
    residence = await scene.load("b", 14, declared=8)
    scene.residency.use(residence, "t", lambda *_: None)
    scene.device.foreign = 2 * GIB
    error = AppError("CUDA out of memory.", vram_short=short)
    if not short:
        await scene.residency.blame(residence, error)
        return
    with pytest.raises(OutOfGpuMemory) as found:
        await scene.residency.blame(residence, error)
    assert found.value.message == (
        "CUDA out of memory. (GPU memory ran out: it held 14.0 GiB of the 24.0 GiB of box-gpu-0 (L4), other "
        "instances 6.0 GiB, other programs 3.0 GiB; it was counted with 8.8 GiB.)"
    )
    assert (found.value.peak_bytes, found.value.needed_bytes) == (14 * GIB, 24 * GIB)
    scene.residency.discard(residence, "it ran out")
    scene.device.foreign = 0
    again = await scene.load("b", 16)
    assert scene.bytes() == {"b": 16}
    await ran(scene, again)
    await scene.load("a", 6)
    assert scene.bytes() == {"a": 6, "b": 16}


async def test_of_a_worker_without_gpus_no_gpu_is_to_blame():
    from executions import WORKER
    from recorders import NoDevices

    from stoker_worker.residency import Residency

    cpu = Residency(WORKER, NoDevices(), lambda: None)
    residence = await cpu.admit(order().task)
    await cpu.blame(residence, InstanceFailed("CUDA out of memory", "setup", vram_short=True))
    assert cpu.vram_state == VramState()
    await cpu.stop_all("test over")


def test_what_a_process_started_is_of_its_tree(monkeypatch):
    groups = {10: 10, 20: 20, 30: 20, 40: 40}
    parents = {40: 30, 30: 20, 20: 10, 10: 1}
    monkeypatch.setattr("stoker_worker.process_tree._group", lambda pid: groups.get(pid, -1))
    monkeypatch.setattr("stoker_worker.process_tree._parent", lambda pid: parents.get(pid, 0))
    holders = {pid: Holder.of("GPU-a", pid, 1) for pid in (10, 20, 30, 40, 50)}
    assert [pid for pid, holder in holders.items() if 20 in holder.kin] == [20, 30, 40]
    assert [pid for pid, holder in holders.items() if holder.alive] == [10, 20, 30, 40]


def test_the_parent_of_a_process_is_found():
    import os

    assert os.getppid() in Holder.of("GPU-a", os.getpid(), 1).kin
    assert os.getpid() not in Holder.of("GPU-a", os.getppid(), 1).kin
