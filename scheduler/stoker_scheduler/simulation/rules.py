"""Simple rules to compare with. They evict the least lately used, and take tasks in order of arrival.

`WaitOrLoad` is the strongest of them: it loads elsewhere only if that is sooner than waiting for the instance.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from stoker_scheduler.simulation.engine import Job, Placement, SimWorker

WEIGHT: Final = 0.3
RUN_PRIOR_S: Final = 5.0
LOAD_PRIOR_S: Final = 20.0


class _Simple:
    """A queue in order of arrival, and what all simple rules know."""

    ticks = False

    def __init__(self, workers: Sequence[SimWorker], seed: int = 0) -> None:
        self.workers = list(workers)
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.waiting: OrderedDict[int, Job] = OrderedDict()

    def arrived(self, job: Job, now_s: float) -> None:  # noqa: ARG002 - interface
        self.waiting[job.number] = job

    def began(self, job: Job, now_s: float) -> None:
        """Nothing is learned."""

    def ended(self, job: Job, now_s: float) -> None:
        """Nothing is learned."""

    def tick(self, now_s: float) -> None:
        """Time alone changes nothing."""

    def may_give(self, now_s: float) -> bool:  # noqa: ARG002 - interface
        return False

    def idle(self, taken: Iterable[SimWorker] = ()) -> list[SimWorker]:
        gone = {worker.id for worker in taken}
        return [worker for worker in self.workers if worker.idle and worker.id not in gone]

    def jobs(self, idle: list[SimWorker]) -> Iterator[tuple[Job, list[SimWorker]]]:
        """Jobs that wait, in order, each with the idle workers whose memory could hold it, while any is left in `idle`."""
        if not idle:
            return
        for job in list(self.waiting.values()):
            able = [worker for worker in idle if worker.capacity >= job.size]
            if able:
                yield job, able
            if not idle:
                return

    def give(self, job: Job, worker: SimWorker) -> Placement:
        """Give a job to an idle worker, with the eviction that it needs."""
        del self.waiting[job.number]
        return Placement(job, worker, lru(worker, job))


def lru(worker: SimWorker, job: Job) -> tuple[str, ...]:
    """What goes, least lately used first, for a job's instance to fit."""
    if job.request.setup in worker.residents:
        return ()
    gone: list[str] = []
    for setup in worker.residents:
        if worker.fits(job.size, gone):
            break
        gone.append(setup)
    return tuple(gone)


class Random(_Simple):
    """The oldest task to any idle worker."""

    def decide(self, now_s: float) -> list[Placement]:  # noqa: ARG002 - interface
        found: list[Placement] = []
        idle = self.idle()
        for job, able in self.jobs(idle):
            worker = self.random.choice(able)
            idle.remove(worker)
            found.append(self.give(job, worker))
        return found


class LeastLoaded(_Simple):
    """The oldest task to the idle worker that has worked least."""

    def __init__(self, workers: Sequence[SimWorker], seed: int = 0) -> None:
        super().__init__(workers, seed)
        self._used_s = dict.fromkeys((worker.id for worker in workers), 0.0)

    def ended(self, job: Job, now_s: float) -> None:
        self._used_s[job.worker] += now_s - job.assigned_s

    def decide(self, now_s: float) -> list[Placement]:  # noqa: ARG002 - interface
        idle = sorted(self.idle(), key=lambda worker: (self._used_s[worker.id], worker.id))
        found: list[Placement] = []
        for job, able in self.jobs(idle):
            idle.remove(able[0])
            found.append(self.give(job, able[0]))
        return found


class WarmFirst(_Simple):
    """The oldest task to an idle worker with its instance, else to any: what most schedulers do."""

    def decide(self, now_s: float) -> list[Placement]:  # noqa: ARG002 - interface
        found: list[Placement] = []
        idle = self.idle()
        for job, able in self.jobs(idle):
            warm = [worker for worker in able if job.request.setup in worker.residents]
            worker = (warm or able)[0]
            idle.remove(worker)
            found.append(self.give(job, worker))
        return found


class _Choice(NamedTuple):
    """Where a job goes, if anywhere now, and whether there may be `more` for the next job of its setup."""

    worker: SimWorker | None
    more: bool


