"""What the driver tells of a device beside its memory, through the real bindings, on the stand-in library."""

import os
import subprocess
import sys

import msgspec
import pytest
from structlog.testing import capture_logs

from stoker.core.events import Event
from stoker.core.telemetry import HISTORY_POINTS, GpuProcess, GpuSample, MigInstance, Xid, points
from stoker_worker.gpus import Nvml
from stoker_worker.telemetry import Sensors
from stoker_worker.xids import XidEvents

GIB = 1024**3
A = f"A100 GPU-aaa {40 * GIB} {3 * GIB} 17 41 250500 0"
B = f"L4 GPU-bbb {24 * GIB} 0 0 30 0 0"
FULL = (
    f"{A} memory_utilisation=9 power_limit=400000 clock=1410 clock_max=1980 memory_clock=1215 memory_clock_max=1593 "
    "ecc_corrected=4 ecc_uncorrected=1"
)


def test_a_reading_has_limits_clocks_and_memory_errors(devices):
    devices.show(FULL)
    (sample,) = Nvml.open().sample()
    assert sample.memory_utilisation_percent == 9
    assert sample.power_limit_w == 400
    assert (sample.clock_mhz, sample.clock_max_mhz) == (1410, 1980)
    assert (sample.memory_clock_mhz, sample.memory_clock_max_mhz) == (1215, 1593)
    assert (sample.ecc_corrected, sample.ecc_uncorrected) == (4, 1)


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x00, ()),
        (0x01, ()),  # idle
        (0x02, ()),  # clocks that a person has set
        (0x04, ("power cap",)),
        (0x48, ("hardware slowdown", "hardware thermal slowdown")),
    ],
)
def test_what_slows_a_device_down_is_named(devices, bits, reasons):
    devices.show(f"{A} throttle={bits}")
    (sample,) = Nvml.open().sample()
    assert sample.throttled == reasons


def test_what_is_not_told_is_left_out_of_the_message(devices):
    devices.show(B)
    (sample,) = Nvml.open().sample()
    assert (sample.throttled, sample.clock_mhz, sample.ecc_corrected, sample.power_limit_w) == (None,) * 4
    told = msgspec.json.decode(msgspec.json.encode(sample))
    assert set(told) == {
        "index",
        "uuid",
        "memory_used_bytes",
        "memory_total_bytes",
        "utilisation_percent",
        "memory_utilisation_percent",
        "temperature_c",
    }


def test_the_parts_of_a_divided_device_are_read(devices):
    devices.show(f"{A} mig=MIG-1/1g.5gb/{5 * GIB}/{GIB} mig=MIG-2/2g.10gb/{10 * GIB}/0", B)
    divided, whole = Nvml.open().sample()
    assert divided.mig == (
        MigInstance(id=1, uuid="MIG-1", name="1g.5gb", memory_used_bytes=GIB, memory_total_bytes=5 * GIB),
        MigInstance(id=2, uuid="MIG-2", name="2g.10gb", memory_used_bytes=0, memory_total_bytes=10 * GIB),
    )
    assert (divided.utilisation_told, whole.utilisation_told, whole.mig) == (False, True, ())


def test_processes_are_told_with_their_names_the_largest_first(devices):
    devices.show(f"{A} 4194305:100 {os.getpid()}:{GIB}")  # no process has the first number
    (sample,) = Nvml.open().sample()
    first, second = sample.processes
    assert (first.pid, first.memory_bytes) == (os.getpid(), GIB)
    assert first.name
    assert second == GpuProcess(pid=4194305, name="", memory_bytes=100)


def test_errors_that_the_driver_tells_are_noted_once(devices):
    devices.show(A, B)
    nvml = Nvml.open()
    assert [sample.xid_count for sample in nvml.sample()] == [0, 0]
    devices.show(A, B, "xid 1 1 31", "xid 2 1 79")
    first, second = nvml.sample()
    assert (first.xids, [xid.code for xid in second.xids], second.xid_count) == ((), [31, 79], 2)
    assert nvml.sample()[1].xid_count == 2


def test_an_error_has_the_time_at_which_it_was_read(devices):
    devices.show(A, "xid 1 0 48")
    nvml = Nvml.open()
    nvml._xids._clock = lambda: 7.5
    (sample,) = nvml.sample()
    assert sample.xids == (Xid(code=48, at_ms=7500),)


def test_a_lost_device_still_tells_its_errors(devices):
    devices.show(A)
    nvml = Nvml.open()
    devices.show(A.removesuffix(" 0") + " 15", "xid 1 0 79")
    (sample,) = nvml.sample()
    assert (sample.lost, [xid.code for xid in sample.xids]) == ("NVML: GPU is lost", [79])


def test_events_may_be_closed_without_having_been_opened():
    XidEvents().close()


