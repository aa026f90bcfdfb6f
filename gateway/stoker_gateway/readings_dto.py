"""What a machine reads of itself, as clients read it: the platform's SystemInfo, with what it has no field for beside.

A value that the machine does not tell is None; `temperature`, which the platform has as a number, is 0 then.
"""

from typing import Any

from stoker.core.messages import EngineView, GpuInfo, WorkerInfo
from stoker.core.telemetry import GpuSample, MigInstance, Volume, Xid, points, xid_text
from stoker_gateway.dto import FIRST_MS, LAST_MS, iso


def system_info(engine: EngineView, *, whole: bool = False) -> dict[str, Any]:
    """The machine, with the readings of its last heartbeat; `whole`: also what was before, and who holds its devices."""
    info, telemetry = engine.info, engine.telemetry
    total = telemetry.ram_total_bytes if telemetry else info.ram_bytes
    used = telemetry.ram_used_bytes if telemetry else 0
    devices = [gpu for worker in info.workers for gpu in worker.gpus]
    found = {
        "hostname": info.hostname,
        "engine_version": info.version,
        "os": info.os,
        "cpus": [cpu_dto(engine)],
        "ram": {
            "total": total,
            "used": used,
            "available": max(0, total - used),
            "free": max(0, total - used),
            "usage": _share(used, total),
        },
        "load": telemetry.load if telemetry else (),
        "volumes": [_volume(volume) for volume in telemetry.volumes] if telemetry else [],
        "gpus": [_device(engine, gpu, whole=whole) for gpu in devices],
    }
    if whole and telemetry:
        found["history"] = {
            "interval_s": telemetry.history_s,
            "cpu": points(telemetry.cpu_history),
            "ram": points(telemetry.ram_history),
        }
    return found


def cpu_dto(engine: EngineView) -> dict[str, Any]:
    """The machine's processors."""
    usage = engine.telemetry.cpu_percent if engine.telemetry else 0
    return {
        "name": engine.info.cpu_name,
        "cores": engine.info.cpu_cores,
        "usage": usage,
        "normalized_usage": usage / 100,
    }


def gpu_of_worker(engine: EngineView, worker: WorkerInfo, gpu: GpuInfo) -> dict[str, Any]:
    """A device in short, as the platform's WorkerGPU."""
    sample = _sample(engine, gpu)
    return {
        "id": f"{worker.id}-{gpu.index}",
        "worker_id": worker.id,
        "gpu_id": gpu.uuid,
        "type": gpu.type,
        "name": gpu.name,
        "vram": gpu.vram_bytes,
        "memory_used": sample.memory_used_bytes if sample else None,
        "utilization": _utilisation(sample),
        "lost": (sample.lost if sample else "") or None,
    }


def _sample(engine: EngineView, gpu: GpuInfo) -> GpuSample | None:
    samples = engine.telemetry.gpus if engine.telemetry else ()
    return next((s for s in samples if s.uuid == gpu.uuid), None)


def _utilisation(sample: GpuSample | None) -> float | None:
    return sample.utilisation_percent if sample and sample.utilisation_told else None


def _device(engine: EngineView, gpu: GpuInfo, *, whole: bool) -> dict[str, Any]:
    sample = _sample(engine, gpu)
    found = {
        "id": gpu.uuid,
        "index": gpu.index,
        "name": gpu.name,
        "driver_version": engine.info.driver_version,
        "cuda_version": engine.info.cuda_version,
        "memory_used": sample.memory_used_bytes if sample else 0,
        "memory_total": sample.memory_total_bytes if sample else gpu.vram_bytes,
        "utilization": _utilisation(sample),
        "temperature": (sample.temperature_c if sample else 0) or 0,
    }
    if sample is None:
        return found
    found |= _condition(sample)
    if whole:
        found["processes"] = [
            {"pid": process.pid, "name": process.name, "memory": process.memory_bytes}
            for process in sample.processes
        ]
        found["history"] = {
            "interval_s": engine.telemetry.history_s if engine.telemetry else 0,
            "memory": points(sample.memory_history),
            "utilization": points(sample.utilisation_history),
        }
    return found


def _condition(sample: GpuSample) -> dict[str, Any]:
    """How a device is: what it does beside its memory, and what is wrong with it."""
    ecc = {"corrected": sample.ecc_corrected, "uncorrected": sample.ecc_uncorrected}
    return {
        "memory_utilization": sample.memory_utilisation_percent,
        "power": sample.power_w,
        "power_limit": sample.power_limit_w,
        "clock": sample.clock_mhz,
        "clock_max": sample.clock_max_mhz,
        "memory_clock": sample.memory_clock_mhz,
        "memory_clock_max": sample.memory_clock_max_mhz,
        "throttled": sample.throttled,
        "ecc": None if None in ecc.values() else ecc,
        "xids": [_xid(xid) for xid in sample.xids],
        "xid_count": sample.xid_count,
        "mig": [_part(part) for part in sample.mig],
        "lost": sample.lost or None,
    }


def _xid(xid: Xid) -> dict[str, Any]:
    is_time = FIRST_MS <= xid.at_ms <= LAST_MS  # a machine may say what is none
    at = iso(xid.at_ms) if is_time else None
    return {"code": xid.code, "meaning": xid_text(xid.code), "at": at}


def _part(part: MigInstance) -> dict[str, Any]:
    return {
        "id": part.id,
        "uuid": part.uuid,
        "name": part.name,
        "memory_used": part.memory_used_bytes,
        "memory_total": part.memory_total_bytes,
    }


def _volume(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "size": volume.total_bytes,
        "used": volume.used_bytes,
        "free": max(0, volume.total_bytes - volume.used_bytes),
        "usage": _share(volume.used_bytes, volume.total_bytes),
    }


def _share(used: int, total: int) -> float:
    return round(100 * used / total, 1) if total else 0