class WaitOrLoad(_Simple):
    """Tasks whose instance is idle first; another waits for a busy one, unless a load is sooner. Learned times."""

    def __init__(self, workers: Sequence[SimWorker], seed: int = 0) -> None:
        super().__init__(workers, seed)
        self._run_s: dict[str, float] = {}
        self._load_s: dict[str, float] = {}
        self._busy: dict[str, list[Job]] = {worker.id: [] for worker in workers}
        self._used_s: dict[tuple[str, str], float] = {}
        self._lines: dict[str, deque[Job]] = {}  # jobs that wait, by setup: a decision must not walk them all

    def arrived(self, job: Job, now_s: float) -> None:
        super().arrived(job, now_s)
        self._lines.setdefault(job.request.setup, deque()).append(job)

    def began(self, job: Job, now_s: float) -> None:
        if job.loaded:
            _learn(self._load_s, job.request.setup, now_s - job.assigned_s)

    def ended(self, job: Job, now_s: float) -> None:
        _learn(self._run_s, job.request.setup, now_s - job.began_s)
        self._used_s[job.worker, job.request.setup] = now_s
        self._busy[job.worker].remove(job)

    def decide(self, now_s: float) -> list[Placement]:
        idle = self.idle()
        claimed: dict[str, float] = {}
        ready = {setup for worker in idle for setup in worker.residents}
        found = self._serve(ready, idle, lambda job: self._warm(job, idle))
        return found + self._serve(self._lines, idle, lambda job: self._cold(job, idle, claimed, now_s))

    def _serve(
        self, setups: Iterable[str], idle: list[SimWorker], choose: Callable[[Job], _Choice]
    ) -> list[Placement]:
        """Give jobs of some setups to idle workers, in order of arrival."""
        if not idle:
            return []
        lines = [
            (line[0].request.at_s, line[0].number, line) for line in map(self._lines.get, setups) if line
        ]
        heapify(lines)
        found: list[Placement] = []
        passed: list[Job] = []
        while idle and lines:
            _, _, line = heappop(lines)
            job = line.popleft()
            worker, more = choose(job)
            if worker is None:
                passed.append(job)
            else:
                idle.remove(worker)
                self._busy[worker.id].append(job)
                found.append(self.give(job, worker))
            if more and line:
                heappush(lines, (line[0].request.at_s, line[0].number, line))
        for job in reversed(passed):
            self._lines[job.request.setup].appendleft(job)
        return found

    def _warm(self, job: Job, idle: list[SimWorker]) -> _Choice:
        setup = job.request.setup
        warm = [worker for worker in idle if setup in worker.residents]
        found = max(warm, key=lambda worker: self._used_s.get((worker.id, setup), 0.0), default=None)
        return _Choice(found, more=found is not None)

    def _cold(self, job: Job, idle: list[SimWorker], claimed: dict[str, float], now_s: float) -> _Choice:
        """The idle worker that loses what was used longest ago; none when waiting is sooner, or none is large enough."""
        setup = job.request.setup
        holders = [worker for worker in self.workers if self._has(worker, setup)]
        sooner = [(self._free_s(each, now_s) + claimed.get(each.id, 0.0), each.id) for each in holders]
        if sooner and min(sooner)[0] <= _guess(self._load_s, setup, LOAD_PRIOR_S):
            _, soonest = min(sooner)
            claimed[soonest] = claimed.get(soonest, 0.0) + _guess(self._run_s, setup, RUN_PRIOR_S)
            return _Choice(None, more=True)
        able = [worker for worker in idle if worker.capacity >= job.size]
        found = min(able, key=lambda worker: self._loss(worker, job), default=None)
        return _Choice(found, more=found is not None)

    def _has(self, worker: SimWorker, setup: str) -> bool:
        """Whether it is busy, and has this instance or is about to load it."""
        jobs = self._busy[worker.id]
        return bool(jobs) and (setup in worker.residents or any(job.request.setup == setup for job in jobs))

    def _loss(self, worker: SimWorker, job: Job) -> tuple[float, str]:
        """When the instances were last used that would go."""
        gone = lru(worker, job)
        return max((self._used_s.get((worker.id, setup), 0.0) for setup in gone), default=-1.0), worker.id

    def _free_s(self, worker: SimWorker, now_s: float) -> float:
        seconds = 0.0
        for job in self._busy[worker.id]:
            run_s = _guess(self._run_s, job.request.setup, RUN_PRIOR_S)
            if job.began_s >= 0:
                seconds += max(run_s - (now_s - job.began_s), (now_s - job.began_s) / 2)
            else:
                load_s = _guess(self._load_s, job.request.setup, LOAD_PRIOR_S)
                seconds += max(load_s - (now_s - job.assigned_s), 0.0) + run_s
        return seconds


def _learn(known: dict[str, float], setup: str, seconds: float) -> None:
    for name in (setup, ""):
        old = known.get(name)
        known[name] = seconds if old is None else old + WEIGHT * (seconds - old)


def _guess(known: dict[str, float], setup: str, prior: float) -> float:
    return known.get(setup, known.get("", prior))
