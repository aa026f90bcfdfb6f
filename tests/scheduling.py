"""Builders for scheduler tests: specs, engines, requests, and an engine that speaks the real protocol."""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field

import msgspec

from stoker.core.errors import StaleAttempt
from stoker.core.loads import LoadReport, LoadState
from stoker.core.messages import (
    Assignment,
    EngineId,
    EngineInfo,
    EngineReport,
    EngineView,
    EvictOrder,
    GpuInfo,
    GpuType,
    LoadOrder,
    Needs,
    Outcome,
    Owner,
    PinOrder,
    Resident,
    SetupKey,
    TaskId,
    TaskRequest,
    TaskSpec,
    WorkerId,
    WorkerInfo,
)
from stoker.core.states import ResidentState, TaskState
from stoker.core.telemetry import Telemetry
from stoker.log import get_logger
from stoker.protocol import Store
from stoker_scheduler.actions import Rules
from stoker_scheduler.loop import Loop

GB = 1_000_000_000
OWNER = Owner(user_id="u1", key_id="k1")
LEASE_S = 600.0
"""Nobody renews it: longer than any test takes."""
_numbers = itertools.count()


def spec(key="a", *, task="", **fields):
    """A task's spec; `key` names its setup, its version and its environment."""
    known = {"needs": Needs(), "created_ms": 1, "key_id": "k1", "app": f"test/{key}"} | fields
    return TaskSpec(
        id=TaskId(task or f"t{next(_numbers)}"),
        setup_key=SetupKey(key),
        version_id=f"v-{key}",
        env_key=known.pop("env_key", "env"),
        **known,
    )


def gpu_needs(vram_gb=0.0, count=1, gpu_type=GpuType.NVIDIA, ram_gb=0.0):
    return Needs(gpu_count=count, gpu_type=gpu_type, vram_bytes=int(vram_gb * GB), ram_bytes=int(ram_gb * GB))


def slot(engine, index, *, gpus=(), residents=4, ram_gb=0.0):
    """A worker as registered; `gpus` are sizes in GB."""
    kind = "gpu" if gpus else "cpu"
    return WorkerInfo(
        id=WorkerId(f"{engine}-{kind}-{index}"),
        index=index,
        gpus=tuple(
            GpuInfo(index=n, uuid=f"GPU-{index}-{n}", name="gpu", type=GpuType.NVIDIA, vram_bytes=int(s * GB))
            for n, s in enumerate(gpus)
        ),
        max_residents=residents,
        ram_bytes=int(ram_gb * GB),
    )


def engine_info(name="box", workers=1, *, gpus=(), residents=4, ram_gb=0.0):
    slots = tuple(slot(name, i, gpus=gpus, residents=residents, ram_gb=ram_gb) for i in range(workers))
    return EngineInfo(id=EngineId(name), name=name, version="1", hostname=name, workers=slots)


def engine_view(
    info, *, status="running", residents=(), environments=("env",), draining=False, vram=None, parked=()
):
    report = EngineReport(
        residents=tuple(residents),
        parked=tuple(parked),
        environments=tuple(environments),
        draining=draining,
        vram=vram or {},
    )
    return EngineView(info=info, status=status, registered_ms=0, seen_ms=0, report=report)


def resident(worker, key, state=ResidentState.IDLE, vram_gb=0.0):
    return Resident(
        worker_id=WorkerId(worker),
        setup_key=SetupKey(key),
        version_id=f"v-{key}",
        app=f"test/{key}",
        state=state,
        vram_bytes=int(vram_gb * GB),
    )


def request(task_spec):
    return TaskRequest(
        id=task_spec.id,
        app_id="app",
        app=task_spec.app,
        version_id=task_spec.version_id,
        function="run",
        input={},
        setup={},
        setup_key=task_spec.setup_key,
        env_key=task_spec.env_key,
        workers=task_spec.workers,
    )


async def submit(store, task_spec, **more):
    asked = msgspec.structs.replace(request(task_spec), **more)
    return await store.tasks.submit(asked, task_spec, OWNER)


