"""The readings of machines, as clients and Prometheus read them."""

import msgspec

from stoker.core.messages import EngineInfo, EngineView, GpuInfo, GpuType, WorkerInfo
from stoker.core.telemetry import NO_POINT, GpuProcess, GpuSample, MigInstance, Telemetry, Volume, Xid
from stoker_gateway.fleet_dto import engine_dto, worker_dto
from stoker_gateway.machine_metrics import machine_lines

GPUS = tuple(
    GpuInfo(index=index, uuid=f"GPU-{index}", name="L4", type=GpuType.NVIDIA, vram_bytes=100)
    for index in range(2)
)
WORKER = WorkerInfo(id="box-gpu-0", index=0, gpus=GPUS)
INFO = EngineInfo(
    id="box",
    name="box",
    version="1",
    hostname="box",
    workers=(WORKER,),
    driver_version="550",
    cuda_version="12.4",
)
FULL = GpuSample(
    index=0,
    uuid="GPU-0",
    memory_used_bytes=40,
    memory_total_bytes=100,
    utilisation_percent=17,
    memory_utilisation_percent=9,
    temperature_c=41,
    power_w=250.5,
    power_limit_w=400,
    clock_mhz=1410,
    clock_max_mhz=1980,
    memory_clock_mhz=1215,
    memory_clock_max_mhz=1593,
    throttled=("power cap",),
    ecc_corrected=4,
    ecc_uncorrected=1,
    xids=(Xid(code=79, at_ms=1000), Xid(code=1, at_ms=10**30)),
    xid_count=3,
    mig=(MigInstance(id=1, uuid="MIG-1", name="1g", memory_used_bytes=1, memory_total_bytes=5),),
    processes=(GpuProcess(pid=7, name="python", memory_bytes=30),),
    memory_history=bytes([39, 40]),
    utilisation_history=bytes([NO_POINT, 17]),
)
BARE = GpuSample(
    index=1,
    uuid="GPU-1",
    memory_used_bytes=5,
    memory_total_bytes=100,
    utilisation_percent=0,
    utilisation_told=False,
)


def engine_with(*gpus, status="running"):
    host = Telemetry(
        cpu_percent=12,
        ram_used_bytes=1,
        ram_total_bytes=4,
        gpus=gpus,
        load=(0.5, 0.25, 0.1),
        volumes=(Volume(name='/data "x"', used_bytes=3, total_bytes=4),),
        history_s=5,
        cpu_history=bytes([10, 12]),
        ram_history=bytes([25, 25]),
    )
    return EngineView(info=INFO, status=status, registered_ms=0, seen_ms=0, telemetry=host)


def test_an_engine_shows_every_reading_of_its_devices():
    gpu = engine_dto(engine_with(FULL), {})["system_info"]["gpus"][0]
    assert gpu["utilization"] == 17
    assert (gpu["driver_version"], gpu["cuda_version"]) == ("550", "12.4")
    assert (gpu["power"], gpu["power_limit"], gpu["temperature"], gpu["memory_utilization"]) == (
        250.5,
        400,
        41,
        9,
    )
    assert [gpu[name] for name in ("clock", "clock_max", "memory_clock", "memory_clock_max")] == [
        1410,
        1980,
        1215,
        1593,
    ]
    assert (gpu["throttled"], gpu["ecc"]) == (("power cap",), {"corrected": 4, "uncorrected": 1})
    assert gpu["processes"] == [{"pid": 7, "name": "python", "memory": 30}]
    assert gpu["mig"] == [{"id": 1, "uuid": "MIG-1", "name": "1g", "memory_used": 1, "memory_total": 5}]
    assert gpu["history"] == {"interval_s": 5, "memory": [39, 40], "utilization": [None, 17]}


def test_an_error_has_its_meaning_and_its_time_unless_that_is_none():
    gpu = engine_dto(engine_with(FULL), {})["system_info"]["gpus"][0]
    assert gpu["xid_count"] == 3
    assert [(xid["code"], xid["at"]) for xid in gpu["xids"]] == [(79, "1970-01-01T00:00:01.000Z"), (1, None)]
    assert "fallen off the bus" in gpu["xids"][0]["meaning"]