def test_an_old_driver_tells_what_it_has(old_driver, tmp_path):
    """Under the older names of functions, and without MIG and events; nothing fails."""
    (tmp_path / "devices").write_text(f"{FULL} throttle=4 mig=MIG-1/1g.5gb/1/1 100:2000\n")
    program = (
        "import sys, msgspec\n"
        "from stoker_worker.gpus import Nvml\n"
        "nvml = Nvml.open()\n"
        "sys.stdout.write(msgspec.json.encode([nvml.sample(), nvml.memory_by_process()]).decode())\n"
        "nvml.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"LD_LIBRARY_PATH": str(old_driver), "NVML_STANDIN": str(tmp_path / "devices")},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    (sample,), held = msgspec.json.decode(
        done.stdout or "[[], {}]", type=tuple[list[GpuSample], dict[str, dict[int, int]]]
    )
    assert sample.memory_used_bytes == 3 * GIB, done.stderr
    assert (sample.throttled, sample.clock_mhz, held) == (("power cap",), 1410, {"GPU-aaa": {100: 2000}})
    assert (sample.mig, sample.xids, sample.lost) == ((), (), "")


async def sensing(folders=()):
    sensors = Sensors(sample_s=5, folders=folders)
    await sensors.start()
    return sensors


async def test_an_error_is_logged_once_and_what_an_app_did_is_a_warning(devices):
    devices.show(A)
    sensors = await sensing()
    devices.show(A, "xid 1 0 31", "xid 2 0 79")
    with capture_logs() as logs:
        await sensors.sample()
        await sensors.sample()
    await sensors.stop()
    told = [(log["log_level"], log["xid"]) for log in logs if log["event"] == Event.GPU_XID]
    assert told == [("warning", 31), ("error", 79)]


async def test_a_history_grows_with_the_regular_readings_alone(devices):
    devices.show(A, B)
    sensors = await sensing()
    await sensors.sample()  # somebody waits for memory: no regular one
    devices.show(A.replace(" 17 41", " 50 41"), B.removesuffix(" 0") + " 15")
    await sensors._sample_and_remember()
    await sensors.stop()
    first, second = sensors.latest.gpus
    assert points(first.memory_history) == [8, 8]
    assert points(first.utilisation_history) == [17, 50]
    assert (points(second.memory_history), second.lost != "") == ([0, None], True)
    assert (len(sensors.latest.cpu_history), len(sensors.latest.ram_history)) == (2, 2)
    assert sensors.latest.history_s == 5


async def test_a_history_is_bounded(devices):
    devices.show(A)
    sensors = await sensing()
    for _ in range(HISTORY_POINTS + 5):
        await sensors._sample_and_remember()
    await sensors.stop()
    assert len(sensors.latest.gpus[0].memory_history) == HISTORY_POINTS


async def test_load_and_disks_are_read_each_file_system_once(devices, tmp_path):
    devices.show(A)
    sensors = await sensing((tmp_path / "not" / "yet", tmp_path))
    await sensors.stop()
    assert len(sensors.latest.load) == 3
    (volume,) = sensors.latest.volumes
    assert volume.name == str(tmp_path / "not" / "yet")
    assert 0 < volume.used_bytes <= volume.total_bytes


async def test_a_disk_that_hangs_costs_no_gpu(devices, tmp_path, monkeypatch):
    import threading

    released = threading.Event()
    devices.show(A)
    monkeypatch.setattr("stoker_worker.telemetry.DISK_TIMEOUT_S", 0.01)
    monkeypatch.setattr("stoker_worker.telemetry.read_volumes", lambda folders: released.wait(30))
    sensors = await sensing((tmp_path,))
    released.set()
    await sensors.stop()
    (gpu,) = sensors.latest.gpus
    assert (sensors.latest.volumes, gpu.lost) == ((), "")


async def test_errors_are_not_told_again_after_the_driver_was_silent(devices):
    devices.show(A, "xid 1 0 79")
    sensors = await sensing()
    sensors._read_timeout_s = 0
    (silent,) = (await sensors.sample()).gpus
    assert (silent.lost != "", silent.xid_count) == (True, 1)
    sensors._read_timeout_s = 30
    with capture_logs() as logs:
        await sensors.sample()
    await sensors.stop()
    assert [log for log in logs if log["event"] == Event.GPU_XID] == []


def holding(size):
    return f"A100 GPU-aaa {40 * GIB} {size * GIB} 0 41 250500 0"


async def test_memory_that_comes_back_late_is_waited_for(devices, monkeypatch):
    monkeypatch.setattr("stoker_worker.telemetry.SETTLE_POLL_S", 0)
    devices.show(holding(30))
    sensors = await sensing()
    readings = []

    def on_sample():
        readings.append(sensors.used_bytes(frozenset({"GPU-aaa"})))
        if len(readings) == 3:
            devices.show(holding(1))

    sensors.on_sample(on_sample)
    assert await sensors.settle(lambda: sensors.used_bytes(frozenset({"GPU-aaa"})) <= 2 * GIB)
    await sensors.stop()
    assert readings == [30 * GIB] * 3 + [GIB]


async def test_memory_that_never_comes_back_is_told_in_the_end(devices, monkeypatch):
    monkeypatch.setattr("stoker_worker.telemetry.SETTLE_TIMEOUT_S", 0)
    monkeypatch.setattr("stoker_worker.telemetry.SETTLE_POLL_S", 0)
    devices.show(holding(30))
    sensors = await sensing()
    assert not await sensors.settle(lambda: sensors.used_bytes(frozenset({"GPU-aaa"})) <= 2 * GIB)
    await sensors.stop()


def test_a_device_is_read_by_its_id_for_indices_move(devices):
    devices.show(A, B)
    nvml = Nvml.open()
    devices.show(B)
    first, second = nvml.sample()
    assert (first.lost != "", second.lost, second.temperature_c) == (True, "", 30)
