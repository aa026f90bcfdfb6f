"""Parking: what makes room goes to the machine's memory, comes back without its setup, and ends with a reason."""

import asyncio
import contextlib
import dataclasses
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from executions import COLD, Scene, states
from helpers import eventually
from recorders import MachineRecorder, Process, order, until
from unit.worker.test_residency import GIB, WORKER, Device

from stoker.core.sessions import session_key
from stoker.core.states import RESIDENT_MOVES, ResidentState, Temperature
from stoker.core.states import TaskState as S
from stoker.parking_settings import ParkingFields
from stoker_worker.host_memory import HostMemory
from stoker_worker.instance import RunResult
from stoker_worker.instance_errors import InstanceFailed
from stoker_worker.parking import Lot
from stoker_worker.parking_ways import ParkingFailed
from stoker_worker.residence import Residence
from stoker_worker.residency import Residency

MODEL_GIB = 16
HOST = HostMemory(total_bytes=200 * GIB, free_bytes=150 * GIB)


class GpuProcess(Process):
    """An app that holds a model on the device: two of them do not fit."""

    def __init__(self, recorder, device, pgid):
        super().__init__(recorder)
        self.device = device
        self.pid = self.pgid = pgid

    async def setup(self, timeout_s):
        await super().setup(timeout_s)
        self.takes(MODEL_GIB)

    async def park(self):
        await super().park()
        self.takes(self.recorder.keeps)
        if self.recorder.late:
            self.device.hidden[self.pgid] = self.recorder.late * GIB

    async def unpark(self):
        await super().unpark()
        self.takes(MODEL_GIB)

    def takes(self, gib):
        (self.device.groups if self.recorder.named else self.device.hidden)[self.pgid] = gib * GIB

    async def stop(self, reason):
        await super().stop(reason)
        self.device.end(self.pgid)


class Machine(MachineRecorder):
    def __init__(self, device):
        super().__init__(RunResult(output={"ok": 1}, files=[]))
        self.device = device
        self.parks = True
        self.keeps = 0  # GiB that an app holds while it is parked
        self.late = 0  # GiB that are nobody's and in use after a park
        self.named = True  # NVML says which process has the memory
        self.pgids = iter(range(2**22 + 1, 2**22 + 100))

    async def start(self, order, prepared, worker, on_line):
        await self.step("start", on_line)
        self.processes.append(GpuProcess(self, self.device, next(self.pgids)))
        return self.processes[-1]


class ParkScene(Scene):
    """A GPU of 24 GiB, and apps of which one fits at a time."""

    def __init__(self, folder, **settings):
        super().__init__(folder)
        self.device = Device()
        self.machine = Machine(self.device)
        self.tools = dataclasses.replace(self.tools, machine=self.machine)
        self.memory = HOST
        self.lot = Lot(
            ParkingFields(parking="hooks", **settings),
            memory=lambda: self.memory,
            host_bytes=lambda _: 4 * GIB,
        )
        self.residency = Residency(WORKER, self.device, lambda: None, self.lot)
        self.residency.refresh()
        for key in ("a", "b"):
            self.residency._ledger.learn(key, MODEL_GIB * GIB)

    async def run(self, **changes):
        seen = len(self.store.calls)
        self.machine.steps.clear()
        await self.execution(worker_id=WORKER.id, **changes).run(WORKER, self.residency)
        return self.store.calls[seen:]

    def parked(self):
        return {resident.setup_key: resident for resident in self.residency.bay.snapshot()}

    async def park_a(self):
        """`a` makes room for `b`."""
        await self.run(setup_key="a", task_id="t1")
        await self.run(setup_key="b", task_id="t2")
        assert list(self.parked()) == ["a"]
        return self.machine.processes[0]


@pytest.fixture
async def scene(tmp_path):
    made = ParkScene(tmp_path)
    yield made
    await made.residency.stop_all("test over")


# An instance that is parked.


async def test_what_makes_room_is_parked_and_its_gpu_memory_is_free(scene):
    process = await scene.park_a()
    assert "park" in scene.machine.steps
    assert not process.exited.is_set()
    [resident] = scene.parked().values()
    assert (resident.state, resident.temperature) == (ResidentState.PARKED, Temperature.PARKED)
    assert (resident.vram_bytes, resident.host_bytes) == (0, 4 * GIB)
    assert scene.residents() == {"b": ResidentState.IDLE}


async def test_what_comes_back_is_not_set_up_again_and_its_task_is_setting_up_at_once(scene):
    await scene.park_a()
    calls = await scene.run(setup_key="a", task_id="t3")
    assert states(calls) == [S.SETTING_UP, S.RUNNING]
    assert scene.machine.steps == ["park", "unpark", "run"]
    assert scene.outcome.state is S.COMPLETED
    assert list(scene.parked()) == ["b"]
    assert len(scene.machine.processes) == 2


