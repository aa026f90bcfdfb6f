"""What is parked on workers: what a start there costs, and what it costs to lose an instance that would be parked. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoker.core.messages import Resident, SetupKey
from stoker.core.states import Temperature
from stoker_scheduler.knowledge import Knowledge

if TYPE_CHECKING:
    from stoker_scheduler.fleet import Worker
    from stoker_scheduler.residents import Residence


@dataclass(slots=True, eq=False)
class Parked:
    """An instance that lives in the memory of a worker's machine."""

    setup_key: SetupKey
    app: str
    used_ms: int  # when it was last used, as far as that is known, or since when it is known there
    idle_ms: int = 0
    unused: bool = False  # it was loaded for tasks to come, and none has come


def take_parked(
    worker: "Worker", reported: Iterable[Resident], left: Mapping[SetupKey, "Residence"], now_ms: int
) -> None:
    """Take over what an engine says is parked on a worker; what a task was sent there for is on its way back.

    Args:
        left: what was resident there before this report.
    """
    back = {held.setup_key for held in worker.held} | set(worker.residents)
    old, worker.parked = worker.parked, {}
    for report in reported:
        key = report.setup_key
        if report.worker_id == worker.id and key not in back:
            worker.parked[key] = old.get(key) or _parked(report, left.get(key), now_ms)


def _parked(report: Resident, before: "Residence | None", now_ms: int) -> Parked:
    if before is None:
        return Parked(report.setup_key, report.app, now_ms)
    return Parked(report.setup_key, report.app, before.used_ms, before.idle_ms, before.unused)


def temperature(worker: "Worker", key: SetupKey) -> Temperature:
    """How far the instance of a setup is from running on a worker. One that loads there is as good as loaded."""
    if key in worker.residents:
        return Temperature.HOT
    return Temperature.PARKED if key in worker.parked else Temperature.COLD


def start_s(worker: "Worker", key: SetupKey, app: str, env_key: str, knowledge: Knowledge) -> float:
    """Seconds until a task runs on a worker that has not loaded its instance."""
    if temperature(worker, key) is Temperature.PARKED:
        return knowledge.unpark_s(key, app)
    seconds = knowledge.load_s(key, app)
    if env_key not in worker.engine.environments and not worker.preparing(env_key):
        seconds += knowledge.prepare_s(env_key)
    return seconds


def miss_s(resident: "Residence", knowledge: Knowledge) -> float:
    """Seconds that it takes to have an instance again on the worker that it made room on."""
    again = knowledge.unpark_s if resident.parks else knowledge.load_s
    return again(resident.setup_key, resident.app)
