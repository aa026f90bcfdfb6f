"""What machines read of themselves, in Prometheus' text format: of those that are there, and what they tell."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from stoker.core.messages import EngineView
from stoker.core.telemetry import GpuSample, Telemetry

Value = float | None
Point = tuple[dict[str, object], Value]

_HOST: Final[dict[str, Callable[[Telemetry], Value]]] = {
    "stoker_host_cpu_percent": lambda host: host.cpu_percent,
    "stoker_host_memory_used_bytes": lambda host: host.ram_used_bytes,
    "stoker_host_memory_total_bytes": lambda host: host.ram_total_bytes,
}
_DEVICE: Final[dict[str, Callable[[GpuSample], Value]]] = {
    "stoker_gpu_memory_used_bytes": lambda gpu: gpu.memory_used_bytes,
    "stoker_gpu_memory_total_bytes": lambda gpu: gpu.memory_total_bytes,
    "stoker_gpu_utilisation_percent": lambda gpu: gpu.utilisation_percent if gpu.utilisation_told else None,
    "stoker_gpu_memory_utilisation_percent": lambda gpu: gpu.memory_utilisation_percent,
    "stoker_gpu_temperature_celsius": lambda gpu: gpu.temperature_c,
    "stoker_gpu_power_watts": lambda gpu: gpu.power_w,
    "stoker_gpu_power_limit_watts": lambda gpu: gpu.power_limit_w,
    "stoker_gpu_clock_mhz": lambda gpu: gpu.clock_mhz,
    "stoker_gpu_memory_clock_mhz": lambda gpu: gpu.memory_clock_mhz,
}
"""Of a device that can be read."""


def machine_lines(engines: Iterable[EngineView]) -> Iterator[str]:
    """The measurements of machines that run, one a line."""
    running = [
        (engine.info.id, engine.telemetry)
        for engine in engines
        if engine.telemetry is not None and engine.status in ("running", "draining")
    ]
    for name, value in _HOST.items():
        yield from _gauge(name, [({"engine": engine}, value(host)) for engine, host in running])
    yield from _gauge("stoker_host_load", _loads(running))
    for name, size in (("used", _used), ("total", _total)):
        yield from _gauge(f"stoker_host_volume_{name}_bytes", size(running))
    devices = [(_labels_of(engine, gpu), gpu) for engine, host in running for gpu in host.gpus]
    yield from _gauge("stoker_gpu_lost", [(labels, int(bool(gpu.lost))) for labels, gpu in devices])
    yield from _gauge(
        "stoker_gpu_xid_total",
        [(labels, gpu.xid_count) for labels, gpu in devices],
        kind="counter",
        meaning="Errors that the driver told of the device since the daemon began.",
    )
    yield from _readable([(labels, gpu) for labels, gpu in devices if not gpu.lost])


def _readable(devices: list[tuple[dict[str, object], GpuSample]]) -> Iterator[str]:
    for name, reading in _DEVICE.items():
        yield from _gauge(name, [(labels, reading(gpu)) for labels, gpu in devices])
    yield from _gauge(
        "stoker_gpu_ecc_errors",
        [
            (labels | {"kind": kind}, count)
            for labels, gpu in devices
            for kind, count in (("corrected", gpu.ecc_corrected), ("uncorrected", gpu.ecc_uncorrected))
        ],
        meaning="Memory errors since the driver was loaded.",
    )
    yield from _gauge(
        "stoker_gpu_throttled",
        [(labels | {"reason": reason}, 1) for labels, gpu in devices for reason in gpu.throttled or ()],
        meaning="1 while something keeps the clocks down; absent otherwise.",
    )
    parts = [(labels | {"mig": part.uuid}, part) for labels, gpu in devices for part in gpu.mig]
    yield from _gauge("stoker_mig_memory_used_bytes", [(labels, p.memory_used_bytes) for labels, p in parts])
    yield from _gauge(
        "stoker_mig_memory_total_bytes", [(labels, p.memory_total_bytes) for labels, p in parts]
    )


def _labels_of(engine_id: str, gpu: GpuSample) -> dict[str, object]:
    return {"engine": engine_id, "gpu": gpu.index, "uuid": gpu.uuid}


def _loads(running: Sequence[tuple[str, Telemetry]]) -> list[Point]:
    return [
        ({"engine": engine, "minutes": minutes}, mean)
        for engine, host in running
        for minutes, mean in zip((1, 5, 15), host.load, strict=False)
    ]


def _used(running: Sequence[tuple[str, Telemetry]]) -> list[Point]:
    return [({"engine": e, "volume": v.name}, v.used_bytes) for e, host in running for v in host.volumes]


def _total(running: Sequence[tuple[str, Telemetry]]) -> list[Point]:
    return [({"engine": e, "volume": v.name}, v.total_bytes) for e, host in running for v in host.volumes]


def _gauge(name: str, points: Iterable[Point], *, kind: str = "gauge", meaning: str = "") -> Iterator[str]:
    """A measurement with its points; those that nobody tells are left out."""
    if meaning:
        yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in points:
        if value is not None:
            shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            yield f"{name}{{{shown}}} {value}"


def _escaped(text: object) -> str:
    """A label's value as the format has it: names of disks and devices are not ours."""
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
