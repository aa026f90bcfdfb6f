"""Virtual time: requests arrive, workers load and run, a policy decides. Deterministic.

A worker runs one task at a time, in the order in which it was given them. What a policy orders is checked:
an instance that does not fit is an error of the policy and ends the run.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from math import ceil, inf
from typing import Final, NamedTuple, Protocol

from stoker.core.errors import Bug
from stoker_scheduler.simulation.fleet_file import GB, FleetFile, Loads
from stoker_scheduler.simulation.parked import HostMemory
from stoker_scheduler.simulation.trace import Request

TICK_S: Final = 1.0


@dataclass(slots=True, eq=False)
class SimWorker:
    """A device. `residents`: setup -> bytes, the least lately used first."""

    id: str
    capacity: int
    models: int
    residents: dict[str, int] = field(default_factory=dict)
    queue: deque["Job"] = field(default_factory=deque)
    host: HostMemory = field(default_factory=HostMemory)

    @property
    def idle(self) -> bool:
        """Nothing runs or loads here."""
        return not self.queue

    def fits(self, size: int, without: Iterable[str] = ()) -> bool:
        """Whether one more instance fits once some are gone."""
        gone = set(without)
        staying = [used for setup, used in self.residents.items() if setup not in gone]
        return len(staying) < self.models and sum(staying) + size <= self.capacity


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way. Times in seconds since the trace's begin; -1 = not yet."""

    number: int
    request: Request
    size: int
    assigned_s: float = -1.0
    began_s: float = -1.0
    ended_s: float = -1.0
    load_s: float = 0.0
    loaded: bool = False  # its instance was not there, and was loaded or brought back; that may take no time
    worker: str = ""
    unparked: bool = False  # its instance was parked, and `load_s` is what it took to come back
    parking_s: float = 0.0  # until its worker has parked what made room

    @property
    def overhead_s(self) -> float:
        """All its time but the execution."""
        return self.began_s - self.request.at_s

    @property
    def warm(self) -> bool:
        return not self.loaded


class Placement(NamedTuple):
    """Give a job to a worker; `evict` goes first."""

    job: Job
    worker: SimWorker
    evict: tuple[str, ...] = ()


class Policy(Protocol):
    """Who decides. It learns from what it is told, and from nothing else."""

    ticks: bool
    """Whether it also wants to decide because time has passed."""

    def arrived(self, job: Job, now_s: float) -> None:
        """A job waits."""

    def began(self, job: Job, now_s: float) -> None:
        """A job's instance is loaded, if it was not, and it runs."""

    def ended(self, job: Job, now_s: float) -> None:
        """A job's worker is done with it."""

    def tick(self, now_s: float) -> None:
        """A second has passed while jobs waited."""

    def decide(self, now_s: float) -> Sequence[Placement]:
        """What to give to whom now."""

    def may_give(self, now_s: float) -> bool:
        """Whether it might give away a job before the next event: else no tick is due until then."""


class Span(NamedTuple):
    """What a worker did: `load` or `run`, for the chart."""

    worker: str
    kind: str
    setup: str
    begin_s: float
    end_s: float


class Stay(NamedTuple):
    """An instance on a worker, from the begin of its load until it was evicted or the run was over."""

    worker: str
    setup: str
    begin_s: float
    end_s: float


@dataclass(slots=True)
class Outcome:
    """A finished run."""

    jobs: list[Job]
    workers: list[SimWorker]
    spans: list[Span] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    loads: int = 0
    unparks: int = 0
    loading_s: float = 0.0
    evictions: int = 0
    returns: int = 0
    """Loads of a setup that the same worker had evicted before within `RETURN_S`."""


RETURN_S: Final = 600.0


class _What(IntEnum):
    END = 0
    BEGIN = 1
    ARRIVE = 2
    TICK = 3


