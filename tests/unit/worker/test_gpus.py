"""NVML through the real bindings, on the stand-in library."""

import os

import pynvml
import pytest

from stoker.core.messages import GpuInfo, GpuType
from stoker_worker.gpus import Nvml, newly
from stoker_worker.telemetry import Sensors

GIB = 1024**3
A = f"A100 GPU-aaa {40 * GIB} {3 * GIB} 17 41 250500 0"
B = f"L4 GPU-bbb {24 * GIB} 0 0 30 0 0"
B_LOST = f"L4 GPU-bbb {24 * GIB} 0 0 30 0 15"


def test_devices_are_described(devices):
    devices.show(A, B)
    nvml = Nvml.open()
    assert nvml.devices == (
        GpuInfo(index=0, uuid="GPU-aaa", name="A100", type=GpuType.NVIDIA, vram_bytes=40 * GIB),
        GpuInfo(index=1, uuid="GPU-bbb", name="L4", type=GpuType.NVIDIA, vram_bytes=24 * GIB),
    )
    assert (nvml.driver_version, nvml.cuda_version) == ("550.54.15", "12.4")


def test_a_reading_has_memory_utilisation_temperature_and_power(devices):
    devices.show(A)
    (sample,) = Nvml.open().sample()
    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (3 * GIB, 40 * GIB)
    assert (sample.utilisation_percent, sample.temperature_c, sample.power_w) == (17, 41, 250.5)
    assert sample.lost == ""


def test_what_a_device_does_not_support_is_not_told_as_zero(devices):
    devices.show(B)
    (sample,) = Nvml.open().sample()
    assert (sample.power_w, sample.lost) == (None, "")


def test_a_lost_device_is_a_reading_with_a_reason_and_the_others_go_on(devices):
    devices.show(A, B)
    nvml = Nvml.open()
    devices.show(A, B_LOST)
    first, second = nvml.sample()
    assert (first.lost, second.lost) == ("", "NVML: GPU is lost")
    assert second.uuid == "GPU-bbb"


def test_a_device_lost_from_the_start_is_not_registered(devices):
    devices.show(A, B_LOST)
    assert [device.uuid for device in Nvml.open().devices] == ["GPU-aaa"]


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_LIBRARY_NOT_FOUND])
def test_a_machine_without_a_driver_is_normal(devices, code):
    devices.show(first=f"init {code}")
    assert Nvml.open() is None


def test_another_failure_of_nvml_is_not_hidden(devices):
    devices.show(first=f"init {pynvml.NVML_ERROR_MEMORY}")
    with pytest.raises(pynvml.NVMLError):
        Nvml.open()


def test_memory_is_told_by_process(devices):
    devices.show(f"{A} 100:2000 200:500", f"{B} 100:1000")
    nvml = Nvml.open()
    nvml.sample()
    assert nvml.memory_by_process() == {"GPU-aaa": {100: 2000, 200: 500}, "GPU-bbb": {100: 1000}}


def test_devices_that_went_and_came_are_told_once(devices):
    devices.show(A, B)
    nvml = Nvml.open()
    healthy = nvml.sample()
    devices.show(A, B_LOST)
    sick = nvml.sample()
    assert [s.index for s in newly(healthy, sick)[0]] == [1]
    assert newly(sick, sick) == ([], [])
    assert [s.index for s in newly(sick, healthy)[1]] == [1]


async def test_sensors_read_host_and_devices(devices):
    devices.show(f"{A} {os.getpid()}:{GIB}")
    sensors = Sensors(sample_s=5)
    await sensors.start()
    try:
        assert sensors.latest.ram_total_bytes > 0
        assert [gpu.uuid for gpu in sensors.latest.gpus] == ["GPU-aaa"]
        assert sensors.memory_of_tree(os.getpgid(0)) == GIB
        assert sensors.listed_bytes(frozenset({"GPU-aaa"})) == GIB
        assert sensors.used_bytes(frozenset({"GPU-aaa"})) == 3 * GIB
        assert await sensors.settle(lambda: sensors.used_bytes(frozenset({"GPU-aaa"})) == 3 * GIB)
    finally:
        await sensors.stop()


async def test_a_driver_that_hangs_counts_as_lost_devices(devices):
    devices.show(A)
    sensors = Sensors(sample_s=5, read_timeout_s=0.05)
    await sensors.start()
    devices.show(A, first="hang 1")
    try:
        (gpu,) = (await sensors.sample()).gpus
        assert gpu.lost == "NVML did not answer within 0.05 s"
    finally:
        await sensors.stop()


async def test_sensors_of_a_machine_without_nvidia_read_the_host(devices):
    devices.show(first=f"init {pynvml.NVML_ERROR_DRIVER_NOT_LOADED}")
    sensors = Sensors(sample_s=5)
    await sensors.start()
    await sensors.stop()
    assert (sensors.devices, sensors.latest.gpus) == ((), ())
    assert sensors.latest.ram_used_bytes > 0