def test_what_a_machine_does_not_tell_is_null_and_not_zero():
    gpu = engine_dto(engine_with(FULL, BARE), {})["system_info"]["gpus"][1]
    unknown = ("utilization", "power", "power_limit", "clock", "throttled", "ecc", "memory_utilization")
    assert [gpu[name] for name in unknown] == [None] * len(unknown)
    assert (gpu["memory_used"], gpu["lost"]) == (5, None)


def test_a_host_shows_its_load_its_disks_and_what_was_before():
    info = engine_dto(engine_with(FULL), {})["system_info"]
    assert info["load"] == (0.5, 0.25, 0.1)
    assert info["volumes"] == [{"name": '/data "x"', "size": 4, "used": 3, "free": 1, "usage": 75.0}]
    assert info["history"] == {"interval_s": 5, "cpu": [10, 12], "ram": [25, 25]}


def test_a_worker_has_the_readings_of_now_alone():
    gpu = worker_dto(engine_with(FULL), WORKER, {})["system_info"]["gpus"][0]
    assert "history" not in gpu
    assert "processes" not in gpu
    assert gpu["power"] == 250.5


def test_a_machine_that_told_nothing_yet_is_shown():
    engine = EngineView(info=INFO, status="running", registered_ms=0, seen_ms=0)
    info = engine_dto(engine, {})["system_info"]
    assert (info["gpus"][0]["memory_total"], info["volumes"]) == (100, [])


def lines_of(*engines):
    return list(machine_lines(engines))


def test_every_reading_is_measured():
    lines = lines_of(engine_with(FULL))
    device = 'engine="box",gpu="0",uuid="GPU-0"'
    for line in (
        f"stoker_gpu_memory_total_bytes{{{device}}} 100",
        f"stoker_gpu_utilisation_percent{{{device}}} 17",
        f"stoker_gpu_memory_utilisation_percent{{{device}}} 9",
        f"stoker_gpu_temperature_celsius{{{device}}} 41",
        f"stoker_gpu_power_watts{{{device}}} 250.5",
        f"stoker_gpu_power_limit_watts{{{device}}} 400",
        f"stoker_gpu_clock_mhz{{{device}}} 1410",
        f"stoker_gpu_memory_clock_mhz{{{device}}} 1215",
        f'stoker_gpu_ecc_errors{{{device},kind="uncorrected"}} 1',
        f'stoker_gpu_throttled{{{device},reason="power cap"}} 1',
        f"stoker_gpu_xid_total{{{device}}} 3",
        f"stoker_gpu_lost{{{device}}} 0",
        f'stoker_mig_memory_used_bytes{{{device},mig="MIG-1"}} 1',
        'stoker_host_cpu_percent{engine="box"} 12',
        'stoker_host_memory_total_bytes{engine="box"} 4',
        'stoker_host_load{engine="box",minutes="5"} 0.25',
    ):
        assert line in lines


def test_what_is_not_told_is_not_measured():
    assert not [
        line
        for line in lines_of(engine_with(BARE))
        if line.startswith(("stoker_gpu_power", "stoker_gpu_util"))
    ]


def test_a_lost_device_has_no_reading_and_is_told_as_lost():
    lost = msgspec.structs.replace(BARE, lost="NVML: GPU is lost")
    told = [line for line in lines_of(engine_with(lost)) if line.startswith("stoker_gpu")]
    device = 'engine="box",gpu="1",uuid="GPU-1"'
    assert told == [f"stoker_gpu_lost{{{device}}} 1", f"stoker_gpu_xid_total{{{device}}} 0"]


def test_a_machine_that_is_gone_is_not_measured():
    assert not [line for line in lines_of(engine_with(FULL, status="lost")) if not line.startswith("#")]


def test_the_name_of_a_disk_cannot_break_a_line():
    assert 'stoker_host_volume_used_bytes{engine="box",volume="/data \\"x\\""} 3' in lines_of(
        engine_with(FULL)
    )