class Simulation:
    """One run of one policy.

    1. the next event  2. all others of the same moment  3. the policy decides  4. idle workers start.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        workers: list[SimWorker],
        load_s: Callable[[int, str], float],
        size_of: Callable[[str], int],
        parking: Loads = Loads(),  # noqa: B008 - frozen
    ) -> None:
        self.jobs = [
            Job(number, request, request.vram_bytes or size_of(request.setup))
            for number, request in enumerate(requests)
        ]
        self.workers = workers
        self._load_s = load_s
        self._parking = parking
        self._events: list[tuple[float, int, int, Job | None]] = []
        self._now_s = -inf
        self._waiting = 0
        self._ticking = False
        self._evicted: dict[tuple[str, str], float] = {}
        self._measured_s: dict[str, float] = {}  # what the trace says of a setup's load, where it does
        self._loaded = {(worker.id, setup): 0.0 for worker in workers for setup in worker.residents}
        self._outcome = Outcome(self.jobs, workers)

    def run(self, policy: Policy) -> Outcome:
        """Play the trace to its end."""
        for job in self.jobs:
            self._push(job.request.at_s, _What.ARRIVE, job)
        by_id = {worker.id: worker for worker in self.workers}
        while self._events:
            now_s = self._now_s = self._events[0][0]
            while self._events and self._events[0][0] == now_s:
                _, what, _, about = heapq.heappop(self._events)
                self._take(policy, _What(what), about, now_s, by_id)
            for placement in policy.decide(now_s):
                self._place(placement, now_s)
            if self._waiting and policy.ticks and not self._ticking:
                self._tick(now_s, soon=policy.may_give(now_s))
        if self._waiting:
            raise Bug(f"{self._waiting} jobs were never given to a worker")
        end_s = max((job.ended_s for job in self.jobs), default=0.0)
        for worker_id, setup in list(self._loaded):
            self._leaves(worker_id, setup, end_s)
        return self._outcome

    def _tick(self, now_s: float, *, soon: bool) -> None:
        """Let the next tick come in a second, or, when it would change nothing, in whole seconds after the next event."""
        seconds = 1
        if not soon:
            if not self._events:
                return
            seconds = max(1, ceil((self._events[0][0] - now_s) / TICK_S))
        self._ticking = True
        self._push(now_s + seconds * TICK_S, _What.TICK, None)

    def _leaves(self, worker_id: str, setup: str, now_s: float) -> None:
        """An instance is gone: that is a stay."""
        begin_s = self._loaded.pop((worker_id, setup))
        self._outcome.stays.append(Stay(worker_id, setup, begin_s, now_s))

    def _push(self, at_s: float, what: _What, job: Job | None) -> None:
        if not self._now_s <= at_s < inf:  # also what is no number: such an event would come again for ever
            raise Bug(f"an event of the simulation is due at {at_s} s, and it is {self._now_s} s already")
        heapq.heappush(self._events, (at_s, what, job.number if job else -1, job))

    def _take(
        self, policy: Policy, what: _What, job: Job | None, now_s: float, by_id: dict[str, SimWorker]
    ) -> None:
        if job is None:
            self._ticking = False
            policy.tick(now_s)
        elif what is _What.ARRIVE:
            self._waiting += 1
            policy.arrived(job, now_s)
        elif what is _What.BEGIN:
            self._begin(policy, job, by_id[job.worker], now_s)
        else:
            self._end(policy, job, by_id[job.worker], now_s)

    def _place(self, placement: Placement, now_s: float) -> None:
        job, worker, evict = placement
        if job.assigned_s >= 0:
            raise Bug(f"job {job.number} was given away twice")
        self._waiting -= 1
        job.assigned_s, job.worker = now_s, worker.id
        if evict and worker.queue:
            raise Bug(f"{worker.id} was told to evict while it works")
        for setup in evict:
            load_s = self._measured_s.get(setup) or self._load_s(job.number, setup)
            if worker.host.put(setup, worker.residents.pop(setup), load_s):
                job.parking_s += self._parking.park_s
            self._outcome.evictions += 1
            self._evicted[worker.id, setup] = now_s
            self._leaves(worker.id, setup, now_s)
        worker.queue.append(job)
        if len(worker.queue) == 1:
            self._start(worker, now_s)

    def _start(self, worker: SimWorker, now_s: float) -> None:
        job = worker.queue[0]
        setup = job.request.setup
        if setup not in worker.residents:
            if not worker.fits(job.size):
                raise Bug(f"{setup} does not fit on {worker.id} beside {list(worker.residents)}")
            job.loaded, job.unparked = True, worker.host.take(setup)
            loaded_s = job.request.load_s or self._load_s(job.number, setup)
            if job.request.load_s:
                self._measured_s[setup] = job.request.load_s
            job.load_s = job.parking_s + (self._parking.unpark_s if job.unparked else loaded_s)
            self._outcome.unparks += job.unparked
            self._outcome.loads += not job.unparked
            self._outcome.loading_s += job.load_s
            self._outcome.returns += (
                not job.unparked and now_s - self._evicted.get((worker.id, setup), -RETURN_S) < RETURN_S
            )
            self._outcome.spans.append(Span(worker.id, "load", setup, now_s, now_s + job.load_s))
            worker.residents[setup] = job.size
            self._loaded[worker.id, setup] = now_s
        self._push(now_s + job.load_s, _What.BEGIN, job)

    def _begin(self, policy: Policy, job: Job, worker: SimWorker, now_s: float) -> None:
        setup = job.request.setup
        worker.residents[setup] = worker.residents.pop(setup)  # the most lately used
        worker.host.used(setup)
        job.began_s = now_s
        job.ended_s = now_s + job.request.run_s
        self._outcome.spans.append(Span(worker.id, "run", setup, now_s, job.ended_s))
        policy.began(job, now_s)
        self._push(job.ended_s, _What.END, job)

    def _end(self, policy: Policy, job: Job, worker: SimWorker, now_s: float) -> None:
        worker.queue.popleft()
        policy.ended(job, now_s)
        if worker.queue:
            self._start(worker, now_s)


def workers_of(fleet: FleetFile) -> list[SimWorker]:
    """The workers of a fleet, empty."""
    found: list[SimWorker] = []
    for machine in fleet.machines:
        for _ in range(machine.count):
            name = f"{machine.name}-{len(found)}"
            worker = SimWorker(name, int(machine.vram_gb * GB), machine.models or 1_000_000)
            worker.host.capacity = int(machine.host_gb * GB)
            found.append(worker)
    return found
