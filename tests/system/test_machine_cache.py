"""A machine whose cache is too small: what is in use stays, the rest goes, and the engine's report says so."""

import msgspec
import pytest
from helpers import eventually
from instances import APPS
from recorders import order
from uv import find_uv_bin
from wheels import make_wheel

from stoker.core.messages import GpuInfo, GpuType, WorkerInfo
from stoker.slot_settings import WorkerSlots
from stoker_cli.packing import pack
from stoker_worker.environment import Environments
from stoker_worker.machine import Machine, Rules
from stoker_worker.outcomes import PreparationFailed
from stoker_worker.procs import ShortPath
from stoker_worker.versions import Versions

WORKER = WorkerInfo(id="box-cpu-0", index=0)
CODE = "import tiny\nclass App:\n    def run(self, given):\n        return {tiny!r}\n"


def nothing(_kind, _text):
    """Nobody reads the log."""


class Bundles:
    """A gateway that has the code of apps."""

    def __init__(self, folder):
        self.folder = folder
        self.packed = {}
        self.fetched = []

    def add(self, folder):
        path, version_id = pack(folder, self.folder)
        self.packed[version_id] = path
        return version_id

    async def fetch_bundle(self, order, target):
        self.fetched.append(order.task.version_id)
        target.write_bytes(self.packed[order.task.version_id].read_bytes())


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("inferencesh", "pydantic", "tiny"):
        make_wheel(wheels, name)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return Bundles(tmp_path)


@pytest.fixture
def apps(tmp_path, gateway):
    """Version ids of two apps with environments of their own."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "inf.yml").write_text(f"name: {name}\nkernel: python-3.11\nenv: {{NAME: {name}}}\n")
        (folder / "inference.py").write_text(CODE.format(tiny=name))
        (folder / "requirements.txt").write_text("tiny==1.0\ninferencesh==1.0\npydantic==1.0\n")
        made.append(gateway.add(folder))
    return made


@pytest.fixture
def machine(tmp_path, gateway):
    cache = tmp_path / "cache"
    environments = Environments(cache, find_uv_bin())
    made = Machine(
        Versions(cache / "versions"),
        environments,
        gateway,
        tmp_path / "work",
        None,
        keep=(tmp_path,),
        cache_max_bytes=0,
    )
    made.clean()
    return made


async def load(machine, version_id, worker=WORKER):
    """A loaded app, as an execution loads it; the machine's hold on its preparation is over."""
    wanted = order(version_id=version_id)
    prepared = machine.prepared(wanted.task) or await machine.prepare(wanted, nothing)
    try:
        instance = await machine.start(wanted, prepared, worker, nothing)
    finally:
        prepared.release()
    await instance.setup(30)
    return wanted, instance


async def emptied(machine):
    """Clean the machine until nothing is left: the end of a process frees what it held a moment later."""

    def nothing_left():
        machine.clean()
        return machine.environment_keys() == ()

    await eventually(nothing_left, "an empty cache")


def test_short_paths_of_instances_that_a_killed_daemon_had_are_removed(machine, tmp_path):
    folder = tmp_path / "work" / ("long" * 20)
    folder.mkdir(parents=True)
    short, other = ShortPath(folder).open(), ShortPath(tmp_path / ("long" * 20))
    (tmp_path / ("long" * 20)).mkdir()
    living = other.open()
    machine.clean()
    assert not short.parent.exists()
    assert living.exists()
    other.close()


async def test_what_a_live_instance_uses_stays_and_goes_after_its_end(machine, gateway, apps):
    one, first = await load(machine, apps[0])
    first_key = machine.environment_keys()
    assert len(first_key) == 1, "it is far over the budget, and in use"
    _, second = await load(machine, apps[1])
    assert set(machine.environment_keys()) > set(first_key)
    result = await first.run(machine.run_spec(one, {}), lambda _partial: None, 30)
    assert result.output == "one"
    await first.stop("enough")

    async def first_is_gone():
        (await machine.prepare(order(version_id=apps[1]), nothing)).release()
        return first_key[0] not in machine.environment_keys()

    await eventually(first_is_gone, "the first app's environment to be removed")
    assert machine.prepared(one.task) is None
    await second.stop("enough")
    await emptied(machine)
    assert gateway.fetched == apps


async def test_variables_are_those_of_all_then_of_the_slot_then_of_the_app(machine, gateway):
    machine.rules = Rules(
        env={"TRAP_WORD": "all", "CUDA_VISIBLE_DEVICES": "none"},
        slots=WorkerSlots.model_validate(
            {"gpu": [{"gpus": [1], "env": {"TRAP_WORD": "slot"}}], "cpu": {"env": {"TRAP_WORD": "cpu"}}}
        ),
    )
    version_id = gateway.add(APPS / "traps" / "uncounted")
    device = GpuInfo(index=1, uuid="GPU-1", name="n", type=GpuType.NVIDIA, vram_bytes=1)
    other = msgspec.structs.replace(device, index=2, uuid="GPU-2")
    workers = {
        "slot": WorkerInfo(id="box-gpu-0", index=0, gpus=(device,)),
        "all": WorkerInfo(id="box-gpu-1", index=1, gpus=(other,)),
        "cpu": WORKER,
    }
    for word, worker in workers.items():
        wanted, instance = await load(machine, version_id, worker)
        result = await instance.run(machine.run_spec(wanted, {}), lambda _partial: None, 30)
        devices = ",".join(gpu.uuid for gpu in worker.gpus)
        assert result.output == {"devices": devices, "word": word}, (
            "an app that counts no GPU sees its worker's"
        )
        await instance.stop("enough")
    await emptied(machine)


async def test_what_went_is_fetched_and_built_again(machine, gateway, apps):
    _, instance = await load(machine, apps[0])
    await instance.stop("enough")
    await emptied(machine)
    one, again = await load(machine, apps[0])
    assert (await again.run(machine.run_spec(one, {}), lambda _partial: None, 30)).output == "one"
    await again.stop("enough")
    assert gateway.fetched == [apps[0], apps[0]]


async def test_a_preparation_that_failed_holds_nothing(machine, apps, monkeypatch):
    def refuse(path):
        raise OSError("the disk is gone")

    monkeypatch.setattr("stoker_worker.machine.manifest.load", refuse)
    with pytest.raises(PreparationFailed, match="the disk is gone"):
        await machine.prepare(order(version_id=apps[0]), nothing)
    monkeypatch.undo()
    machine.clean()
    assert machine.prepared(order(version_id=apps[0]).task) is None
