"""The worker daemon: what it is made of, how it starts, drains and ends.

    start: sensors > identity > spool > register      (returns when the engine is in the pool)
    serve: inbox, lease, reports, sensors and slots, each its own task, until drained
    drain: refuse > hand back what has not started > finish what runs > unload > deregister

The lease is renewed until the end of the drain. Cancelling `serve` (a second signal) ends it at once: every
process it started ends with it.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Final, Protocol

import msgspec

from stoker.core.errors import IncompatibleVersion, ProtocolRefusal, StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import (
    Assignment,
    CancelOrder,
    DrainOrder,
    EngineId,
    EngineInfo,
    EngineReport,
    EvictOrder,
    LoadOrder,
    PinOrder,
    TaskId,
)
from stoker.core.telemetry import Telemetry
from stoker.log import get_logger
from stoker_worker.backoff import Backoff
from stoker_worker.execution import Tools
from stoker_worker.inbox import Inbox, InboxStore
from stoker_worker.lease import RENEWALS_PER_LEASE, Lease, LeaseStore
from stoker_worker.log_upload import LogUploader
from stoker_worker.telemetry import Sensors
from stoker_worker.workload import Workload
from stoker_worker.writes import AttemptStore

INBOX_BLOCK_S: Final = 1.0
"""How long one read may block, at most a third of the lease: a connection that died without a word is noticed so late."""
KILL_WAIT_S: Final = 5.0
"""After the grace: killing a process group and handing its task back takes a fraction of this."""
LEAVE_WAIT_S: Final = 5.0
"""What the goodbye to the store may take; if it fails the lease ends by itself."""
LEAVE_NOW_WAIT_S: Final = 0.5
LOGS_WAIT_S: Final = 5.0
"""What the last chunks of logs may take at the end; the next start has the rest."""

_log = get_logger("daemon")


class EngineStore(AttemptStore, InboxStore, LeaseStore, Protocol):
    """`stoker.protocol.engines.Engines`, as far as the daemon uses it."""

    async def report(self, engine_id: EngineId, session: str, report: EngineReport) -> None: ...

    async def deregister(self, engine_id: EngineId, session: str) -> None: ...


class EnvironmentShelf(Protocol):
    """Who knows which environments are on disk."""

    def environment_keys(self) -> tuple[str, ...]: ...


class Daemon:
    """One engine. `run` is the whole life after start."""

    def __init__(
        self,
        info: EngineInfo,
        store: EngineStore,
        tools: Tools,
        sensors: Sensors,
        environments: EnvironmentShelf,
        uploader: LogUploader,
        *,
        lease_s: float,
        drain_grace_s: float,
    ) -> None:
        self.workload = Workload(info.workers, tools, sensors, self._changed)
        self.inbox = Inbox(store, info.id, self, min(INBOX_BLOCK_S, lease_s / RENEWALS_PER_LEASE))
        self.lease = Lease(store, self, lease_s)
        self._info = info
        self._store = store
        self._spool = tools.spool
        self._logs = tools.logs
        self._lot = tools.lot
        self._uploader = uploader
        self._sensors = sensors
        self._environments = environments
        self._drain_grace_s = drain_grace_s
        self._draining = self._restart = False
        self._report_due = asyncio.Event()
        self._reported: EngineReport | None = None
        self._drain_wanted = asyncio.Event()
        self._sampled = False
        sensors.on_sample(self._on_sample)

    # What the lease, the inbox and the sensors call.

    def info(self) -> EngineInfo:
        return self._info

    def report(self) -> EngineReport:
        return EngineReport(
            residents=self.workload.snapshot(),
            parked=self.workload.parked(),
            environments=self._environments.environment_keys(),
            draining=self._draining,
            vram=self.workload.vram_states(),
            loads=self.workload.loads.reports(),
            pins=self.workload.pins(),
        )

    def telemetry(self) -> Telemetry:
        silent_s = {"inbox": self.inbox.silent_s(), "lease": self.lease.silent_s()}
        return msgspec.structs.replace(self._sensors.latest, silent_s=silent_s)

    def held(self) -> dict[TaskId, int]:
        return self.workload.held()

    def on_registered(self, session: str) -> None:  # noqa: ARG002 - the lease keeps it; others ask there
        self.inbox.rewind()

    def on_lost(self, attempts: Mapping[TaskId, int], reason: str) -> None:
        self.workload.disown(attempts, reason)

    def on_fence(self, reason: str) -> None:
        self.workload.give_back(reason, running=True)

    def on_assign(self, entry: str, order: Assignment) -> None:
        self.workload.on_assign(entry, order)

    def on_cancel(self, order: CancelOrder) -> None:
        self.workload.on_cancel(order)

    def on_evict(self, order: EvictOrder) -> None:
        self.workload.on_evict(order)

    def on_load(self, order: LoadOrder) -> None:
        self.workload.on_load(order)

    def on_pins(self, order: PinOrder) -> None:
        self.workload.on_pins(order)

    def on_drain(self, order: DrainOrder) -> None:
        """Drain; then stay, unless a restart is wanted: who supervises a daemon starts one that ended again."""
        _log.info(Event.ENGINE_DRAINING, reason=order.reason, restart=order.restart)
        self._restart = order.restart
        self._drain_wanted.set()

    def on_recall(self) -> None:
        """The next renewal is refused, and the lease registers."""
        self.lease.renew_now()

    # The life after start.

    async def start(self) -> None:
        """Take up what an earlier life left in the spool, and join the pool, as soon as the store answers."""
        self._logs.recover()
        for spooled in self._spool.load():
            self.workload.replay(spooled)
        await self.lease.register()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set or a drain is ordered, drain, and return when `stop` is set or a restart is wanted.

        Raises:
            IncompatibleVersion: after a silence the pool did not take this release back.
        """
        try:
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(self.inbox.read_loop(), name="inbox"),
                    group.create_task(self.lease.renew_loop(), name="lease"),
                    group.create_task(self._report_loop(), name="reports"),
                    group.create_task(self._sensors.sample_loop(), name="sensors"),
                    group.create_task(self.workload.serve(), name="slots"),
                    group.create_task(self._uploader.run(), name="logs"),
                ]
                await _first(stop.wait(), self._drain_wanted.wait())
                await self._drain(stop)
                for loop in loops:
                    loop.cancel()
            await self._leave(LEAVE_WAIT_S)
            await self._uploader.flush(LOGS_WAIT_S)
            if not self._restart:
                await stop.wait()
        except ExceptionGroup as group:
            refused = group.subgroup(IncompatibleVersion)
            if refused is not None:  # it returned to a pool that was updated meanwhile
                raise refused.exceptions[0] from None
            raise
        except asyncio.CancelledError:
            # Now means now; but a goodbye spares the tasks the wait for the end of the lease.
            self.workload.kill()
            await self._leave(LEAVE_NOW_WAIT_S)
            raise
        finally:
            self.lease.stop()
            self.workload.kill()
            self._logs.close()

    async def _drain(self, stop: asyncio.Event) -> None:
        """Leave the pool without losing a task or spending an attempt."""
        self._draining = True
        self.workload.refuse("the worker is draining")
        self._report_due.set()
        await self._send_report()
        self.workload.give_back("the worker is draining", running=False)
        await self._emptied(stop)
        await self.workload.unload("the worker is stopping")

    async def _leave(self, timeout_s: float) -> None:
        """Say goodbye, with no renewal under way: one that came after it would bring the engine back."""
        self.lease.stop()
        with contextlib.suppress(
            StoreUnavailable, ProtocolRefusal, TimeoutError
        ):  # refused: declared lost already
            async with asyncio.timeout(timeout_s):
                await self._store.deregister(self._info.id, self.lease.session)
        _log.info(Event.ENGINE_DRAINED)

    async def _emptied(self, stop: asyncio.Event) -> None:
        """Wait for what runs: without a bound for an ordered drain, from `stop` on for the grace only."""
        empty = asyncio.ensure_future(self.workload.empty())
        try:
            await _first(self.workload.empty(), stop.wait())
            await asyncio.wait({empty}, timeout=self._drain_grace_s)
            if not empty.done():
                self.workload.give_back("the worker was stopped before the task ended", running=True)
                await asyncio.wait({empty}, timeout=KILL_WAIT_S)
        finally:
            empty.cancel()

    async def _report_loop(self) -> None:
        backoff = Backoff()
        while True:
            await self._report_due.wait()
            self._report_due.clear()
            if await self._send_report():
                backoff.reset()
            else:
                self._report_due.set()
                await backoff.wait()

    async def _send_report(self) -> bool:
        """Report what lives here; False when the store is away."""
        report = self.report()
        try:
            await self._store.report(self._info.id, self.lease.session, report)
        except StoreUnavailable:
            return False
        except ProtocolRefusal:
            return True  # declared lost: the lease registers again, with a fresh report
        self._reported = report
        return True

    def _changed(self) -> None:
        self._report_due.set()

    def _on_sample(self) -> None:
        if not self._sampled:
            self._sampled = True
            self.lease.renew_now()  # readings go out with renewals, and nobody should wait for the first ones
        for slot in self.workload.slots.values():
            slot.residency.refresh()
        self.workload.leave_lost_devices()
        self._lot.check()
        # Who is busy changes with every task and is not worth a write; people see it at the pace of the readings.
        if self.report() != self._reported:
            self._changed()


async def _first(*waits: Coroutine[object, object, object]) -> None:
    """Return when one of `waits` has; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
