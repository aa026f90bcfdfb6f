"""What a worker offers."""

from typing import NamedTuple

from stoker.core.messages import GpuType, Needs, WorkerInfo


class Kind(NamedTuple):
    """What a worker offers; workers of one kind are alike to every app."""

    gpus: tuple[tuple[GpuType, int], ...]  # (type, bytes), largest first
    ram_bytes: int

    @classmethod
    def of(cls, info: WorkerInfo, engine_ram_bytes: int) -> "Kind":
        gpus = sorted(((gpu.type, gpu.vram_bytes) for gpu in info.gpus), key=lambda gpu: -gpu[1])
        return cls(tuple(gpus), info.ram_bytes or engine_ram_bytes)

    def capacity_bytes(self, needs: Needs) -> int:
        """GPU memory that an app with these needs may use here: that of its largest fitting GPUs."""
        sizes = [size for kind, size in self.gpus if needs.gpu_type in (GpuType.ANY, GpuType.NONE, kind)]
        return sum(sizes[: max(needs.gpu_count, 1)])
