"""The lease of this engine: registered, renewed, and given up in time.

The server takes an engine's tasks back when its lease is over. So, when renewals fail, the daemon stops its
own attempts a moment earlier (`decide_fence`), and returns or drops them when the server is back. One case is
safe to wait in: nobody listens at the server's address, so nobody can hand a task on either.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from stoker.core.errors import ProtocolRefusal, StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import CancelOrder, EngineId, EngineInfo, EngineReport, TaskId
from stoker.core.telemetry import Telemetry
from stoker.log import get_logger
from stoker.protocol.engines import Renewal
from stoker_worker.backoff import Backoff

RENEWALS_PER_LEASE: Final = 3
FENCE_SHARE: Final = 0.85
"""Share of the lease after which attempts are stopped: the rest is for ending their processes."""

_log = get_logger("lease")


class LeaseStore(Protocol):
    """The part of `stoker.protocol.engines.Engines` that the lease needs."""

    async def register(
        self,
        info: EngineInfo,
        report: EngineReport,
        held: Mapping[TaskId, int],
        lease_s: float,
        *,
        returning: bool = False,
    ) -> tuple[str, frozenset[TaskId]]: ...

    async def renew(
        self,
        engine_id: EngineId,
        session: str,
        telemetry: Telemetry,
        held: Mapping[TaskId, int],
        lease_s: float,
    ) -> Renewal: ...


class Holder(Protocol):
    """Who holds the attempts that the lease protects, and what the server needs to know of this engine."""

    def info(self) -> EngineInfo: ...

    def report(self) -> EngineReport: ...

    def telemetry(self) -> Telemetry: ...

    def held(self) -> dict[TaskId, int]: ...

    def on_registered(self, session: str) -> None: ...

    def on_lost(self, attempts: Mapping[TaskId, int], reason: str) -> None: ...

    def on_cancel(self, order: CancelOrder) -> None: ...

    def on_fence(self, reason: str) -> None: ...


def decide_fence(renewed_mono: float, refused_mono: float, lease_s: float) -> float:
    """When attempts must be stopped, in monotonic seconds.

    Args:
        renewed_mono: when the last successful renewal was sent.
        refused_mono: when the server was last found not to be there at all; 0 = never.
    """
    return max(renewed_mono, refused_mono) + lease_s * FENCE_SHARE


class Lease:
    """Keeps the lease.

    1. `register`  2. `renew_loop` until the very end, also while draining  3. `stop`.
    """

    def __init__(
        self,
        store: LeaseStore,
        holder: Holder,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = ""
        self.useful_mono = 0.0
        self._store = store
        self._holder = holder
        self._lease_s = lease_s
        self._clock = clock
        self._refused_mono = 0.0
        self._fence: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()

    async def register(self) -> None:
        """Join the pool, or return to it; tries until the server takes it."""
        backoff = Backoff()
        while True:
            held = self._holder.held()
            sent_mono = self._clock()
            try:
                session, lost = await self._store.register(
                    self._holder.info(),
                    self._holder.report(),
                    held,
                    self._lease_s,
                    returning=bool(self.session),
                )
            except StoreUnavailable as error:
                self._on_unavailable(error)
                await backoff.wait()
                continue
            self.session = session
            self._renewed(sent_mono)
            _log.info(Event.ENGINE_REGISTERED, held=len(held), lost=len(lost))
            self._holder.on_registered(session)
            reason = "it was given to another worker while this machine was away"
            self._holder.on_lost(_attempts(held, lost), reason)
            return

    def silent_s(self) -> float:
        """Seconds since the last renewal that the server took."""
        return round(self._clock() - self.useful_mono, 3) if self.useful_mono else 0.0

    async def renew_loop(self) -> None:
        """Renew at a third of the lease, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / RENEWALS_PER_LEASE):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._renew()

    def renew_now(self) -> None:
        """Have the next renewal made at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Forget the fence; there is nothing left to protect. May be called twice."""
        if self._fence is not None:
            self._fence.cancel()
            self._fence = None

    async def _renew(self) -> None:
        """One renewal, repeated while the server is away."""
        backoff = Backoff()
        while True:
            sent_mono, held = self._clock(), self._holder.held()
            try:
                renewal = await self._store.renew(
                    self._holder.info().id,
                    self.session,
                    self._holder.telemetry(),
                    held,
                    self._lease_s,
                )
            except StoreUnavailable as error:
                self._on_unavailable(error)
                await backoff.wait()
            except ProtocolRefusal as refusal:
                if refusal.refusal != "ENGINE_RECALLED":
                    _log.warning(Event.LEASE_LOST, reason=refusal.message)
                await self.register()
                return
            else:
                self._renewed(sent_mono)
                self._act(renewal, held)
                return

    def _act(self, renewal: Renewal, held: Mapping[TaskId, int]) -> None:
        if renewal.lost:
            self._holder.on_lost(_attempts(held, renewal.lost), "another attempt owns it")
        for order in renewal.cancelled:  # the inbox brings them too; an order that is known does nothing
            self._holder.on_cancel(order)

    def _renewed(self, sent_mono: float) -> None:
        self.useful_mono = sent_mono
        self._arm()

    def _on_unavailable(self, error: StoreUnavailable) -> None:
        if error.fields.get("nobody_listens") and self.useful_mono:
            self._refused_mono = self._clock()
            self._arm()

    def _arm(self) -> None:
        """Set the moment at which attempts are stopped."""
        self.stop()
        due = decide_fence(self.useful_mono, self._refused_mono, self._lease_s)
        loop = asyncio.get_running_loop()
        self._fence = loop.call_later(max(due - self._clock(), 0), self._on_fence)

    def _on_fence(self) -> None:
        silent_s = round(self._clock() - self.useful_mono, 3)
        held = len(self._holder.held())
        _log.error(Event.LEASE_LOST, reason="no renewal succeeded in time", silent_s=silent_s, held=held)
        self._holder.on_fence("the worker lost contact with the server")


def _attempts(held: Mapping[TaskId, int], lost: Iterable[TaskId]) -> dict[TaskId, int]:
    """What was asked about of what is lost: the inbox may have brought a later attempt of it meanwhile."""
    return {task_id: held[task_id] for task_id in lost if task_id in held}
