"""Engines, their workers, what lives on them and what each is doing: a mirror with indexes. No I/O, no clock.

The scheduler's own assignments say who is busy; an engine's report says what is resident. Between the two,
a load that was ordered and is not reported yet counts as resident, and an eviction that was ordered counts as
stopping memory until a report says that it is gone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stoker.core.messages import (
    FETCH_TIMEOUT_S,
    EngineId,
    EngineView,
    Resident,
    SetupKey,
    TaskId,
    WorkerId,
    WorkerInfo,
)
from stoker.core.protocol_version import OURS, agree
from stoker.core.sessions import plain_key
from stoker.core.vram import VramState, device_type
from stoker_scheduler.durations import Durations
from stoker_scheduler.kinds import Kind
from stoker_scheduler.parked import Parked, take_parked
from stoker_scheduler.places import Places
from stoker_scheduler.residents import Phase, Residence, merge


@dataclass(slots=True, eq=False)
class Held:
    """A task that an engine has. `load_s` and `run_s` are the estimates of the moment it was assigned."""

    task_id: TaskId
    setup_key: SetupKey
    key_id: str
    env_key: str
    app: str
    attempt: int
    assigned_ms: int
    load_s: float  # expected until it runs; 0 = warm
    run_s: float
    runs: Durations  # what is known of such runs, as it grows
    charged_s: float = 0.0  # to its key, when it was assigned; 0 = an earlier leader did
    needs_env: bool = False
    unparks: bool = False  # what it needs was parked there
    audit_ms: int = 0  # when it is next made sure that the engine really works on it
    prepare_s: float = 0.0  # measured: how long the environment took
    running_ms: int = 0

    def remaining_s(self, now_ms: int) -> float:
        """Expected seconds to its end."""
        if self.running_ms or not self.load_s:
            elapsed = (now_ms - (self.running_ms or self.assigned_ms)) / 1000
            return self.runs.left_s(elapsed)
        return self.load_left_s(now_ms) + self.runs.mean_s()

    def load_left_s(self, now_ms: int) -> float:
        """Expected seconds until it runs. A load that has overrun is expected to take half as long again."""
        if self.running_ms:
            return 0.0
        elapsed = (now_ms - self.assigned_ms) / 1000
        return max(self.load_s - elapsed, elapsed / 2 if self.load_s else 0.0)


@dataclass(slots=True, eq=False)
class Engine:
    """A worker daemon."""

    id: EngineId
    name: str
    running: bool = True
    draining: bool = False
    suspect: bool = False  # it refused an assignment; nothing is sent until it was read again
    environments: frozenset[str] = frozenset()
    fetch_timeout_s: float = FETCH_TIMEOUT_S
    workers: dict[WorkerId, "Worker"] = field(default_factory=dict)

    @property
    def available(self) -> bool:
        return self.running and not self.draining and not self.suspect


@dataclass(slots=True, eq=False)
class Worker:
    """A slot of an engine: runs one task at a time, keeps several instances."""

    id: WorkerId
    index: int
    engine: Engine
    kind: Kind
    max_residents: int
    names: frozenset[str]
    residents: dict[SetupKey, Residence] = field(default_factory=dict)
    parked: dict[SetupKey, Parked] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    refused: dict[SetupKey, int] = field(default_factory=dict)  # setup -> until when it is not tried again
    returns: dict[SetupKey, int] = field(
        default_factory=dict
    )  # setup -> tasks handed back one after the other
    lease: SetupKey | None = None  # the session that has this worker for itself
    quarantine: str = ""  # why it gets no tasks: all fails there
    device: str = ""  # type of its GPUs, for what is learned of memory
    vram: VramState = field(default_factory=VramState)  # what it says of them
    places: list[tuple[Places[Any], Any]] = field(default_factory=list)
    fixed_places: list[tuple[Places[Any], Any]] = field(default_factory=list)

    @property
    def free(self) -> bool:
        """Nothing runs here, and no session has it."""
        return not self.held and not self.lease

    @property
    def available(self) -> bool:
        """Whether it may be given tasks of anybody; a session may go on in quarantine."""
        return self.engine.available and not self.quarantine and not self.vram.trouble

    def remaining_s(self, now_ms: int) -> float:
        """Expected seconds until it is idle."""
        return sum(held.remaining_s(now_ms) for held in self.held)

    def refuses(self, key: SetupKey, now_ms: int) -> bool:
        return bool(self.refused) and self.refused.get(key, 0) > now_ms

    def preparing(self, env_key: str) -> bool:
        """Whether a task on this worker's machine is building this environment now."""
        return any(
            held.needs_env and held.env_key == env_key and not held.running_ms
            for worker in self.engine.workers.values()
            for held in worker.held
        )


