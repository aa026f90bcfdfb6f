"""The message of a heartbeat between neighbouring versions, and what of it a task's owner may see."""

import msgspec
from msgspec import Struct

from stoker.core.telemetry import (
    NO_POINT,
    GpuProcess,
    GpuSample,
    Telemetry,
    Volume,
    points,
    without_others,
    xid_text,
)

GPU = GpuSample(
    index=0,
    uuid="GPU-a",
    memory_used_bytes=1,
    memory_total_bytes=2,
    utilisation_percent=0,
    processes=(GpuProcess(pid=1, name="other", memory_bytes=1),),
    memory_history=bytes([50]),
)
NOW = Telemetry(
    cpu_percent=1,
    ram_used_bytes=1,
    ram_total_bytes=2,
    gpus=(GPU,),
    volumes=(Volume(name="/", used_bytes=1, total_bytes=2),),
    cpu_history=bytes([1]),
    ram_history=bytes([1]),
)


class FormerSample(Struct, frozen=True, kw_only=True):
    """What a control plane of the version before expects."""

    index: int
    uuid: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation_percent: float
    temperature_c: float = 0
    power_w: float = 0
    lost: str = ""


class FormerTelemetry(Struct, frozen=True, kw_only=True):
    cpu_percent: float
    ram_used_bytes: int
    ram_total_bytes: int
    gpus: tuple[FormerSample, ...] = ()
    silent_s: dict[str, float] = {}


def test_a_former_control_plane_reads_what_a_daemon_of_today_tells():
    read = msgspec.json.decode(msgspec.json.encode(NOW), type=FormerTelemetry)
    assert (read.ram_total_bytes, read.gpus[0].uuid, read.gpus[0].power_w) == (2, "GPU-a", 0)


def test_a_former_daemon_is_read_today():
    former = FormerTelemetry(
        cpu_percent=3,
        ram_used_bytes=1,
        ram_total_bytes=2,
        gpus=(
            FormerSample(
                index=0,
                uuid="GPU-a",
                memory_used_bytes=1,
                memory_total_bytes=2,
                utilisation_percent=7,
                power_w=9,
            ),
        ),
    )
    read = msgspec.json.decode(msgspec.json.encode(former), type=Telemetry)
    assert (read.gpus[0].power_w, read.gpus[0].throttled, read.gpus[0].mig, read.volumes) == (9, None, (), ())


def test_histories_survive_the_message_with_their_gaps():
    sent = msgspec.structs.replace(NOW, cpu_history=bytes([0, NO_POINT, 100]))
    read = msgspec.json.decode(msgspec.json.encode(sent), type=Telemetry)
    assert points(read.cpu_history) == [0, None, 100]


def test_the_owner_of_a_task_sees_no_other_process_and_no_folder():
    seen = without_others(NOW)
    assert (seen.gpus[0].processes, seen.gpus[0].memory_history, seen.volumes) == ((), b"", ())
    assert seen.gpus[0].memory_used_bytes == 1


def test_an_error_of_the_driver_is_told_in_words():
    assert xid_text(79) == "XID 79 (the GPU has fallen off the bus)"
    assert "999" in xid_text(999)
