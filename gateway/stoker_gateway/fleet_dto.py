"""Engines and workers as clients read them: the platform's EngineDTO and WorkerDTO, with live readings."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from stoker.core.ids import short_id
from stoker.core.messages import (
    EngineView,
    GpuInfo,
    Quarantine,
    Resident,
    ResidentState,
    WorkerId,
    WorkerInfo,
)
from stoker.core.protocol_version import OURS, disagreement
from stoker.core.sessions import plain_key, session_of
from stoker.core.telemetry import GpuSample
from stoker_gateway.dto import iso

Quarantines = Mapping[WorkerId, Quarantine]
_STATUSES = {"lost": "disconnected", "refused": "stopped"}


def engine_dto(engine: EngineView, quarantines: Quarantines) -> dict[str, Any]:
    """One engine with its workers."""
    info = engine.info
    return {
        "id": info.id,
        "short_id": short_id(info.id),
        "name": info.name,
        "created_at": iso(engine.registered_ms),
        "updated_at": iso(engine.seen_ms),
        "status": _STATUSES.get(engine.status, engine.status),
        "api_url": "",
        "config": {"name": info.name, "labels": info.labels},
        "system_info": system_info(engine),
        "workers": [worker_dto(engine, worker, quarantines) for worker in info.workers],
        "running_tasks": len(engine.tasks),
        "refused": disagreement(info.id, info.speaks, OURS) or None,
        "drain": {"reason": engine.drain.reason, "done": engine.drained} if engine.drain else None,
    }


def worker_dto(engine: EngineView, worker: WorkerInfo, quarantines: Quarantines) -> dict[str, Any]:
    """One worker: what it is, what it does, what is loaded on it."""
    residents = [_as_of_now(engine, r) for r in engine.report.residents if r.worker_id == worker.id]
    busy = next((r for r in residents if r.state is ResidentState.BUSY), None)
    first = busy or (residents[0] if residents else None)
    return {
        "id": worker.id,
        "name": worker.id,
        "index": worker.index,
        "engine_id": engine.info.id,
        "engine_name": engine.info.name,
        "engine_status": _STATUSES.get(engine.status, engine.status),
        "status": _worker_status(engine, busy=busy is not None),
        "quarantine": _quarantine(quarantines.get(worker.id)),
        "task_id": (busy.task_id if busy else "") or None,
        "active_session_id": next((s for r in residents if (s := session_of(r.setup_key))), None),
        "app_id": first.app if first else "",
        "app_version_id": first.version_id if first else "",
        "gpus": [_gpu(worker, gpu, _sample(engine, gpu)) for gpu in worker.gpus],
        "cpus": [_cpu(engine)],
        "rams": [
            {
                "id": f"{worker.id}-ram",
                "worker_id": worker.id,
                "total": worker.ram_bytes or engine.info.ram_bytes,
            }
        ],
        "system_info": system_info(engine),
        "warm_apps": [_resident(r) for r in residents if r.state in {ResidentState.IDLE, ResidentState.BUSY}],
        "residents": [_resident(r) for r in residents],
    }


def _worker_status(engine: EngineView, *, busy: bool) -> str:
    """What a worker does. One that drains takes nothing new, and may still be at work."""
    if busy and engine.status in {"running", "draining"}:
        return "busy"
    return "idle" if engine.status == "running" else "inactive"


def _quarantine(found: Quarantine | None) -> dict[str, Any] | None:
    """Why a worker gets no tasks, and until when; None when it gets some."""
    if found is None:
        return None
    return {
        "since": iso(found.since_ms),
        "until": iso(found.until_ms),
        "failures": found.failures,
        "reason": found.reason,
    }


def _as_of_now(engine: EngineView, resident: Resident) -> Resident:
    """A report is some seconds old; which tasks the engine holds is known at once."""
    if resident.state is ResidentState.BUSY and resident.task_id not in engine.tasks:
        return structs.replace(resident, state=ResidentState.IDLE, task_id="")
    return resident


def system_info(engine: EngineView) -> dict[str, Any]:
    """The machine, with the readings of its last heartbeat."""
    info, telemetry = engine.info, engine.telemetry
    total = telemetry.ram_total_bytes if telemetry else info.ram_bytes
    used = telemetry.ram_used_bytes if telemetry else 0
    devices = [gpu for worker in info.workers for gpu in worker.gpus]
    return {
        "hostname": info.hostname,
        "engine_version": info.version,
        "os": info.os,
        "cpus": [_cpu(engine)],
        "ram": {
            "total": total,
            "used": used,
            "available": max(0, total - used),
            "free": max(0, total - used),
            "usage": round(100 * used / total, 1) if total else 0,
        },
        "gpus": [_system_gpu(engine, gpu) for gpu in devices],
    }


def _cpu(engine: EngineView) -> dict[str, Any]:
    usage = engine.telemetry.cpu_percent if engine.telemetry else 0
    return {
        "name": engine.info.cpu_name,
        "cores": engine.info.cpu_cores,
        "usage": usage,
        "normalized_usage": usage / 100,
    }


def _sample(engine: EngineView, gpu: GpuInfo) -> GpuSample | None:
    samples = engine.telemetry.gpus if engine.telemetry else ()
    return next((s for s in samples if s.uuid == gpu.uuid), None)


def _gpu(worker: WorkerInfo, gpu: GpuInfo, sample: GpuSample | None) -> dict[str, Any]:
    return {
        "id": f"{worker.id}-{gpu.index}",
        "worker_id": worker.id,
        "gpu_id": gpu.uuid,
        "type": gpu.type,
        "name": gpu.name,
        "vram": gpu.vram_bytes,
        "memory_used": sample.memory_used_bytes if sample else None,
        "utilization": sample.utilisation_percent if sample else None,
        "lost": (sample.lost if sample else "") or None,
    }


def _system_gpu(engine: EngineView, gpu: GpuInfo) -> dict[str, Any]:
    sample = _sample(engine, gpu)
    return {
        "id": gpu.uuid,
        "index": gpu.index,
        "name": gpu.name,
        "driver_version": engine.info.driver_version,
        "cuda_version": engine.info.cuda_version,
        "memory_used": sample.memory_used_bytes if sample else 0,
        "memory_total": sample.memory_total_bytes if sample else gpu.vram_bytes,
        "utilization": sample.utilisation_percent if sample else 0,
        "temperature": sample.temperature_c if sample else 0,
        "power": sample.power_w if sample else 0,
    }


def _resident(resident: Resident) -> dict[str, Any]:
    return {
        "app": resident.app,
        "app_version_id": resident.version_id,
        "setup_key": plain_key(resident.setup_key),
        "session_id": session_of(resident.setup_key) or None,
        "state": resident.state,
        "vram": resident.vram_bytes,
        "load_s": resident.load_s,
        "since": iso(resident.since_ms),
        "task_id": resident.task_id or None,
    }
