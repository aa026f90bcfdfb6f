"""Webhooks on their way: takes deliveries whose turn it is, calls their receivers, and notes what came of it.

Not RQ jobs: a job occupies a worker for as long as a receiver is silent, and here many wait beside each other. RQ has
the job before that, which puts an ending into the lane of its receiver (`stoker_jobs.tasks.deliver_webhook`).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

import httpx
import msgspec

from stoker.core.addresses import AllowList
from stoker.core.errors import NotFound, StokerError, StoreUnavailable
from stoker.core.events import Event
from stoker.core.states import DeliveryState
from stoker.core.webhooks import (
    DELIVERY,
    EVENT,
    Next,
    Outcome,
    Try,
    decide_next,
    shown_receiver,
)
from stoker.log import Logger
from stoker.outbound import checked_client
from stoker.protocol import Store
from stoker.protocol.deliveries import Claim, DeliveryView
from stoker.pulse import Pulse
from stoker.settings import JobsSettings
from stoker.vault import Vault
from stoker_jobs.hook_body import event_of
from stoker_jobs.hook_call import EXCERPT_S, HookCaller
from stoker_jobs.signing import signed_headers
from stoker_jobs.waiting import RETRY_DELAY_S, await_store

WEBHOOKS: Final = "webhooks"
"""The loop that reads, by the name that people see."""
IDLE_S: Final = 0.5
"""Between two looks for what is due: one small script each."""
LEASE_SPARE_S: Final = 30.0
"""What a lease is longer than a call may take: for Redis to come back, so that its end is noted and not repeated."""
NOTE_TRIES: Final = 6
STOP_S: Final = 4.0
"""What calls have to end when the process is stopped; those that do not are repeated by the next one."""


async def deliver_loop(settings: JobsSettings, stop: asyncio.Event, log: Logger, pulse: Pulse) -> None:
    """Deliver until `stop` is set. Redis being away is waited out."""
    async with checked_client(httpx.Timeout(settings.webhook_timeout_s)) as client:
        store = await await_store(settings, stop, log)
        if store is not None:
            try:
                await Deliverer(store, settings, client, log).run(stop, pulse)
            finally:
                await store.close()


class Deliverer:
    """Delivers what is due in one pool.

    1. take what is due, of each lane one  2. call its receiver  3. note what came of it, which frees the lane
    """

    def __init__(
        self,
        store: Store,
        settings: JobsSettings,
        client: httpx.AsyncClient,
        log: Logger,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._settings = settings
        self._log = log
        self._chance = chance
        self._caller = HookCaller(client, AllowList.parse(settings.webhook_allow), settings.webhook_timeout_s)
        self._vault = Vault(settings.secrets_key.get_secret_value(), settings.secrets_key_path)
        self._lease_ms = round((settings.webhook_timeout_s + EXCERPT_S + LEASE_SPARE_S) * 1000)
        self._running: set[asyncio.Task[None]] = set()
        self._nudge = asyncio.Event()

    async def run(self, stop: asyncio.Event, pulse: Pulse) -> None:
        """Deliver until `stop` is set; then calls have `STOP_S` to end."""
        stopping = asyncio.create_task(self._stopped(stop))
        try:
            while not stop.is_set():
                self._nudge.clear()
                try:
                    await self.take()
                    pulse.beat(WEBHOOKS)
                except StoreUnavailable as error:
                    self._log.warning(Event.JOBS_DELAYED, reason=error.message)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._nudge.wait(), IDLE_S)
        finally:
            stopping.cancel()
            await self._finish()

    async def take(self) -> int:
        """Begin the tries that are due and that there is room for; how many.

        Raises:
            StoreUnavailable: no answer.
        """
        room = self._settings.webhook_concurrency - len(self._running)
        claims = await self._store.deliveries.claim(max(0, room), self._lease_ms)
        for claim in claims:
            task = asyncio.create_task(self._try(claim))
            self._running.add(task)
            task.add_done_callback(self._ended)
        return len(claims)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._nudge.set()  # its lane is free

    async def _stopped(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._nudge.set()

    async def _finish(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _try(self, claim: Claim) -> None:
        """One try, from its claim to its note. While Redis is away nothing is lost: it is repeated after the lease."""
        try:
            try:
                view = await self._store.deliveries.read(claim.delivery_id)
            except NotFound:
                await self._store.deliveries.drop(claim)
                return
            outcome = await self._outcome(view)
            await self._note(claim, view, outcome)
        except StoreUnavailable as error:
            self._log.warning(Event.JOBS_DELAYED, reason=error.message)

    async def _outcome(self, view: DeliveryView) -> Outcome:
        """Call the receiver. What goes wrong on our side is a failed try as well: it has an end, and is seen.

        Raises:
            StoreUnavailable: no answer of Redis, and no call was made.
        """
        began_ms = round(time.time() * 1000)
        try:
            event = await event_of(self._store, view)
            body = msgspec.json.encode(event)
            headers = {DELIVERY: view.about.id, EVENT: str(event["event"])}
            headers |= await signed_headers(self._store, self._vault, view.about.owner_id, body)
            return await self._caller.call(view.about.url, headers, body)
        except StoreUnavailable:
            raise
        except StokerError as error:
            return Outcome(done=Try(at_ms=began_ms, error=error.message))
        except Exception:  # noqa: BLE001 - the edge of a delivery; it is logged, counted, and tried again
            self._log.exception(Event.WEBHOOK_FAILED, delivery=view.about.id, task_id=view.about.task_id)
            return Outcome(
                done=Try(at_ms=began_ms, error="an error of Stoker itself; the jobs' log has more")
            )

    async def _note(self, claim: Claim, view: DeliveryView, outcome: Outcome) -> None:
        settings, about, tries = self._settings, view.about, view.tries + 1
        policy = settings.webhook_policy
        if about.tries:
            policy = msgspec.structs.replace(policy, tries=about.tries)
        age_s = max(0.0, time.time() - view.round_ms / 1000)
        then = decide_next(outcome, tries, age_s, policy, self._chance())
        for left in range(NOTE_TRIES - 1, -1, -1):
            try:
                replayed = await self._store.deliveries.end_try(
                    claim, about, view.round_ms, outcome.done, then, settings.webhook_retention_s
                )
                break
            except StoreUnavailable:
                if not left:
                    raise
                await asyncio.sleep(RETRY_DELAY_S)
        if replayed:
            then = Next(DeliveryState.PENDING)
        facts: dict[str, object] = {
            "delivery": about.id,
            "task_id": about.task_id,
            "receiver": shown_receiver(about.url),
            "status": outcome.done.status,
            "tries": tries,
        }
        if then.state is DeliveryState.DELIVERED:
            self._log.info(Event.WEBHOOK_DELIVERED, **facts)
        elif then.state is DeliveryState.DEAD:
            self._log.warning(Event.WEBHOOK_DEAD, **facts, reason=outcome.done.error)
        else:
            self._log.info(
                Event.WEBHOOK_DELAYED, **facts, reason=outcome.done.error, pause_s=round(then.pause_s, 3)
            )
