"""Who this engine is: its id, kept in its own directory, its workers, and what it says of the machine."""

import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from stoker.core.ids import check_name, new_id
from stoker.core.messages import EngineId, EngineInfo, GpuInfo, WorkerId, WorkerInfo
from stoker.settings import InvalidSettings, WorkerSettings
from stoker.slot_settings import WorkerSlots

DEFAULT_CPU_WORKERS: Final = 2
"""On a machine without GPU workers: one may load while the other runs."""
ID_FILE: Final = "engine-id"
_SUFFIX_CHARS: Final = 6
PYTHONS: Final = ("3.10", "3.11", "3.12", "3.13")


def read_engine_id(folder: Path) -> EngineId | None:
    """The id that this directory's engine was given, or None before its first start.

    Raises:
        InvalidRequest: the file holds what cannot be an id.
    """
    try:
        text = (folder / ID_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return EngineId(check_name("engine id", text))


def write_engine_id(folder: Path, engine_id: EngineId) -> None:
    """Keep the id for the next start."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = folder / f"{ID_FILE}.tmp"
    scratch.write_text(f"{engine_id}\n", encoding="utf-8")
    scratch.replace(folder / ID_FILE)


def decide_engine_id(name: str, *, taken: bool) -> EngineId:
    """The id of a new engine: its name, with a few random characters when another machine has that name."""
    return EngineId(f"{name}-{new_id()[:_SUFFIX_CHARS]}" if taken else name)


def decide_workers(
    engine_id: EngineId, slots: WorkerSlots, devices: Sequence[GpuInfo], *, max_residents: int, ram_bytes: int
) -> tuple[WorkerInfo, ...]:
    """The workers of an engine: as configured, else one for each GPU, else two for the CPU.

    Raises:
        InvalidSettings: a worker names a GPU that this machine does not have.
    """
    known = {device.index: device for device in devices}
    groups = [slot.gpus for slot in slots.gpu] if slots.gpu is not None else [(index,) for index in known]
    missing = sorted({index for group in groups for index in group} - set(known))
    if missing:
        raise InvalidSettings(
            f"workers.gpu names GPU {', '.join(map(str, missing))}; "
            f"found here: {', '.join(map(str, known)) or 'none'} (nvidia-smi -L)"
        )
    cpu_count = slots.cpu.count
    if cpu_count is None:
        cpu_count = 0 if groups else DEFAULT_CPU_WORKERS
    gpu_workers = [
        (f"{engine_id}-gpu-{number}", tuple(known[index] for index in group))
        for number, group in enumerate(groups)
    ]
    cpu_workers: list[tuple[str, tuple[GpuInfo, ...]]] = [
        (f"{engine_id}-cpu-{number}", ()) for number in range(cpu_count)
    ]
    return tuple(
        WorkerInfo(
            id=WorkerId(worker_id), index=index, gpus=gpus, max_residents=max_residents, ram_bytes=ram_bytes
        )
        for index, (worker_id, gpus) in enumerate(gpu_workers + cpu_workers)
    )


def describe_engine(
    engine_id: EngineId,
    settings: WorkerSettings,
    devices: Sequence[GpuInfo],
    *,
    driver_version: str,
    cuda_version: str,
) -> EngineInfo:
    """What this engine registers with.

    Raises:
        InvalidSettings: see `decide_workers`.
    """
    ram_bytes = psutil.virtual_memory().total
    return EngineInfo(
        id=engine_id,
        name=settings.engine_name,
        version=version("stoker"),
        hostname=platform.node(),
        workers=decide_workers(
            engine_id, settings.workers, devices, max_residents=settings.max_residents, ram_bytes=ram_bytes
        ),
        labels=settings.labels,
        pythons=tuple(number for number in PYTHONS if shutil.which(f"python{number}")),
        os=f"{platform.system()} {platform.release()}",
        cpu_name=_cpu_name(),
        cpu_cores=os.cpu_count() or 1,
        ram_bytes=ram_bytes,
        driver_version=driver_version,
        cuda_version=cuda_version,
        fetch_timeout_s=settings.fetch_timeout_s,
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
