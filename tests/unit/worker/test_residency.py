"""The instances of one GPU worker: measured, evicted, and gone only when their memory is back."""

import asyncio

import pytest
from recorders import MachineRecorder, Process, order, until

from stoker.core.errors import NoCapacity
from stoker.core.messages import GpuInfo, GpuType, WorkerInfo
from stoker.core.states import ResidentState
from stoker_worker.gpus import lost_sample
from stoker_worker.residency import Residency

GIB = 1024**3
GPU = GpuInfo(index=0, uuid="GPU-a", name="L4", type=GpuType.NVIDIA, vram_bytes=24 * GIB)
WORKER = WorkerInfo(id="box-gpu-0", index=0, gpus=(GPU,), max_residents=4)


class Device:
    """A device whose use the test sets. `frees`: what ends gives its memory back. `foreign`: of other programs."""

    def __init__(self):
        self.driver = 1 * GIB
        self.foreign = 0
        self.groups = {}  # by leader, as NVML tells
        self.hidden = {}  # of processes that NVML does not name
        self.ended = set()
        self.settling = asyncio.Event()
        self.settling.set()
        self.frees = True
        self.waited = 0
        self.error = ""

    async def sample(self):
        return None

    def end(self, pgid):
        self.ended.add(pgid)
        if self.frees and self.settling.is_set():
            self.free()

    def free(self):
        for pgid in self.ended:
            self.groups.pop(pgid, None)
            self.hidden.pop(pgid, None)

    def memory_of_tree(self, pgid):
        return 0 if pgid in self.ended else self.groups.get(pgid, 0)

    def listed_bytes(self, uuids):
        return self.foreign + sum(used for pgid, used in self.groups.items() if pgid not in self.ended)

    def used_bytes(self, uuids):
        assert uuids == {"GPU-a"}
        if self.error:
            return 0
        return self.driver + self.foreign + sum(self.groups.values()) + sum(self.hidden.values())

    def lost(self, uuids):
        sample = lost_sample(GPU, self.error)
        return (sample,) if self.error else ()

    async def settle(self, settled):
        self.waited += 1
        await self.settling.wait()
        if self.frees:
            self.free()
        return settled()


