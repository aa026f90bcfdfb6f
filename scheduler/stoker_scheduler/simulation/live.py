"""The scheduler's own policy in a simulation: the mirror and `decide`, fed with events as Redis would."""

from collections.abc import Sequence
from typing import Final

from stoker.core.measures import Measures
from stoker.core.messages import (
    EngineId,
    EngineInfo,
    EngineReport,
    EngineView,
    GpuInfo,
    GpuType,
    Needs,
    Resident,
    SetupKey,
    TaskId,
    TaskSpec,
    WorkerId,
    WorkerInfo,
)
from stoker.core.states import ResidentState, TaskState
from stoker_scheduler.actions import Assign, Rules, Wait
from stoker_scheduler.chores import LOOKS
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.eviction import Facts
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.placement import is_short
from stoker_scheduler.policy import decide
from stoker_scheduler.simulation.engine import Job, Placement, SimWorker

APP: Final = "trace/app"
"""One app with many setups: what is learned of all of them is the first guess for a new one."""
ENVIRONMENT: Final = "environment"
EPOCH_MS: Final = 1_000_000
"""The clock of a simulation does not begin at 0: that means "never" in places."""


class Live:
    """What runs in production, without Redis. It learns loads and runs as it does there."""

    ticks = True

    def __init__(self, workers: Sequence[SimWorker], rules: Rules) -> None:
        self.mirror = Mirror(rules, Limits())
        self._rules = rules
        self._workers = {worker.id: worker for worker in workers}
        self._jobs: dict[TaskId, Job] = {}
        for worker in workers:
            self._report(worker, 0.0)

    def arrived(self, job: Job, now_s: float) -> None:
        request = job.request
        spec = TaskSpec(
            id=TaskId(str(job.number)),
            setup_key=SetupKey(request.setup),
            version_id=request.setup,
            env_key=ENVIRONMENT,
            app=APP,
            needs=Needs(gpu_count=1, gpu_type=GpuType.ANY, vram_bytes=job.size),
            priority=request.priority,
            key_id=request.tenant,
            created_ms=_ms(now_s),
        )
        self._jobs[spec.id] = job
        self.mirror.on_submitted(spec)

    def began(self, job: Job, now_s: float) -> None:
        self.mirror.on_moved(TaskId(str(job.number)), TaskState.RUNNING, _ms(now_s))
        worker = self._workers[job.worker]
        if job.loaded and worker.host.capacity:
            self._report(worker, now_s)  # what made room is parked by now

    def ended(self, job: Job, now_s: float) -> None:
        measured = Measures(load_s=job.load_s, run_s=job.request.run_s, vram_bytes=job.size)
        self.mirror.on_finished(TaskId(str(job.number)), TaskState.COMPLETED, measured, _ms(now_s))
        if job.loaded:
            self._report(self._workers[job.worker], now_s)  # what the instance takes is measured by now
        del self._jobs[TaskId(str(job.number))]

    def tick(self, now_s: float) -> None:  # noqa: ARG002 - interface
        for group_id in self.mirror.queues.oldest_visited(LOOKS):
            self.mirror.changed.groups[group_id] = None

    def may_give(self, now_s: float) -> bool:
        """Whether a worker is idle and large enough for something that waits, or takes a task behind its short ones."""
        mirror = self.mirror
        least = min((shape.needs.vram_bytes for shape in mirror.queues.shapes(())), default=0)
        facts = Facts(_ms(now_s), mirror.queues, mirror.fleet, mirror.knowledge, self._rules)
        return any(
            is_short(SetupKey(worker.queue[0].request.setup), facts)
            if worker.queue
            else worker.capacity >= least
            for worker in self._workers.values()
        )

    def decide(self, now_s: float) -> list[Placement]:
        now_ms, mirror = _ms(now_s), self.mirror
        found: list[Placement] = []
        while changed := mirror.take_changed():
            actions = decide(now_ms, mirror.queues, mirror.fleet, mirror.knowledge, changed, self._rules)
            for action in actions:
                if isinstance(action, Assign):
                    mirror.apply_assign(action, 1, now_ms)
                    worker = self._workers[action.worker_id]
                    found.append(Placement(self._jobs[action.task_id], worker, action.evict))
                    if action.evict:
                        self._report(worker, now_s, without=action.evict)
                elif isinstance(action, Wait):
                    mirror.apply_wait(action, now_ms)
        return found

    def _report(self, worker: SimWorker, now_s: float, without: Sequence[str] = ()) -> None:
        """What an engine says when its instances change: an evicted one is gone at once."""
        device = GpuInfo(index=0, uuid=worker.id, name="GPU", type=GpuType.NVIDIA, vram_bytes=worker.capacity)
        slot = WorkerInfo(id=WorkerId(worker.id), index=0, gpus=(device,), max_residents=worker.models)
        engine_id = EngineId(worker.id)
        info = EngineInfo(id=engine_id, name=worker.id, version="", hostname=worker.id, workers=(slot,))
        residents = tuple(
            Resident(
                worker_id=slot.id,
                setup_key=SetupKey(setup),
                version_id=setup,
                app=APP,
                state=ResidentState.IDLE,
                vram_bytes=size,
                parks=worker.host.capacity > 0,
            )
            for setup, size in worker.residents.items()
            if setup not in without
        )
        parked = tuple(
            Resident(
                worker_id=slot.id,
                setup_key=SetupKey(setup),
                version_id=setup,
                app=APP,
                state=ResidentState.PARKED,
            )
            for setup in worker.host.setups()
        )
        report = EngineReport(residents=residents, parked=parked, environments=(ENVIRONMENT,))
        view = EngineView(
            info=info, status="running", registered_ms=EPOCH_MS, seen_ms=_ms(now_s), report=report
        )
        self.mirror.on_engine(view, _ms(now_s))


def _ms(seconds: float) -> int:
    return EPOCH_MS + round(seconds * 1000)
