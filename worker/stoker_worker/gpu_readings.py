"""One reading of one NVIDIA device: each value by itself, for a driver may lack any of them.

A device without memory figures counts as lost. Everything else that it does not tell is left out (None).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pynvml
from msgspec import Struct

from stoker.core.messages import GpuInfo
from stoker.core.telemetry import PROCESSES_TOLD, GpuProcess, GpuSample, MigInstance

T = TypeVar("T")

_THROTTLES: Final = {
    0x04: "power cap",  # the driver keeps to the power limit
    0x08: "hardware slowdown",
    0x10: "sync boost",  # another GPU of its group is slower
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",  # the machine's power supply asked for it
}
"""Bits of nvml.h that mean less speed than was asked for. An idle device, or clocks that a person has set, do not."""
_MANY_MIG: Final = 8
"""A device has seven parts at most; a driver that says more is not believed."""


class Limits(Struct, frozen=True, kw_only=True):
    """What of a device does not change while the driver runs. None = not told."""

    clock_max_mhz: int | None = None
    memory_clock_max_mhz: int | None = None


def told(read: Callable[[], T]) -> T | None:
    """A value; None when this driver or device does not have it."""
    try:
        return read()
    except pynvml.NVMLError:
        return None


def read_limits(handle: Any) -> Limits:
    """Read once, at the start."""
    return Limits(
        clock_max_mhz=told(lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        memory_clock_max_mhz=told(lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
    )


def read_device(device: GpuInfo, handle: Any, limits: Limits) -> tuple[GpuSample, dict[int, int]]:
    """A device as it is now, and the bytes of it that each process holds.

    Raises:
        NVMLError: it does not even tell its memory: it is lost.
    """
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    rates = told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    temperature = told(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    held = _processes(handle)
    sample = GpuSample(
        index=device.index,
        uuid=device.uuid,
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        utilisation_percent=float(rates.gpu) if rates else 0.0,
        utilisation_told=rates is not None,
        memory_utilisation_percent=float(rates.memory) if rates else None,
        temperature_c=None if temperature is None else float(temperature),
        power_w=_watts(told(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))),
        power_limit_w=_watts(told(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))),
        clock_mhz=told(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        clock_max_mhz=limits.clock_max_mhz,
        memory_clock_mhz=told(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
        memory_clock_max_mhz=limits.memory_clock_max_mhz,
        throttled=_throttled(handle),
        ecc_corrected=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ecc_uncorrected=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        mig=_mig(handle),
        processes=_named(held),
    )
    return sample, held


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _ecc(handle: Any, kind: int) -> int | None:
    return told(lambda: pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC))


def _throttled(handle: Any) -> tuple[str, ...] | None:
    """What slows the device down. The function has another name since the driver 535."""
    bits = told(lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    if bits is None:
        bits = told(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    return None if bits is None else tuple(name for bit, name in _THROTTLES.items() if bits & bit)


def _mig(handle: Any) -> tuple[MigInstance, ...]:
    """The parts of a device that is divided. They may change while the daemon runs."""
    mode = told(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return ()
    count = told(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    parts = (told(partial(_part, handle, number)) for number in range(min(count, _MANY_MIG)))
    return tuple(part for part in parts if part is not None)


def _part(device: Any, number: int) -> MigInstance:
    handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, number)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return MigInstance(
        id=pynvml.nvmlDeviceGetGpuInstanceId(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=told(lambda: pynvml.nvmlDeviceGetName(handle)) or "",
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
    )


def _processes(handle: Any) -> dict[int, int]:
    """Bytes by process id; empty when the driver does not tell. A driver before 510 has the function under its older name."""
    found = told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))
    if found is None:
        found = told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)) or []
    held: dict[int, int] = {}
    for process in found:
        held[process.pid] = held.get(process.pid, 0) + (process.usedGpuMemory or 0)
    return held


def _named(held: dict[int, int]) -> tuple[GpuProcess, ...]:
    most = sorted(held.items(), key=lambda item: (-item[1], item[0]))[:PROCESSES_TOLD]
    return tuple(GpuProcess(pid=pid, name=_name(pid), memory_bytes=size) for pid, size in most)


def _name(pid: int) -> str:
    """The process's name; "" for one that is gone, or of another process namespace."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
