"""What a worker machine reads of itself, as every heartbeat carries it.

A field that was added later has a default and is left out when it has nothing to say: a daemon and a control plane of
neighbouring versions read each other. None = the driver does not tell; it is never shown as 0.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, structs

HISTORY_POINTS: Final = 60
"""Readings that a history holds: five minutes at the default pace, and 80 bytes of JSON a series."""
NO_POINT: Final = 255
"""In a history: it could not be read then."""
XIDS_KEPT: Final = 8
PROCESSES_TOLD: Final = 16
"""Of a device, those that hold most; the rest is counted in the device's memory all the same."""

XID_MEANINGS: Final = {
    13: "an app's kernel failed",
    31: "an app used memory that is not its own",
    43: "an app's work was stopped",
    45: "an app's work was cleaned up",
    48: "memory failed and could not be corrected",
    61: "the device's controller gave a warning",
    62: "the device's controller stopped",
    63: "bad memory was set aside",
    64: "bad memory could not be set aside",
    74: "a link to another GPU failed",
    79: "the GPU has fallen off the bus",
    92: "many memory errors were corrected",
    94: "memory failed; one app was hit",
    95: "memory failed; more than one app may be hit",
    119: "the device's processor does not answer",
    120: "the device's processor failed",
}
"""Of the numbers that are met most; NVIDIA's "XID Errors" has all of them."""
XIDS_OF_APPS: Final = frozenset({13, 31, 43, 45})
"""What an app's own mistake brings about: the device is well."""


class Xid(Struct, frozen=True, kw_only=True):
    """An error that the driver told of a device. `at_ms` is of the machine's clock."""

    code: int
    at_ms: int


class MigInstance(Struct, frozen=True, kw_only=True):
    """A part of a device that is divided."""

    id: int
    uuid: str
    name: str
    memory_used_bytes: int
    memory_total_bytes: int


class GpuProcess(Struct, frozen=True, kw_only=True):
    """A process that holds memory of a device."""

    pid: int
    name: str
    memory_bytes: int


class GpuSample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reading of one device."""

    index: int
    uuid: str
    memory_used_bytes: int
    memory_total_bytes: int
    utilisation_percent: float  # 0 where `utilisation_told` is False
    utilisation_told: bool = True  # a divided device has none
    memory_utilisation_percent: float | None = None  # share of the time in which memory was read or written
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_mhz: int | None = None
    clock_max_mhz: int | None = None
    memory_clock_mhz: int | None = None
    memory_clock_max_mhz: int | None = None
    throttled: tuple[str, ...] | None = None  # what keeps the clocks down; being idle does not count
    ecc_corrected: int | None = None  # since the driver was loaded
    ecc_uncorrected: int | None = None
    xids: tuple[Xid, ...] = ()  # the latest, oldest first
    xid_count: int = 0  # since the daemon began
    mig: tuple[MigInstance, ...] = ()
    processes: tuple[GpuProcess, ...] = ()  # those with most memory first
    memory_history: bytes = b""  # percent, one byte a point, oldest first
    utilisation_history: bytes = b""
    lost: str = ""  # why the device cannot be read, else empty


class Volume(Struct, frozen=True, kw_only=True):
    """A file system that the daemon keeps something on."""

    name: str
    used_bytes: int
    total_bytes: int


class Telemetry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every heartbeat carries."""

    cpu_percent: float
    ram_used_bytes: int
    ram_total_bytes: int
    gpus: tuple[GpuSample, ...] = ()
    silent_s: dict[str, float] = {}  # loop -> seconds since its last useful read
    load: tuple[float, ...] = ()  # mean number of runnable processes over 1, 5 and 15 minutes
    volumes: tuple[Volume, ...] = ()
    history_s: float = 0  # between two points of the histories
    cpu_history: bytes = b""
    ram_history: bytes = b""


def xid_text(code: int) -> str:
    """An XID in words."""
    return f"XID {code} ({XID_MEANINGS.get(code, 'see NVIDIA, XID Errors')})"


def points(history: Sequence[int]) -> list[int | None]:
    """A history as percents, None for what could not be read."""
    return [None if point == NO_POINT else point for point in history[-HISTORY_POINTS:]]


def without_others(telemetry: Telemetry) -> Telemetry:
    """What whoever has a task on the machine may see of it: the readings of now, and no other process."""
    return structs.replace(
        telemetry,
        gpus=tuple(
            structs.replace(gpu, processes=(), memory_history=b"", utilisation_history=b"")
            for gpu in telemetry.gpus
        ),
        volumes=(),
        cpu_history=b"",
        ram_history=b"",
    )