async def test_who_loads_without_bringing_back_gets_rid_of_what_is_parked_first(scene):
    process = await scene.park_a()
    residence = await scene.residency.admit(order(setup_key="a").task)
    assert (residence.instance, process.exited.is_set()) == (None, True)
    assert "a" not in scene.residency.bay
    scene.residency.discard(residence, "enough")


async def test_an_instance_keeps_what_its_load_took_when_it_comes_back(scene):
    await scene.park_a()
    scene.residency.bay._parked["a"].load_s = 30.0
    await scene.run(setup_key="a", task_id="t3")
    [resident] = scene.residency.snapshot()
    assert (resident.load_s, resident.vram_bytes) == (30.0, MODEL_GIB * GIB)


async def test_an_app_without_hooks_is_unloaded_as_ever(scene):
    scene.machine.parks = False
    await scene.run(setup_key="a", task_id="t1")
    await scene.run(setup_key="b", task_id="t2")
    assert (scene.parked(), "park" in scene.machine.steps) == ({}, False)
    assert scene.machine.processes[0].exited.is_set()


async def test_nothing_is_parked_unless_it_is_switched_on(tmp_path):
    scene = ParkScene(tmp_path)
    scene.residency = Residency(WORKER, scene.device, lambda: None)
    await scene.run(setup_key="a", task_id="t1")
    assert [r.parks for r in scene.residency.snapshot()] == [False]
    await scene.run(setup_key="b", task_id="t2")
    assert "park" not in scene.machine.steps
    await scene.residency.stop_all("test over")


async def test_a_resident_says_that_it_would_be_parked(scene):
    await scene.run(setup_key="a")
    assert [r.parks for r in scene.residency.snapshot()] == [True]


async def test_what_was_ordered_to_go_is_ended_and_not_parked(scene):
    await scene.run(setup_key="a")
    assert scene.residency.evict("a", "a secret that it holds was changed or deleted")
    await until(lambda: not scene.residents())
    assert (scene.parked(), "park" in scene.machine.steps) == ({}, False)


async def test_an_order_to_go_reaches_a_parked_instance(scene):
    process = await scene.park_a()
    assert scene.residency.evict("a", "a secret that it holds was changed or deleted")
    await until(process.exited.is_set)
    assert scene.parked() == {}


async def test_the_instance_of_a_session_is_never_parked(scene):
    session = {"session_id": "sess_1", "opens_session": True, "setup_key": session_key("a", "sess_1")}
    await scene.run(task_id="t1", **session)
    [residence] = scene.residency._residents.values()
    assert not scene.residency.bay.takes(residence)


# What goes wrong.


async def test_a_park_that_fails_ends_the_instance_and_makes_room_all_the_same(scene):
    scene.machine.fails["park"] = InstanceFailed("no", "park")
    await scene.run(setup_key="a", task_id="t1")
    await scene.run(setup_key="b", task_id="t2")
    assert scene.outcome.state is S.COMPLETED
    assert scene.parked() == {}
    assert scene.machine.processes[0].exited.is_set()


@pytest.mark.parametrize("step", ["park", "unpark"])
async def test_what_failed_for_a_setup_is_not_tried_again_for_a_while(scene, monkeypatch, step):
    scene.machine.fails[step] = InstanceFailed("no", step)
    for key in "aba":
        await scene.run(setup_key=key)
    scene.machine.fails.clear()
    await scene.run(setup_key="b")
    assert "park" not in scene.machine.steps
    await scene.run(setup_key="a")
    assert [r.parks for r in scene.residency.snapshot()] == [False]
    monkeypatch.setattr("stoker_worker.bay.time", SimpleNamespace(monotonic=lambda: time.monotonic() + 601))
    assert [r.parks for r in scene.residency.snapshot()] == [True]


async def test_a_shortage_of_the_machines_memory_is_no_reason_not_to_try_again(scene):
    scene.memory = HostMemory(total_bytes=200 * GIB, free_bytes=30 * GIB)
    await scene.run(setup_key="a")
    await scene.run(setup_key="b")
    scene.memory = HOST
    await scene.run(setup_key="a")
    await scene.run(setup_key="b")
    assert list(scene.parked()) == ["a"]


async def test_an_instance_that_keeps_its_gpu_memory_is_not_parked(scene):
    scene.machine.keeps = 10
    await scene.run(setup_key="a", task_id="t1")
    await scene.run(setup_key="b", task_id="t2")
    assert scene.parked() == {}
    assert scene.machine.processes[0].exited.is_set()
    assert scene.residents() == {"b": ResidentState.IDLE}


