"""Errors that the NVIDIA driver tells of its devices while they happen (XIDs), collected without waiting.

Where the driver has no events (WSL, virtual GPUs, old versions) there are none, and nobody is told otherwise.
"""

import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import pynvml

from stoker.core.telemetry import XIDS_KEPT, Xid

_TAKEN_AT_ONCE: Final = 64
"""A device that fails may tell more than anybody wants to read."""


class XidEvents:
    """The events of an NVML session. To be used in the sampling thread alone."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._set: Any = None
        self._uuids: dict[int | None, str] = {}
        self._latest: dict[str, deque[Xid]] = {}
        self._counts: dict[str, int] = {}

    def open(self, handles: Mapping[str, Any]) -> None:
        """Listen to devices, by UUID; to those that have events."""
        try:
            self._set = pynvml.nvmlEventSetCreate()
        except pynvml.NVMLError:
            return
        for uuid, handle in handles.items():
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._set)
                self._uuids[_address(handle)] = uuid

    def take(self) -> None:
        """Note what has happened since the last time. Does not wait."""
        if self._set is None:
            return
        for _ in range(_TAKEN_AT_ONCE):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, 0)
            except pynvml.NVMLError:  # nothing more, or a device that is lost: the readings tell of that
                return
            uuid = self._uuids.get(_address(event.device))
            if uuid is not None and event.eventType & pynvml.nvmlEventTypeXidCriticalError:
                xid = Xid(code=int(event.eventData), at_ms=int(self._clock() * 1000))
                self._latest.setdefault(uuid, deque(maxlen=XIDS_KEPT)).append(xid)
                self._counts[uuid] = self._counts.get(uuid, 0) + 1

    def of(self, uuid: str) -> tuple[tuple[Xid, ...], int]:
        """The latest of a device, oldest first, and how many there were."""
        return tuple(self._latest.get(uuid, ())), self._counts.get(uuid, 0)

    def close(self) -> None:
        """Listen no more. May be called twice or first."""
        events, self._set = self._set, None
        if events is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(events)


def _address(handle: Any) -> int | None:
    """What tells one device's handle from another's, also when the device answers no more."""
    return ctypes.cast(handle, ctypes.c_void_p).value
