"""Who the engine is and which workers it has."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.core.messages import GpuInfo, GpuType
from stoker.settings import InvalidSettings, WorkerSettings
from stoker.slot_settings import WorkerSlots
from stoker_worker.identity import (
    decide_engine_id,
    decide_workers,
    describe_engine,
    read_engine_id,
    write_engine_id,
)


def gpu(index):
    return GpuInfo(index=index, uuid=f"GPU-{index}", name="L4", type=GpuType.NVIDIA, vram_bytes=1)


def workers(devices=(), **slots):
    found = decide_workers(
        "box", WorkerSlots(**slots), [gpu(i) for i in devices], max_residents=3, ram_bytes=9
    )
    return {worker.id: [device.index for device in worker.gpus] for worker in found}


@pytest.mark.parametrize(
    ("devices", "slots", "expected"),
    [
        ((), {}, {"box-cpu-0": [], "box-cpu-1": []}),
        ((0, 1), {}, {"box-gpu-0": [0], "box-gpu-1": [1]}),
        ((0, 1), {"gpu": [{"gpus": [0, 1]}]}, {"box-gpu-0": [0, 1]}),
        ((0,), {"cpu": {"count": 1}}, {"box-gpu-0": [0], "box-cpu-0": []}),
        ((0,), {"gpu": []}, {"box-cpu-0": [], "box-cpu-1": []}),
        ((), {"cpu": {"count": 0}}, {}),
    ],
)
def test_workers_are_as_configured_else_one_for_each_gpu_else_two_for_the_cpu(devices, slots, expected):
    assert workers(devices, **slots) == expected


def test_workers_are_counted_through():
    found = decide_workers("box", WorkerSlots(cpu={"count": 2}), [gpu(0)], max_residents=3, ram_bytes=9)
    assert [(worker.index, worker.max_residents, worker.ram_bytes) for worker in found] == [
        (0, 3, 9),
        (1, 3, 9),
        (2, 3, 9),
    ]


def test_a_gpu_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(InvalidSettings, match=r"names GPU 7; found here: 0, 1"):
        workers((0, 1), gpu=[{"gpus": [0, 7]}])


def test_the_id_of_an_engine_is_kept(tmp_path):
    folder = tmp_path / "box"
    assert read_engine_id(folder) is None
    write_engine_id(folder, "box-2")
    assert read_engine_id(folder) == "box-2"


def test_an_id_that_cannot_stand_in_a_key_is_refused(tmp_path):
    (tmp_path / "engine-id").write_text("a:b\n")
    with pytest.raises(InvalidRequest, match="engine id 'a:b' is not usable"):
        read_engine_id(tmp_path)


def test_a_name_that_another_machine_has_gets_a_suffix():
    assert decide_engine_id("box", taken=False) == "box"
    other = decide_engine_id("box", taken=True)
    assert other.startswith("box-")
    assert len(other) == len("box-") + 6


def test_the_machine_is_described(tmp_path):
    info = describe_engine(
        "box", WorkerSettings(name="Box", data_dir=tmp_path), [], driver_version="", cuda_version=""
    )
    assert (info.id, info.name, len(info.workers)) == ("box", "box", 2)
    assert info.ram_bytes > 0
    assert info.cpu_cores > 0


def test_the_machine_says_how_long_it_may_fetch_the_files_of_an_input(tmp_path):
    settings = WorkerSettings(name="Box", data_dir=tmp_path, fetch_timeout_s=7_200)
    assert describe_engine("box", settings, [], driver_version="", cuda_version="").fetch_timeout_s == 7_200
