"""The NVIDIA devices of this machine, read through NVML. Nothing here decides anything.

A machine without NVIDIA is normal: `Nvml.open` then gives None. A device that cannot be read is a sample with
`lost` set, never an exception. Every call may block for seconds in a sick driver: call it from the sampling
thread only (`telemetry.py`).
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

import pynvml

from stoker.core.messages import GpuInfo, GpuSample, GpuType

_NO_NVIDIA: Final = frozenset(
    {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""What `nvmlInit` says on a machine that has no usable driver."""


class Nvml:
    """An open NVML session. Not safe for several threads at once."""

    def __init__(self, devices: tuple[GpuInfo, ...], driver_version: str, cuda_version: str) -> None:
        self.devices = devices
        self.driver_version = driver_version
        self.cuda_version = cuda_version

    @classmethod
    def open(cls) -> Self | None:
        """Start NVML and list the devices; None on a machine without a usable NVIDIA driver."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value in _NO_NVIDIA:
                return None
            raise
        devices = tuple(_describe(index) for index in range(pynvml.nvmlDeviceGetCount()))
        cuda = _or(pynvml.nvmlSystemGetCudaDriverVersion, 0)
        return cls(
            devices=tuple(device for device in devices if device is not None),
            driver_version=_or(pynvml.nvmlSystemGetDriverVersion, ""),
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        )

    def close(self) -> None:
        """End the session. May be called twice."""
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def sample(self) -> tuple[GpuSample, ...]:
        """One reading of each device that was found at the start."""
        return tuple(_read(device) for device in self.devices)

    def memory_by_process(self) -> dict[int, int]:
        """Bytes of GPU memory by process id, summed over the devices; empty when NVML does not tell."""
        used: dict[int, int] = {}
        for device in self.devices:
            with contextlib.suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByIndex(device.index)
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    used[process.pid] = used.get(process.pid, 0) + (process.usedGpuMemory or 0)
        return used


def _describe(index: int) -> GpuInfo | None:
    """A device as it registers; None for one that is lost already."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        return GpuInfo(
            index=index,
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            name=pynvml.nvmlDeviceGetName(handle),
            type=GpuType.NVIDIA,
            vram_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        )
    except pynvml.NVMLError:
        return None


def _read(device: GpuInfo) -> GpuSample:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:
        return lost_sample(device, f"NVML: {error}")
    # What a device may not support (virtual GPUs, old drivers) reads as 0 and does not lose the rest.
    utilisation = _or(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu, 0)
    temperature = _or(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU), 0)
    power_mw = _or(lambda: pynvml.nvmlDeviceGetPowerUsage(handle), 0)
    return GpuSample(
        index=device.index,
        uuid=device.uuid,
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        utilisation_percent=float(utilisation),
        temperature_c=float(temperature),
        power_w=power_mw / 1000,
    )


def lost_sample(device: GpuInfo, reason: str) -> GpuSample:
    """What is reported of a device that cannot be read."""
    return GpuSample(
        index=device.index,
        uuid=device.uuid,
        memory_used_bytes=0,
        memory_total_bytes=device.vram_bytes,
        utilisation_percent=0,
        lost=reason,
    )


def newly(old: Iterable[GpuSample], new: Iterable[GpuSample]) -> tuple[list[GpuSample], list[GpuSample]]:
    """Devices that were lost, and that came back, between two readings."""
    before = {sample.uuid: bool(sample.lost) for sample in old}
    lost = [s for s in new if s.lost and not before.get(s.uuid, False)]
    back = [s for s in new if not s.lost and before.get(s.uuid, False)]
    return lost, back


def _or(read: Callable[[], Any], default: Any) -> Any:
    try:
        return read()
    except pynvml.NVMLError:
        return default
