"""docs/pictures/top.svg: a frame of `stoker top` from made-up data. `make generate` writes it.

The data has the form of the gateway's answers, so that the picture shows what a terminal would.
"""

import io
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from stoker_cli.top.frame import Snapshot, frame

WIDTH = 124
GB = 10**9
LOADED = "which has this model loaded; loading elsewhere would take ~95 s"
NOW = datetime(2026, 3, 14, 12, 4, 31, tzinfo=UTC)
_FONT = re.compile(r"\s*@font-face \{.*?\n    \}", re.DOTALL)
"""Of another host: a page shows the picture with a font that is there."""
THEME = TerminalTheme(
    (20, 23, 28),
    (216, 222, 233),
    [(46, 52, 64), (224, 108, 117), (126, 196, 118), (229, 192, 100),
     (97, 150, 224), (180, 142, 212), (86, 182, 194), (216, 222, 233)],
    [(92, 99, 112), (240, 113, 120), (140, 210, 130), (240, 205, 120),
     (120, 170, 240), (200, 160, 230), (110, 200, 210), (236, 240, 246)],
)  # fmt: skip


def ago(**elapsed: float) -> str:
    """A time before the frame's."""
    return (NOW - timedelta(**elapsed)).isoformat()


def wave(middle: float, height: float, pace: float) -> list[float]:
    """A history."""
    return [
        min(100, max(0, middle + height * math.sin(at * pace) + 7 * math.sin(at * 2.3))) for at in range(60)
    ]


def gpu(index: int, used: float, use: float, **more: Any) -> dict[str, Any]:
    """A device of 80 GB."""
    return {
        "id": f"GPU-{index}", "index": index, "name": "H100 80GB HBM3", "driver_version": "550.54.15",
        "cuda_version": "12.4", "memory_used": used * GB, "memory_total": 85 * GB, "utilization": use,
        "power_limit": 700, "throttled": [], "xids": [], "mig": [],
    } | more  # fmt: skip


def resident(app: str, state: str, vram: float, task_id: str = "", **loaded: float) -> dict[str, Any]:
    """An instance."""
    return {"app": app, "state": state, "vram": vram * GB, "task_id": task_id, "since": ago(**loaded)}


def task(task_id: str, app: str, state: str, worker: int, seconds: float) -> dict[str, Any]:
    """A task that a worker holds."""
    return {
        "task_id": task_id, "app": app, "state": state, "worker_id": f"gpubox-gpu-{worker}",
        "since": ago(seconds=seconds),
    }  # fmt: skip


def waits(app: str, seconds: float, why: str) -> dict[str, Any]:
    """A task that waits."""
    return {"app": app, "since": ago(seconds=seconds), "queue_reason": why}


def worker(number: int, status: str, *residents: dict[str, Any]) -> dict[str, Any]:
    """A worker with one device."""
    name = f"gpubox-gpu-{number}"
    return {
        "id": name,
        "name": name,
        "status": status,
        "gpus": [{"gpu_id": f"GPU-{number}"}],
        "residents": residents,
    }


def snapshot() -> Snapshot:
    """A machine with two GPUs at work."""
    info = {
        "engine_version": "0.1.0",
        "cpus": [{"cores": 32, "usage": 31.0}],
        "ram": {"used": 88 * GB, "total": 270 * GB},
        "load": [9.6, 8.0, 7.1],
        "volumes": [{"usage": 71.0}],
        "history": {"interval_s": 5, "cpu": wave(32, 12, 0.35)},
        "gpus": [
            gpu(0, 62.4, 93, temperature=71, power=612, clock=1755, history={"utilization": wave(82, 16, 0.4)}),
            gpu(1, 46.8, 38, temperature=58, power=304, clock=1980, history={"utilization": wave(35, 34, 0.3)},
                throttled=["power cap"]),
        ],
    }  # fmt: skip
    engine = {
        "id": "gpubox", "name": "gpubox", "status": "running", "updated_at": ago(seconds=2), "system_info": info,
        "workers": [
            worker(0, "busy", resident("studio/chat-70b", "busy", 44.1, "9wx2k7h4c0", minutes=42),
                   resident("studio/transcribe", "idle", 12.6, minutes=95)),
            worker(1, "busy", resident("studio/image-xl", "idle", 24.9, minutes=8),
                   resident("studio/video-short", "loading", 16.0, "f3m8q1z6d2")),
        ],
    }  # fmt: skip
    queue = {
        "pending": 4,
        "delayed": 1,
        "running": [
            task("9wx2k7h4c0", "studio/chat-70b", "running", 0, 12),
            task("f3m8q1z6d2", "studio/video-short", "setting_up", 1, 21),
        ],
        "waiting": [
            waits("studio/chat-70b", 9, f"waiting ~8 s for gpubox-gpu-0, {LOADED}"),
            waits("studio/chat-70b", 4, f"waiting ~20 s for gpubox-gpu-0, {LOADED}"),
            waits("studio/video-short", 3, "waiting ~35 s for gpubox-gpu-1, which is loading this model"),
            waits("studio/upscale", 1, "all 2 workers that can run this are busy; gpubox-gpu-0 should be free in ~8 s"),
            waits("studio/report", 1260, "it is to run at 2026-03-14T13:00:00Z, not before"),
        ],
    }  # fmt: skip
    return Snapshot(url="http://127.0.0.1:8787", now=NOW, engines=[engine], queue=queue)


def svg() -> str:
    """The picture."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(frame(snapshot(), WIDTH, live=True))
    drawn = console.export_svg(title="stoker top", theme=THEME, unique_id="top")
    return _FONT.sub("", drawn)
