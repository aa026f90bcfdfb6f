"""What lives on a worker, as the scheduler sees it: what engines report, corrected by what was ordered meanwhile."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stoker.core.messages import Resident, SetupKey
from stoker.core.states import ResidentState

if TYPE_CHECKING:
    from stoker_scheduler.fleet import Worker

ORDER_TRUST_MS: Final = 60_000
"""How long an ordered eviction that a report denies is still believed; then the report is right."""


class Phase(StrEnum):
    """Where an instance is."""

    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


_PHASES: Final = {
    ResidentState.LOADING: Phase.LOADING,
    ResidentState.IDLE: Phase.READY,
    ResidentState.BUSY: Phase.READY,
    ResidentState.STOPPING: Phase.STOPPING,
}


@dataclass(slots=True, eq=False)
class Residence:
    """An instance on a worker."""

    setup_key: SetupKey
    app: str
    phase: Phase
    vram_bytes: int = 0
    loaded_ms: int = 0
    used_ms: int = 0
    stop_ordered_ms: int = 0
    idle_ms: int = 0  # when the last task left it
    unused: bool = False  # it was loaded for tasks to come, and none has come
    pinned: bool = False  # it makes room for nothing
    parks: bool = False  # the worker parks it, when it makes room


def merge(
    worker: "Worker", reported: Iterable[Resident], now_ms: int, loads: Collection[SetupKey] = ()
) -> None:
    """Residents as reported, corrected by what was ordered and cannot be reported yet.

    Args:
        loads: setups that the worker is loading by orders of its own, which a former leader may have given.
    """
    old = worker.residents
    merged: dict[SetupKey, Residence] = {}
    awaited = {held.setup_key for held in worker.held}.union(loads)
    for report in reported:
        known = old.get(report.setup_key)
        resident = known or Residence(report.setup_key, report.app, Phase.READY, loaded_ms=now_ms)
        ordered = resident.stop_ordered_ms
        phase = _PHASES[report.state]
        # A load that nothing waits for is over: the report is older than the end of that task.
        settled = phase is Phase.LOADING and report.setup_key not in awaited
        resident.phase = Phase.READY if settled else phase
        if ordered and now_ms - ordered < ORDER_TRUST_MS:
            resident.phase = Phase.STOPPING
        elif resident.phase is not Phase.STOPPING:
            resident.stop_ordered_ms = 0
        resident.vram_bytes = report.vram_bytes or resident.vram_bytes
        resident.parks = report.parks
        resident.used_ms = resident.used_ms or now_ms
        merged[report.setup_key] = resident
    for held in worker.held:
        known = merged.get(held.setup_key) or old.get(held.setup_key)
        if known is None:
            known = Residence(held.setup_key, held.app, Phase.LOADING, loaded_ms=now_ms)
        elif held.setup_key not in merged and not held.running_ms:
            known.phase = Phase.LOADING
        merged[held.setup_key] = known
    worker.residents = merged