async def test_an_instance_of_which_no_reading_tells_what_it_keeps_is_not_parked(scene):
    scene.machine.named, scene.machine.keeps = False, MODEL_GIB
    await scene.run(setup_key="a", task_id="t1")
    step = scene.machine.step

    async def silent(name, on_line=None):
        await step(name, on_line)
        if name == "park":
            scene.device.error = "NVML did not answer within 3 s"

    scene.machine.step = silent
    await scene.run(setup_key="b", task_id="t2")
    assert scene.parked() == {}
    assert scene.machine.processes[0].exited.is_set()


async def test_memory_that_is_in_use_and_nobodys_after_a_park_is_not_free(scene):
    """A driver may name a process no longer, and free its memory later, or never."""
    scene.machine.late = 16
    scene.device.foreign = 1 * GIB
    scene.residency.refresh()
    await scene.run(setup_key="a", task_id="t1")
    task = asyncio.ensure_future(scene.run(setup_key="b", task_id="t2"))
    await eventually(scene.machine.processes[0].exited.is_set, "its end")  # a thread measures it before
    assert scene.parked() == {}
    scene.device.hidden.clear()
    await task


@pytest.mark.parametrize("keeps", [0, 2])
async def test_where_nvml_names_no_process_it_is_what_the_device_lost(scene, keeps):
    scene.machine.named, scene.machine.keeps = False, keeps
    await scene.park_a()
    assert [r.vram_bytes for r in scene.parked().values()] == [keeps * GIB]
    await scene.run(setup_key="a", task_id="t3")
    residences = scene.residency._residents.values()
    assert {r.setup_key: r.vram_bytes for r in residences} == {"a": MODEL_GIB * GIB}
    assert scene.residency._ledger.other_bytes == scene.device.driver


async def test_what_a_parked_instance_still_holds_counts_and_goes_when_it_is_needed(scene):
    scene.machine.keeps = 2
    process = await scene.park_a()
    assert [r.vram_bytes for r in scene.parked().values()] == [2 * GIB]
    assert scene.residency.vram_state.other_bytes == scene.device.driver
    scene.residency._ledger.learn("c", 22 * GIB)
    await scene.run(setup_key="c", task_id="t3")
    assert process.exited.is_set()
    assert scene.parked() == {}  # nor is there room beside what `b` would keep


async def test_an_unpark_that_fails_ends_in_a_load_with_the_reason_in_the_log(scene):
    process = await scene.park_a()
    scene.machine.fails["unpark"] = InstanceFailed("CUDA error", "unpark")
    calls = await scene.run(setup_key="a", task_id="t3")
    assert scene.outcome.state is S.COMPLETED
    assert states(calls) == [S.SETTING_UP, S.RUNNING]
    assert scene.machine.steps[-4:] == COLD
    assert process.exited.is_set()
    assert (
        "The parked app did not come back and is loaded anew: its unpark() failed: CUDA error."
        in scene.store.texts()
    )


async def test_a_process_that_dies_when_its_task_comes_is_replaced(scene):
    """Its task has taken it from the parked ones, and nobody has noticed its end yet."""
    process = await scene.park_a()
    take = scene.residency.bay.take

    def dying(key):
        process.exited.set()
        return take(key)

    scene.residency.bay.take = dying
    await scene.run(setup_key="a", task_id="t3")
    assert scene.outcome.state is S.COMPLETED
    assert scene.machine.steps[-4:] == COLD
    assert "a" not in {stay.setup_key for stay in scene.lot._stays.values()}


async def test_a_parked_process_that_dies_is_noticed(scene):
    process = await scene.park_a()
    process.exited.set()
    await until(lambda: not scene.parked())
    await scene.run(setup_key="a", task_id="t3")
    assert scene.machine.steps.count("setup") == 1


async def test_what_is_parked_ends_with_a_lost_device_and_with_the_daemon(scene):
    process = await scene.park_a()
    scene.device.error = "NVML: GPU is lost"
    scene.residency.refresh()
    await until(process.exited.is_set)
    assert scene.parked() == {}


async def test_a_worker_that_stops_ends_what_is_parked(scene):
    process = await scene.park_a()
    await scene.residency.stop_all("the worker is stopping")
    assert process.exited.is_set()
    assert (scene.parked(), scene.residents()) == ({}, {})


async def test_an_instance_that_is_on_its_way_when_the_worker_stops_is_ended(scene):
    scene.machine.holds = "park"
    await scene.run(setup_key="a", task_id="t1")
    process = scene.machine.processes[0]
    task = asyncio.ensure_future(scene.run(setup_key="b", task_id="t2"))
    await eventually(lambda: "park" in scene.machine.steps, "its park")  # a thread measures it before
    stopping = asyncio.ensure_future(scene.residency.stop_all("the worker is stopping"))
    scene.machine.go.set()
    await stopping
    assert process.exited.is_set()
    task.cancel()
    await asyncio.wait({task})