@dataclass
class FakeEngine:
    """An engine without processes: the protocol is real, an app is a number of seconds.

    With `hold`, tasks stay in their last state before the end until `release` is set.
    """

    store: Store
    info: EngineInfo
    hold: bool = False
    hand_back: bool = False
    deaf: bool = False  # reads its inbox and does nothing
    fails: Outcome | None = None  # what tasks end with instead
    loads: list[tuple[str, str]] = field(default_factory=list)
    ran: list[tuple[str, str]] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)
    ordered: list[tuple[str, str]] = field(default_factory=list)  # loads that no task asked for
    load_fails: str = ""  # why those come to nothing
    pins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    _warm: dict[str, dict[str, None]] = field(default_factory=dict)
    _queues: dict[str, asyncio.Queue] = field(default_factory=dict)
    _tasks: list[asyncio.Task] = field(default_factory=list)
    _told: list[LoadReport] = field(default_factory=list)
    _session: str = ""

    async def __aenter__(self):
        self._session, _ = await self.store.engines.register(self.info, self._report(), {}, LEASE_S)
        for worker in self.info.workers:
            self._queues[worker.id] = asyncio.Queue()
            self._tasks.append(asyncio.create_task(self._worker_loop(self._queues[worker.id])))
        self._tasks.append(asyncio.create_task(self._inbox_loop()))
        return self

    async def __aexit__(self, *_):
        await self.die()

    async def die(self):
        """Stop at once, as a killed daemon does: nothing is said to anybody."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def renew(self, lease_s=LEASE_S):
        telemetry = Telemetry(cpu_percent=0, ram_used_bytes=0, ram_total_bytes=1)
        await self.store.engines.renew(EngineId(self.info.id), self._session, telemetry, {}, lease_s)

    def _report(self, draining=False):
        residents = tuple(resident(w, key) for w, keys in self._warm.items() for key in keys)
        return EngineReport(
            residents=residents,
            environments=("env",),
            draining=draining,
            loads=tuple(self._told),
            pins=self.pins,
        )

    async def report(self, *, draining=False):
        await self.store.engines.report(self.info.id, self._session, self._report(draining))

    async def _inbox_loop(self):
        cursor = "0"
        while True:
            cursor, found = await self.store.engines.inbox(self.info.id, cursor, 500)
            for entry, message in found:
                if self.deaf:
                    continue
                if isinstance(message, Assignment):
                    self._queues[message.worker_id].put_nowait((entry, message))
                elif isinstance(message, LoadOrder):
                    await self._load(message)
                elif isinstance(message, PinOrder):
                    self.pins = {message.worker_id: message.setup_keys} if message.setup_keys else {}
                    await self.report()
                elif isinstance(message, EvictOrder):
                    self._warm[message.worker_id].pop(message.setup_key, None)
                    self.evicted.append(message.setup_key)
                    await self.report()

    async def _load(self, order):
        key = order.task.setup_key
        self.ordered.append((order.worker_id, key))
        if not self.load_fails:
            warm = self._warm.setdefault(order.worker_id, {})
            for gone in order.evict:
                warm.pop(gone, None)
                self.evicted.append(gone)
            warm[key] = None
        state = LoadState.FAILED if self.load_fails else LoadState.LOADED
        told = {"id": order.task.id, "worker_id": order.worker_id, "setup_key": key, "state": state}
        self._told.append(LoadReport(**told, load_s=2.0, error=self.load_fails))
        await self.report()

    async def lose(self, worker_id, key):
        """An instance ends by itself."""
        self._warm[worker_id].pop(key)
        await self.report()

    async def _worker_loop(self, waiting):
        while True:
            entry, order = await waiting.get()
            with contextlib.suppress(StaleAttempt):
                if self.hand_back:
                    await self.store.engines.hand_back(order, self.info.id, entry, "no room")
                else:
                    await self._run(entry, order)

    async def _run(self, entry, order):
        engines, task = self.store.engines, order.task
        warm = self._warm.setdefault(order.worker_id, {})
        cold = task.setup_key not in warm
        move = (task.id, order.attempt, order.token)
        await engines.accept(order, self.info.id, entry, TaskState.SERVING if cold else TaskState.RUNNING)
        if cold:
            for key in order.evict:
                warm.pop(key, None)
                self.evicted.append(key)
            self.loads.append((order.worker_id, task.setup_key))
            await engines.transition(*move, TaskState.SETTING_UP)
            await engines.transition(*move, TaskState.RUNNING)
            warm[task.setup_key] = None
        if self.hold:
            await self.release.wait()
        self.ran.append((order.worker_id, task.id))
        outcome = self.fails or Outcome(
            state=TaskState.COMPLETED,
            output=msgspec.Raw(b"{}"),
            load_s=2.0 if cold else 0.0,
            run_s=0.001,
        )
        await engines.finish(order, self.info.id, outcome)
        if cold:
            await self.report()


@contextlib.asynccontextmanager
async def scheduling(store, rules=Rules(), **options):  # noqa: B008 - frozen
    """A loop that leads; yields it."""
    epoch = await store.scheduling.lead("test", 60)
    loop = Loop(store, rules, get_logger("test"), **options)
    task = loop.task = asyncio.create_task(loop.run(epoch))
    try:
        yield loop
    finally:
        task.cancel()
        ended = await asyncio.gather(task, return_exceptions=True)
        await store.scheduling.resign("test", epoch)
        if not isinstance(ended[0], asyncio.CancelledError):
            raise ended[0]