class Scene:
    def __init__(self):
        self.device = Device()
        self.changes = 0
        self.recorder = MachineRecorder(None)
        self.residency = Residency(WORKER, self.device, self.changed)
        self.pgids = iter(range(2**22 + 1, 2**22 + 100))

    def changed(self):
        self.changes += 1

    async def load(self, key, gib, *, by_group=True, declared=0, ordered=()):
        residence = await self.residency.admit(
            order(setup_key=key).task, declared_bytes=declared * GIB, ordered=ordered
        )
        residence.instance = Process(self.recorder)
        pgid = residence.instance.pgid = next(self.pgids)
        (self.device.groups if by_group else self.device.hidden)[pgid] = gib * GIB
        stop = residence.instance.stop

        async def ends(reason):
            await stop(reason)
            self.device.end(pgid)

        residence.instance.stop = ends
        await self.residency.loaded(residence, 10.0)
        return residence

    def bytes(self):
        return {r.setup_key: r.vram_bytes // GIB for r in self.residency.snapshot()}


@pytest.fixture
async def scene():
    made = Scene()
    yield made
    made.device.settling.set()
    await made.residency.stop_all("test over")


async def test_what_an_instance_takes_is_what_nvml_says_of_its_group(scene):
    await scene.load("a", 6)
    assert scene.bytes() == {"a": 6}


async def test_without_a_word_of_nvml_it_is_what_the_device_gained(scene):
    await scene.load("a", 6, by_group=False)
    await scene.load("b", 3, by_group=False)
    assert scene.bytes() == {"a": 6, "b": 3}


async def test_a_model_that_grows_is_reported_and_small_moves_are_not(scene):
    residence = await scene.load("a", 6)
    before = scene.changes
    scene.device.groups[residence.instance.pgid] += 1000
    scene.residency.refresh()
    assert scene.changes == before
    scene.device.groups[residence.instance.pgid] += 2 * GIB
    scene.residency.refresh()
    assert (scene.changes, scene.bytes()) == (before + 1, {"a": 8})


async def test_a_model_that_was_measured_needs_what_it_took_whatever_it_declares(scene):
    await scene.load("a", 14, declared=4)
    scene.residency.evict("a", "room")
    await until(lambda: scene.bytes() == {})
    await scene.load("b", 12)
    await scene.load("a", 14, declared=4)
    assert scene.bytes() == {"a": 14}


async def test_memory_that_is_not_back_yet_still_counts(scene):
    await scene.load("a", 14)
    scene.device.settling.clear()
    scene.residency.evict("a", "room")
    loading = asyncio.ensure_future(scene.load("b", 3, declared=3))
    await until(lambda: scene.device.waited)
    assert not loading.done()
    assert [r.state for r in scene.residency.snapshot()] == [ResidentState.STOPPING, ResidentState.LOADING]
    scene.device.settling.set()
    await loading
    assert set(scene.bytes()) == {"b"}


async def test_memory_that_never_comes_back_is_no_reason_to_wait_for_ever(scene):
    await scene.load("a", 14)
    scene.device.frees = False
    scene.residency.evict("a", "room")
    await until(lambda: scene.bytes() == {})


async def test_what_the_scheduler_counted_as_gone_goes_first(scene):
    await scene.load("a", 1)
    await scene.load("b", 1)
    await scene.load("c", 1, ordered=("b",))
    assert set(scene.bytes()) == {"a", "c"}


async def test_a_busy_instance_is_never_evicted_for_room(scene):
    busy = await scene.load("a", 20)
    scene.residency.use(busy, "t1", lambda kind, text: None)
    with pytest.raises(NoCapacity, match=r"Worker 'box-gpu-0' has no room .* 3\.0 GiB are free|4\.0 GiB"):
        await scene.load("b", 8, declared=8)
    assert set(scene.bytes()) == {"a"}


async def test_a_pinned_instance_stays(scene):
    await scene.load("a", 1)
    scene.residency.pins = frozenset({"a"})
    assert not scene.residency.evict("a", "room")
    scene.residency.pins = frozenset()
    assert scene.residency.evict("a", "room")


async def test_the_first_use_is_reported_later_ones_are_the_schedulers_own_knowledge(scene):
    residence = await scene.load("a", 1)
    before = scene.changes
    for task_id in ("t1", "t2", "t3"):
        scene.residency.use(residence, task_id, lambda kind, text: None)
        scene.residency.release(residence)
    assert scene.changes == before + 1


async def test_lines_of_an_idle_instance_belong_to_the_task_that_ran_last(scene):
    residence = await scene.load("a", 1)
    lines = []
    scene.residency.use(residence, "t1", lambda kind, text: lines.append(("t1", text)))
    scene.residency.release(residence)
    residence.emit("run", "a child")
    scene.residency.use(residence, "t2", lambda kind, text: lines.append(("t2", text)))
    residence.emit("run", "a run")
    assert lines == [("t1", "a child"), ("t2", "a run")]


async def test_killing_spares_what_has_ended_and_this_process(scene, monkeypatch):
    killed = []  # and nothing is sent: a group of 0 is the test run's own
    monkeypatch.setattr("stoker_worker.residency.signal_group", lambda pgid, _number: killed.append(pgid))
    own, ended, living = [await scene.load(key, 1) for key in ("own", "ended", "living")]
    own.instance.pgid = 0
    ended.instance.exited.set()
    scene.residency.kill()
    assert killed == [living.instance.pgid]


async def test_a_task_that_is_stopped_while_it_waits_for_memory_leaves_no_instance_behind(scene):
    await scene.load("old", 20)
    scene.device.settling.clear()
    waiting = asyncio.ensure_future(
        scene.residency.admit(order(setup_key="new").task, declared_bytes=20 * GIB)
    )
    await until(lambda: len(scene.bytes()) == 2)
    waiting.cancel()
    await asyncio.wait({waiting})
    scene.device.settling.set()
    await until(lambda: scene.bytes() == {})


async def test_an_instance_that_died_after_its_answer_is_not_warm_for_the_next_task(scene):
    residence = await scene.load("a", 6)
    scene.residency.use(residence, "t1", lambda *_: None)
    residence.instance.exited.set()
    scene.residency.release(residence)
    assert scene.residency.warm("a") is None
    await until(lambda: scene.bytes() == {})