# The machine's memory.


async def test_without_room_in_the_machines_memory_an_instance_is_ended(scene):
    scene.memory = HostMemory(total_bytes=200 * GIB, free_bytes=30 * GIB)
    await scene.run(setup_key="a", task_id="t1")
    await scene.run(setup_key="b", task_id="t2")
    assert scene.parked() == {}
    assert scene.machine.processes[0].exited.is_set()


async def test_a_machine_that_runs_short_of_memory_ends_what_is_parked(scene):
    process = await scene.park_a()
    scene.lot.check()
    assert list(scene.parked()) == ["a"]
    scene.memory = HostMemory(total_bytes=200 * GIB, free_bytes=19 * GIB)
    scene.lot.check()
    await until(process.exited.is_set)
    assert scene.parked() == {}


def test_of_two_apps_with_equal_loads_the_one_that_takes_less_memory_is_worth_more(scene):
    scene.memory = HostMemory(total_bytes=800 * GIB, free_bytes=700 * GIB)

    async def values():
        for pid, gib in ((1, 40), (2, 4)):
            process = Process(scene.machine)
            process.pid = pid
            await scene.lot.admit(str(pid), process, uses=1, load_s=20.0, vram_bytes=gib * GIB)
        return [s.value for s in scene.lot._stays.values()]

    large, small = asyncio.run(values())
    assert small > large


async def test_what_was_worth_most_once_goes_when_enough_others_came(scene):
    async def admit(pid, uses):
        process = Process(scene.machine)
        process.pid = pid
        await scene.lot.admit(str(pid), process, uses=uses, load_s=20.0, vram_bytes=10 * GIB)
        await scene.lot.settle(process, lambda reason: gone.append(pid) or scene.lot.forget(process))
        return True

    gone = []
    scene.lot._host_bytes = lambda _: 30 * GIB
    assert await admit(1, uses=5)
    for pid in (2, 3, 4):
        with pytest.raises(ParkingFailed, match="worth more"):
            await admit(pid, uses=1)
    for pid in range(5, 9):
        if gone:
            break
        with contextlib.suppress(ParkingFailed):
            await admit(pid, uses=1)
    assert gone == [1]


# The table.


def test_only_what_stops_is_parked_and_what_is_parked_is_loading_next_or_stops():
    assert set(RESIDENT_MOVES) == set(ResidentState)
    assert {s for s, to in RESIDENT_MOVES.items() if ResidentState.PARKED in to} == {ResidentState.STOPPING}
    assert RESIDENT_MOVES[ResidentState.PARKED] == {ResidentState.LOADING, ResidentState.STOPPING}


async def test_every_move_of_an_instance_is_in_the_table(scene, monkeypatch):
    seen = {}
    slot = Residence.state

    def move(residence, new):
        seen.setdefault(id(residence), (residence, []))[1].append(new)
        slot.__set__(residence, new)

    monkeypatch.setattr(Residence, "state", property(slot.__get__, move))
    await scene.park_a()
    await scene.run(setup_key="a", task_id="t3")
    scene.residency.evict("b", "over")
    await until(lambda: not scene.parked())
    moves = {pair for _, found in seen.values() for pair in pairwise(found)}
    assert all(new in RESIDENT_MOVES[old] for old, new in moves)
    assert {
        (ResidentState.STOPPING, ResidentState.PARKED),
        (ResidentState.PARKED, ResidentState.LOADING),
    } <= moves


async def test_a_way_that_fails_without_a_word_of_the_app_is_told_too(scene):
    class Broken:
        name = "driver"

        async def park(self, instance):
            raise ParkingFailed("the CUDA driver refused (lock): CUDA_ERROR_NOT_SUPPORTED (801)")

    scene.lot.hooks = Broken()
    await scene.run(setup_key="a", task_id="t1")
    await scene.run(setup_key="b", task_id="t2")
    assert scene.parked() == {}


@pytest.mark.parametrize("how", ["evict", "die", "lose"])
async def test_what_has_ended_takes_nothing_of_the_machines_memory(scene, how):
    process = await scene.park_a()
    assert len(scene.lot._stays) == 1
    match how:
        case "evict":
            scene.residency.evict("a", "ordered")
        case "die":
            process.exited.set()
        case "lose":
            scene.device.error = "NVML: GPU is lost"
            scene.residency.refresh()
    await until(lambda: not scene.parked())
    assert scene.lot._stays == {}