class Fleet:
    """All engines and workers, found by what a decision asks for. Only available workers are indexed."""

    def __init__(self) -> None:
        self.engines: dict[EngineId, Engine] = {}
        self.workers: dict[WorkerId, Worker] = {}
        self.idle: Places[tuple[Kind, int]] = Places()  # (kind, residents)
        self.busy: Places[Kind] = Places()
        self.of_kind: Places[Kind] = Places()
        self.idle_with: Places[SetupKey] = Places()  # idle, instance ready
        self.one_key: Places[SetupKey] = Places()  # busy with this setup alone, instance ready
        self.holders: Places[SetupKey] = Places()  # instance ready or loading
        self.named: Places[str] = Places()
        self.parked: Places[SetupKey] = Places()  # idle, instance parked
        self._of_task: dict[TaskId, Worker] = {}
        self._leases: dict[SetupKey, WorkerId] = {}  # also of a worker that is away, as is the next one
        self._quarantined: dict[WorkerId, str] = {}
        self._with_environment: dict[str, dict[EngineId, Engine]] = {}

    def worker_of(self, task_id: TaskId) -> Worker | None:
        """Who has a task, as far as is known."""
        return self._of_task.get(task_id)

    def leaseholder(self, key: SetupKey) -> Worker | None:
        """The worker that the session with this key has for itself."""
        return self.workers.get(self._leases.get(key, WorkerId("")))

    def leased(self) -> Iterator[Worker]:
        """All workers that a session has."""
        return (self.workers[worker_id] for worker_id in self._leases.values() if worker_id in self.workers)

    def heads(self) -> Iterator[Held]:
        """What the workers work on; for the clock's chores, never for a decision."""
        return (worker.held[0] for worker in self.workers.values() if worker.held)

    def fetch_timeout_s(self, engine_id: EngineId) -> float:
        """How long an engine may fetch the files of one input."""
        engine = self.engines.get(engine_id)
        return FETCH_TIMEOUT_S if engine is None else engine.fetch_timeout_s

    def idle_of_kind(self, kind: Kind) -> Iterator[Worker]:
        """Idle workers of a kind, those with the fewest residents first."""
        counts = sorted(count for of, count in self.idle if of == kind)
        return (worker for count in counts for worker in self.idle.at((kind, count)).values())

    def with_environment(self, env_key: str, limit: int) -> list[Worker]:
        """Workers of machines that have an environment on disk, a bounded number of machines."""
        engines = islice(self._with_environment.get(env_key, {}).values(), limit)
        return [worker for engine in engines for worker in engine.workers.values() if worker.available]

    # What events and actions change.

    def update(self, view: EngineView, now_ms: int) -> list[WorkerId]:
        """Take over what an engine says of itself; the workers that it touches."""
        info, report = view.info, view.report
        engine = self.engines.get(info.id)
        if engine is None:
            engine = self.engines[info.id] = Engine(id=info.id, name=info.name)
        engine.name = info.name
        engine.fetch_timeout_s = info.fetch_timeout_s
        engine.running = view.status in ("running", "draining") and agree(info.speaks, OURS)
        engine.draining = report.draining or view.status == "draining"
        engine.suspect = False
        self._set_environments(engine, frozenset(report.environments))
        touched = list(engine.workers)
        for worker_id in set(engine.workers) - {slot.id for slot in info.workers}:
            self._forget(engine.workers.pop(worker_id))
        by_worker: dict[WorkerId, list[Resident]] = {}
        for resident in report.residents:
            by_worker.setdefault(resident.worker_id, []).append(resident)
        loads: dict[str, set[SetupKey]] = {}
        for load in report.loads:
            if not load.ended:
                loads.setdefault(load.worker_id, set()).add(SetupKey(load.setup_key))
        for slot in info.workers:
            worker = engine.workers.get(slot.id) or self._new_worker(engine, slot)
            worker.kind = Kind.of(slot, info.ram_bytes)
            worker.device = device_type([gpu.name for gpu in slot.gpus])
            state = report.vram.get(slot.id, VramState())
            if state != worker.vram:  # what it had no room for it may have room for now
                worker.refused.clear()
                worker.returns.clear()
            worker.vram = state
            worker.max_residents = max(1, slot.max_residents)
            worker.names = frozenset((slot.id, engine.id, engine.name))
            left = worker.residents
            merge(worker, by_worker.get(slot.id, []), now_ms, loads.get(slot.id, ()))
            take_parked(worker, report.parked, left, now_ms)
            self._file_anew(worker)
        return touched + [slot.id for slot in info.workers if slot.id not in touched]

    def lose(self, engine_id: EngineId) -> list[WorkerId]:
        """An engine is gone with all that lived there; its tasks come back as events of their own."""
        engine = self.engines.get(engine_id)
        if engine is None:
            return []
        engine.running = False
        for worker in engine.workers.values():
            for held in worker.held:
                self._of_task.pop(held.task_id, None)
            worker.held.clear()
            worker.residents.clear()
            worker.parked.clear()
            self._file_anew(worker)
        return list(engine.workers)

    def drop(self, engine_id: EngineId) -> None:
        """An engine was removed for good: its workers' names are unknown from now on."""
        engine = self.engines.pop(engine_id, None)
        if engine is not None:
            self._set_environments(engine, frozenset())
            for worker in engine.workers.values():
                self._forget(worker)

    def suspect(self, engine_id: EngineId) -> None:
        """An engine refused an assignment: send nothing until it was read again."""
        engine = self.engines.get(engine_id)
        if engine is not None:
            engine.suspect = True
            for worker in engine.workers.values():
                self._file_anew(worker)

    def suspects(self) -> list[EngineId]:
        return [engine.id for engine in self.engines.values() if engine.suspect]

    def lease(self, worker_id: WorkerId, key: SetupKey) -> None:
        """A session has this worker from now on; nobody else is sent there."""
        self._leases[key] = worker_id
        if (worker := self.workers.get(worker_id)) is not None:
            worker.lease = key
            self._refile(worker)

    def release(self, key: SetupKey) -> Worker | None:
        """A session has its worker no longer; that worker, when there is one."""
        worker = self.leaseholder(key)
        self._leases.pop(key, None)
        if worker is not None:
            worker.lease = None
            self._refile(worker)
        return worker

    def take_over(self, worker: Worker, key: SetupKey) -> None:
        """An idle instance of the plain setup becomes a session's own, if one is there."""
        resident = worker.residents.pop(plain_key(key), None)
        if resident is not None and key not in worker.residents:
            resident.setup_key = key
            worker.residents[key] = resident

    def start(self, worker: Worker, held: Held, evict: Iterable[SetupKey] = ()) -> None:
        """A task was assigned: it holds the slot, its instance counts as resident, the evicted as stopping."""
        for key in evict:
            resident = worker.residents.get(key)
            if resident is not None:
                resident.phase = Phase.STOPPING
                resident.stop_ordered_ms = held.assigned_ms
        behind = bool(worker.held) and all(h.setup_key == held.setup_key for h in worker.held)
        worker.held.append(held)
        resident = worker.residents.get(held.setup_key)
        if resident is None or resident.phase is Phase.STOPPING:
            behind = False
            resident = Residence(held.setup_key, held.app, Phase.LOADING, loaded_ms=held.assigned_ms)
            worker.residents[held.setup_key] = resident
        resident.used_ms = held.assigned_ms
        resident.unused = False
        worker.parked.pop(held.setup_key, None)
        self._of_task[held.task_id] = worker
        if not behind or evict:  # one more of the same setup changes no index
            self._refile(worker)

    def keep(self, worker: Worker, ordered_ms: int) -> None:
        """What was to make room for a task is believed to live: the task came back. A report says more."""
        for resident in worker.residents.values():
            if resident.stop_ordered_ms == ordered_ms:
                resident.stop_ordered_ms = 0
                resident.phase = Phase.READY
        self._refile(worker)

    def stopping(self, worker: Worker, key: SetupKey, now_ms: int) -> None:
        """An idle or parked instance was told to go."""
        if worker.parked.pop(key, None) is not None:
            self._refile(worker)
        resident = worker.residents.get(key)
        if resident is not None:
            resident.phase = Phase.STOPPING
            resident.stop_ordered_ms = now_ms
            self._refile(worker)

    def runs(self, task_id: TaskId, now_ms: int) -> Held | None:
        """A task has reached its function: its instance is ready."""
        worker = self._of_task.get(task_id)
        if worker is None:
            return None
        held = next(held for held in worker.held if held.task_id == task_id)
        held.running_ms = now_ms
        self._ready(worker, held.setup_key, now_ms)
        self._refile(worker)
        return held

    def held(self, task_id: TaskId) -> Held | None:
        """The assignment of a task."""
        worker = self._of_task.get(task_id)
        return None if worker is None else next(h for h in worker.held if h.task_id == task_id)

    def end(self, task_id: TaskId, now_ms: int, *, warm: bool) -> tuple[Worker, Held] | None:
        """A task has left its worker. `warm`: its instance is known to have been ready."""
        worker = self._of_task.pop(task_id, None)
        if worker is None:
            return None
        held = next(held for held in worker.held if held.task_id == task_id)
        worker.held.remove(held)
        if warm:
            worker.returns.pop(held.setup_key, None)
        resident = worker.residents.get(held.setup_key)
        if resident is not None:
            resident.idle_ms = now_ms
        as_before = resident is not None and resident.phase is Phase.READY and bool(worker.held)
        if warm:
            self._ready(worker, held.setup_key, now_ms)
        elif resident is not None and resident.phase is Phase.LOADING:
            del worker.residents[held.setup_key]
        for after in worker.held[:1]:  # it was queued behind, and starts now
            after.audit_ms += now_ms - after.assigned_ms
            after.assigned_ms = now_ms
        if not (as_before and all(after.setup_key == held.setup_key for after in worker.held)):
            self._refile(worker)
        return worker, held

    def quarantine(self, worker_id: WorkerId, why: str) -> None:
        """A worker gets no tasks from now on, or gets them again (`why` empty)."""
        if why:
            self._quarantined[worker_id] = why
        else:
            self._quarantined.pop(worker_id, None)
        if (worker := self.workers.get(worker_id)) is not None:
            worker.quarantine = why
            self._file_anew(worker)

    def refuse(self, worker: Worker, key: SetupKey, until_ms: int) -> None:
        """Do not try a setup on a worker for a while."""
        worker.refused[key] = until_ms

    def _ready(self, worker: Worker, key: SetupKey, now_ms: int) -> None:
        resident = worker.residents.get(key)
        if resident is not None and resident.phase is Phase.LOADING:
            resident.phase = Phase.READY
            resident.loaded_ms = now_ms

    def _set_environments(self, engine: Engine, environments: frozenset[str]) -> None:
        for gone in engine.environments - environments:
            self._with_environment[gone].pop(engine.id, None)
        for env_key in environments - engine.environments:
            self._with_environment.setdefault(env_key, {})[engine.id] = engine
        engine.environments = environments

    def _new_worker(self, engine: Engine, slot: WorkerInfo) -> Worker:
        stale = self.workers.get(slot.id)
        if stale is not None:
            stale.engine.workers.pop(slot.id, None)
            self._forget(stale)
        worker = Worker(slot.id, slot.index, engine, Kind((), 0), slot.max_residents, frozenset())
        worker.quarantine = self._quarantined.get(slot.id, "")
        worker.lease = next((key for key, leased in self._leases.items() if leased == slot.id), None)
        engine.workers[slot.id] = self.workers[slot.id] = worker
        return worker

    def _forget(self, worker: Worker) -> None:
        for places, key in worker.places + worker.fixed_places:
            places.unfile(key, worker)
        for held in worker.held:
            self._of_task.pop(held.task_id, None)
        self.workers.pop(worker.id, None)

    def _unfile(self, worker: Worker) -> None:
        for places, key in worker.places:
            places.unfile(key, worker)
        worker.places.clear()

    def _file_anew(self, worker: Worker) -> None:
        """What a worker offers may have changed, or whether it is available."""
        for places, key in worker.fixed_places:
            places.unfile(key, worker)
        worker.fixed_places.clear()
        if worker.available:
            self.of_kind.file(worker.kind, worker, fixed=True)
            for name in worker.names:
                self.named.file(name, worker, fixed=True)
        self._refile(worker)

    def _refile(self, worker: Worker) -> None:
        """What a worker does, or what lives there, has changed."""
        self._unfile(worker)
        if not worker.available or worker.lease:
            return
        if worker.held:
            self.busy.file(worker.kind, worker)
            self._file_one_key(worker)
        else:
            self.idle.file((worker.kind, len(worker.residents)), worker)
            for key in worker.parked:
                self.parked.file(key, worker)
        for key, resident in worker.residents.items():
            if resident.phase is not Phase.STOPPING:
                self.holders.file(key, worker)
                if not worker.held and resident.phase is Phase.READY:
                    self.idle_with.file(key, worker)

    def _file_one_key(self, worker: Worker) -> None:
        key = worker.held[0].setup_key
        resident = worker.residents.get(key)
        alike = len(worker.held) == 1 or all(held.setup_key == key for held in worker.held)
        if alike and resident is not None and resident.phase is Phase.READY:
            self.one_key.file(key, worker)
