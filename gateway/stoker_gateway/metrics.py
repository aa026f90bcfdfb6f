"""Measurements in Prometheus' text format, version 0.0.4. What this process knows is told also without Redis."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from stoker.core.errors import StoreUnavailable
from stoker.core.messages import EngineView, WorkerId
from stoker.core.pins import PinState
from stoker.protocol import Store
from stoker.protocol.deliveries import Standing
from stoker.protocol.pulses import Told
from stoker_gateway.machine_metrics import machine_lines
from stoker_gateway.streams import Hub

MEDIA_TYPE = "text/plain; version=0.0.4"


async def measurements(store: Store, hub: Hub) -> str:
    """All of them, one a line."""
    own = [
        "# TYPE stoker_open_streams gauge",
        f"stoker_open_streams {hub.open_streams}",
        "# HELP stoker_unreadable_tasks_total Tasks whose streams broke off because a worker has spoiled them.",
        "# TYPE stoker_unreadable_tasks_total counter",
        f"stoker_unreadable_tasks_total {hub.unreadable}",
        "# HELP stoker_hub_restarts_total How often the loops that feed the streams ended by an error.",
        "# TYPE stoker_hub_restarts_total counter",
        f"stoker_hub_restarts_total {hub.restarts}",
    ]
    silences = [("gateway", "", hub.pulse.silent_s())]
    try:
        pinned = await _pinned(store)
        (pending, delayed), webhooks, quarantined, engines, told, now_ms = await asyncio.gather(
            asyncio.gather(store.scheduling.pending_count(), store.scheduling.delayed_count()),
            store.deliveries.standing(),
            store.quarantines.list(),
            store.engines.list(),
            store.pulses.told(),
            store.now_ms(),
        )
    except StoreUnavailable:
        return _text([*own, *_up(answers=False), *_silences(silences)])
    silences += [(report.part, report.process, report.silent_s) for report in told]
    silences += [("worker", engine.info.id, engine_silences(engine, now_ms)) for engine in engines]
    waiting = [
        "# TYPE stoker_pending_tasks gauge",
        f"stoker_pending_tasks {pending}",
        "# TYPE stoker_delayed_tasks gauge",
        f"stoker_delayed_tasks {delayed}",
        "# TYPE stoker_quarantined_workers gauge",
        f"stoker_quarantined_workers {len(quarantined.keys() | _troubled(engines))}",
    ]
    return _text(
        [
            *own,
            *_up(answers=True),
            *waiting,
            *_webhooks(webhooks, now_ms),
            *_pins(pinned),
            *_silences(silences),
            *_decisions(told),
            *_engines(engines),
            *machine_lines(engines),
        ]
    )


def engine_silences(engine: EngineView, now_ms: int) -> dict[str, float]:
    """Seconds since the last useful read of each loop of an engine, as of now.

    Args:
        engine: with what its last renewal told.
        now_ms: the server's clock.
    """
    if engine.telemetry is None or engine.status not in ("running", "draining"):
        return {}
    age_s = max(0, now_ms - engine.seen_ms) / 1000
    return {loop: round(s + age_s, 3) for loop, s in engine.telemetry.silent_s.items()}


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _up(*, answers: bool) -> Iterator[str]:
    yield "# TYPE stoker_store_up gauge"
    yield f"stoker_store_up {int(answers)}"


async def _pinned(store: Store) -> Counter[PinState]:
    """Pins by state: one that waits is one that somebody misses."""
    pins, states = await asyncio.gather(store.pins.list(), store.pins.states())
    return Counter(
        states[pin.id].state if pin.id in states else PinState.WAITING for pin in pins if not pin.once
    )


def _pins(counted: Counter[PinState]) -> Iterator[str]:
    yield "# TYPE stoker_pins gauge"
    for state in (PinState.LOADED, PinState.LOADING, PinState.WAITING):
        yield f'stoker_pins{{state="{state}"}} {counted[state]}'


def _silences(found: Iterable[tuple[str, str, Mapping[str, float]]]) -> Iterator[str]:
    yield "# HELP stoker_seconds_since_last_read Since the loop had its last useful answer from Redis."
    yield "# TYPE stoker_seconds_since_last_read gauge"
    for part, process, silent_s in found:
        for loop, seconds in silent_s.items():
            labels = f'{{part="{part}",process="{process}",loop="{loop}"}}'
            yield f"stoker_seconds_since_last_read{labels} {seconds:.3f}"


def _decisions(told: Iterable[Told]) -> Iterator[str]:
    yield "# HELP stoker_scheduler_decisions_total Since the scheduler began: starts by kind, waits by reason, evictions."
    yield "# TYPE stoker_scheduler_decisions_total counter"
    for report in told:
        for kind, number in report.counts.items():
            labels = f'{{process="{report.process}",decision="{kind}"}}'
            yield f"stoker_scheduler_decisions_total{labels} {number}"


def _webhooks(standing: Standing, now_ms: int) -> Iterator[str]:
    overdue_s = max(0, now_ms - standing.due_ms) / 1000 if standing.due_ms else 0.0
    yield "# HELP stoker_webhook_lanes_busy Lanes of receivers with a call on its way, or resting after silence."
    yield "# TYPE stoker_webhook_lanes_busy gauge"
    yield f"stoker_webhook_lanes_busy {standing.busy}"
    yield "# HELP stoker_webhook_overdue_seconds How long a webhook whose turn it is has waited for a call."
    yield "# TYPE stoker_webhook_overdue_seconds gauge"
    yield f"stoker_webhook_overdue_seconds {overdue_s:.3f}"


def _troubled(engines: list[EngineView]) -> set[WorkerId]:
    """Workers that say themselves that they must get no tasks."""
    return {worker_id for e in engines for worker_id, state in e.report.vram.items() if state.trouble}


def _engines(engines: list[EngineView]) -> Iterator[str]:
    yield "# TYPE stoker_engine_up gauge"
    yield from (f'stoker_engine_up{{engine="{e.info.id}"}} {int(e.status == "running")}' for e in engines)
    yield "# TYPE stoker_engine_running_tasks gauge"
    yield from (f'stoker_engine_running_tasks{{engine="{e.info.id}"}} {len(e.tasks)}' for e in engines)
    yield "# TYPE stoker_engine_residents gauge"
    yield from (f'stoker_engine_residents{{engine="{e.info.id}"}} {len(e.report.residents)}' for e in engines)
    yield "# HELP stoker_engine_parked Instances that live in the machine's memory and have left the GPUs."
    yield "# TYPE stoker_engine_parked gauge"
    yield from (f'stoker_engine_parked{{engine="{e.info.id}"}} {len(e.report.parked)}' for e in engines)
    yield "# TYPE stoker_engine_parked_bytes gauge"
    yield from (
        f'stoker_engine_parked_bytes{{engine="{e.info.id}"}} {sum(r.host_bytes for r in e.report.parked)}'
        for e in engines
    )
