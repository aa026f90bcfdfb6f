"""The last readings, as percents of one byte each: enough for a picture, small enough for every heartbeat."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from stoker.core.telemetry import HISTORY_POINTS, NO_POINT, GpuSample, Telemetry

_FULL: Final = 100


class History:
    """Rings of the machine and of its devices. A point is added to all of them at once."""

    def __init__(self, interval_s: float, uuids: Sequence[str] = ()) -> None:
        self._interval_s = interval_s
        self._cpu, self._ram = _ring(), _ring()
        self._memory = {uuid: _ring() for uuid in uuids}
        self._utilisation = {uuid: _ring() for uuid in uuids}

    def add(self, reading: Telemetry) -> None:
        """Take a reading in; a device that is lost, or does not tell, leaves a gap."""
        self._cpu.append(_percent(reading.cpu_percent, _FULL))
        self._ram.append(_percent(reading.ram_used_bytes, reading.ram_total_bytes))
        read = {gpu.uuid: gpu for gpu in reading.gpus if not gpu.lost}
        for uuid, ring in self._memory.items():
            gpu = read.get(uuid)
            ring.append(_percent(gpu.memory_used_bytes, gpu.memory_total_bytes) if gpu else NO_POINT)
        for uuid, ring in self._utilisation.items():
            gpu = read.get(uuid)
            told = gpu is not None and gpu.utilisation_told
            ring.append(_percent(gpu.utilisation_percent, _FULL) if gpu and told else NO_POINT)

    def beside(self, reading: Telemetry) -> Telemetry:
        """The reading, with what was before it."""
        return structs.replace(
            reading,
            gpus=tuple(self._beside(gpu) for gpu in reading.gpus),
            history_s=self._interval_s,
            cpu_history=bytes(self._cpu),
            ram_history=bytes(self._ram),
        )

    def _beside(self, gpu: GpuSample) -> GpuSample:
        return structs.replace(
            gpu,
            memory_history=bytes(self._memory.get(gpu.uuid, ())),
            utilisation_history=bytes(self._utilisation.get(gpu.uuid, ())),
        )


def _ring() -> deque[int]:
    return deque(maxlen=HISTORY_POINTS)


def _percent(part: float, whole: float) -> int:
    return max(0, min(_FULL, round(_FULL * part / whole))) if whole > 0 else NO_POINT
