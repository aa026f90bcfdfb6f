"""Leadership: one scheduler of a pool decides, the others stand by. The epoch is the fence.

A leader renews at a third of the time to live. It stops its work at once when Redis says that another leads,
when it could not renew for the time to live, or when its loop has gone deaf. What was on its way then is
refused by the scripts, which compare the epoch.
"""

import asyncio
import contextlib
import time
from typing import Final, Protocol

from stoker.core.errors import StokerError, StoreUnavailable
from stoker.core.events import Event
from stoker.log import Logger
from stoker.protocol.scheduling import Scheduling

RENEWALS: Final = 3
"""Renewals in a time to live: one may be lost."""
STANDBY_TRIES: Final = 5
"""Attempts of a standby in a time to live."""
STANDBY_S: Final = 0.5
"""The longest pause between them: after an outage somebody leads again within 5 s."""
DEAF_S: Final = 15.0
"""A loop that has read nothing for so long, though its reads are bounded to 1 s, is stuck."""


class LeadershipLost(StokerError):
    """Another scheduler leads."""

    code = "leadership_lost"
    http = 409


class Work(Protocol):
    """What a leader does."""

    async def run(self, epoch: int) -> None:
        """Decide until cancelled; raises LeadershipLost when a write was refused."""

    def deaf_s(self) -> float:
        """Seconds since the last read that Redis answered."""

    def on_store_lost(self) -> None:
        """Redis did not answer the leader: whoever depends on it may need a moment after its return."""


class Leader:
    """Takes, keeps and gives up the leadership for one process.

    1. try to take the key  2. while it is held, run the work beside the renewals  3. resign when it stops.
    """

    def __init__(self, scheduling: Scheduling, holder: str, ttl_s: float, log: Logger) -> None:
        self._scheduling = scheduling
        self._holder = holder
        self._ttl_s = ttl_s
        self._log = log
        self.epoch: int | None = None
        self.mono_heard = time.monotonic()
        """When Redis last said who leads."""

    async def run(self, work: Work, stop: asyncio.Event) -> None:
        """Lead whenever nobody else does, until `stop` is set."""
        while not stop.is_set():
            self.epoch = await self._take(work)
            if self.epoch is None:
                await pause(stop, min(STANDBY_S, self._ttl_s / STANDBY_TRIES))
                continue
            self._log.info(Event.LEADER_TAKEN, epoch=self.epoch, holder=self._holder)
            try:
                await self._lead(work, self.epoch, stop)
            finally:
                epoch, self.epoch = self.epoch, None
                with contextlib.suppress(StoreUnavailable):
                    await self._scheduling.resign(self._holder, epoch)

    async def _take(self, work: Work) -> int | None:
        try:
            epoch = await self._scheduling.lead(self._holder, self._ttl_s)
        except StoreUnavailable as error:
            self._log.warning(Event.STORE_UNAVAILABLE, reason=error.message)
            work.on_store_lost()
            return None
        self.mono_heard = time.monotonic()
        return epoch

    async def _lead(self, work: Work, epoch: int, stop: asyncio.Event) -> None:
        """Work until asked to stop or no longer leading; an unforeseen error of the work is raised."""
        working = asyncio.create_task(work.run(epoch), name="decide")
        keeping = asyncio.create_task(self._keep(work, epoch), name="renew")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        tasks = (working, keeping, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in (working, keeping):
            error = None if task.cancelled() else task.exception()
            if isinstance(error, LeadershipLost):
                self._log.warning(Event.LEADER_LOST, epoch=epoch, reason=error.message)
            elif error is not None:
                raise error

    async def _keep(self, work: Work, epoch: int) -> None:
        """Renew until that fails; raises LeadershipLost."""
        mono_until = time.monotonic() + self._ttl_s
        while True:
            await asyncio.sleep(self._ttl_s / RENEWALS)
            if work.deaf_s() > DEAF_S:
                raise LeadershipLost(f"nothing was read from Redis for {work.deaf_s():.0f} s")
            asked = time.monotonic()
            try:
                async with asyncio.timeout(max(0.05, mono_until - asked)):
                    held = await self._scheduling.lead(self._holder, self._ttl_s, epoch)
            except (StoreUnavailable, TimeoutError):
                work.on_store_lost()
                if time.monotonic() >= mono_until:
                    raise LeadershipLost(f"Redis did not answer for {self._ttl_s:g} s") from None
                continue
            if held is None:
                raise LeadershipLost("another scheduler leads")
            if held != epoch:
                self.epoch = held  # the one to resign: its key would keep everybody out, us too
                raise LeadershipLost(f"the lead ran out before it was renewed; that took it anew, as {held}")
            mono_until = asked + self._ttl_s
            self.mono_heard = time.monotonic()


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not longer than until `stop`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
