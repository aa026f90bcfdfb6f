"""The NVIDIA devices of this machine, read through NVML. Nothing here decides anything.

A machine without NVIDIA is normal: `Nvml.open` then gives None. A device that cannot be read is a sample with
`lost` set, never an exception. Every call may block for seconds in a sick driver: call it from the sampling
thread only (`telemetry.py`).
"""

import contextlib
from collections.abc import Iterable
from typing import Final, Self

import pynvml
from msgspec import structs

from stoker.core.messages import GpuInfo, GpuType
from stoker.core.telemetry import GpuSample, Xid
from stoker_worker.gpu_readings import Limits, read_device, read_limits, told
from stoker_worker.xids import XidEvents

_NO_NVIDIA: Final = frozenset(
    {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""What `nvmlInit` says on a machine that has no usable driver."""
_DRIVER_SAYS: Final = "NVML: "


class Nvml:
    """An open NVML session. Not safe for several threads at once."""

    def __init__(self, devices: tuple[GpuInfo, ...], driver_version: str, cuda_version: str) -> None:
        self.devices = devices
        self.driver_version = driver_version
        self.cuda_version = cuda_version
        self._limits: dict[str, Limits] = {}
        self._xids = XidEvents()
        self._held: dict[str, dict[int, int]] = {}
        self._sick = False

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
        cuda = told(pynvml.nvmlSystemGetCudaDriverVersion) or 0
        opened = cls(
            devices=tuple(device for device in devices if device is not None),
            driver_version=told(pynvml.nvmlSystemGetDriverVersion) or "",
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        )
        opened._prepare()
        return opened

    def _prepare(self) -> None:
        """Read what stays as it is, and listen to what the driver tells of itself."""
        handles = {}
        for device in self.devices:
            with contextlib.suppress(pynvml.NVMLError):
                handles[device.uuid] = handle = pynvml.nvmlDeviceGetHandleByUUID(device.uuid)
                self._limits[device.uuid] = read_limits(handle)
        self._xids.open(handles)

    def close(self) -> None:
        """End the session. May be called twice."""
        self._xids.close()
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def sample(self) -> tuple[GpuSample, ...]:
        """One reading of each device that was found at the start.

        A session in which a device was lost never finds it again: the next reading is made in a new one.
        """
        self._xids.take()
        if self._sick:
            self._reopen()
        self._held = {}
        samples = tuple(self._read(device) for device in self.devices)
        self._sick = any(sample.lost for sample in samples)
        return samples

    def memory_by_process(self) -> dict[str, dict[int, int]]:
        """Bytes of GPU memory by device and process at the last `sample`; empty where NVML does not tell."""
        return self._held

    def _reopen(self) -> None:
        self.close()
        with contextlib.suppress(pynvml.NVMLError):  # each device says so itself
            pynvml.nvmlInit()
            self._prepare()

    def _read(self, device: GpuInfo) -> GpuSample:
        latest, count = self._xids.of(device.uuid)
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(device.uuid)  # indices move when a device is lost
            sample, self._held[device.uuid] = read_device(
                device, handle, self._limits.get(device.uuid, Limits())
            )
        except pynvml.NVMLError as error:
            lost = lost_sample(device, f"{_DRIVER_SAYS}{error}")
            return structs.replace(lost, xids=latest, xid_count=count)
        return structs.replace(sample, xids=latest, xid_count=count)


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


def lost_sample(device: GpuInfo, reason: str) -> GpuSample:
    """What is reported of a device that cannot be read."""
    return GpuSample(
        index=device.index,
        uuid=device.uuid,
        memory_used_bytes=0,
        memory_total_bytes=device.vram_bytes,
        utilisation_percent=0,
        utilisation_told=False,
        lost=reason,
    )


def is_gone(sample: GpuSample) -> bool:
    """Whether the driver itself says that a device is lost; one that only does not answer may work on."""
    return sample.lost.startswith(_DRIVER_SAYS)


def newly(old: Iterable[GpuSample], new: Iterable[GpuSample]) -> tuple[list[GpuSample], list[GpuSample]]:
    """Devices that were lost, and that came back, between two readings."""
    before = {sample.uuid: bool(sample.lost) for sample in old}
    lost = [s for s in new if s.lost and not before.get(s.uuid, False)]
    back = [s for s in new if not s.lost and before.get(s.uuid, False)]
    return lost, back


def fresh_xids(old: Iterable[GpuSample], new: Iterable[GpuSample]) -> list[tuple[GpuSample, Xid]]:
    """Errors that the driver told between two readings, as far as they are kept."""
    before = {sample.uuid: sample.xid_count for sample in old}
    found = []
    for sample in new:
        count = max(0, sample.xid_count - before.get(sample.uuid, 0))
        found += [(sample, xid) for xid in sample.xids[max(0, len(sample.xids) - count) :]]
    return found
