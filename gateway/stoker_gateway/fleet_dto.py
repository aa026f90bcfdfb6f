"""Engines and workers as clients read them: the platform's EngineDTO and WorkerDTO, with live readings."""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import structs

from stoker.core.ids import short_id
from stoker.core.messages import (
    EngineView,
    Quarantine,
    Resident,
    SetupKey,
    WorkerId,
    WorkerInfo,
)
from stoker.core.protocol_version import OURS, disagreement
from stoker.core.sessions import plain_key, session_of
from stoker.core.states import ResidentState
from stoker.core.vram import VramState
from stoker_gateway.dto import iso
from stoker_gateway.readings_dto import cpu_dto, gpu_of_worker, system_info

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
        "system_info": system_info(engine, whole=True),
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
    state = engine.report.vram.get(worker.id, VramState())
    pinned = engine.report.pins.get(worker.id, ())
    return {
        "id": worker.id,
        "name": worker.id,
        "index": worker.index,
        "engine_id": engine.info.id,
        "engine_name": engine.info.name,
        "engine_status": _STATUSES.get(engine.status, engine.status),
        "status": _worker_status(engine, busy=busy is not None),
        "quarantine": _quarantine(quarantines.get(worker.id)) or _trouble(state),
        "task_id": (busy.task_id if busy else "") or None,
        "active_session_id": next((s for r in residents if (s := session_of(r.setup_key))), None),
        "app_id": first.app if first else "",
        "app_version_id": first.version_id if first else "",
        "gpus": [gpu_of_worker(engine, worker, gpu) for gpu in worker.gpus],
        "vram_other": state.other_bytes,  # in use on its GPUs, and not by its residents
        "cpus": [cpu_dto(engine)],
        "rams": [
            {
                "id": f"{worker.id}-ram",
                "worker_id": worker.id,
                "total": worker.ram_bytes or engine.info.ram_bytes,
            }
        ],
        "system_info": system_info(engine),
        "warm_apps": [
            _resident(r, pinned) for r in residents if r.state in {ResidentState.IDLE, ResidentState.BUSY}
        ],
        "residents": [_resident(r, pinned) for r in residents],
        "parked": [_resident(r, pinned) for r in engine.report.parked if r.worker_id == worker.id],
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


def _trouble(state: VramState) -> dict[str, Any] | None:
    """Why a worker says itself that it must get no tasks; it ends when the worker says so."""
    if not state.trouble:
        return None
    return {"since": iso(state.since_ms), "until": None, "failures": 0, "reason": state.trouble}


def _as_of_now(engine: EngineView, resident: Resident) -> Resident:
    """A report is some seconds old; which tasks the engine holds is known at once."""
    if resident.state is ResidentState.BUSY and resident.task_id not in engine.tasks:
        return structs.replace(resident, state=ResidentState.IDLE, task_id="")
    return resident


def _resident(resident: Resident, pinned: Collection[SetupKey]) -> dict[str, Any]:
    return {
        "app": resident.app,
        "app_version_id": resident.version_id,
        "setup_key": plain_key(resident.setup_key),
        "session_id": session_of(resident.setup_key) or None,
        "state": resident.state,
        "pinned": resident.setup_key in pinned,
        "temperature": resident.temperature,
        "vram": resident.vram_bytes,
        "host_memory": resident.host_bytes,  # of the machine, while it is parked
        "load_s": resident.load_s,
        "since": iso(resident.since_ms),
        "task_id": resident.task_id or None,
    }
