"""From the outbox to RQ: read, enqueue under ids that repeats share, then acknowledge. And what is due.

What RQ does around a job costs more than a step, so the steps of one look share jobs (`_steps`).

A document that is under way is looked at when its time comes, and once when this process or its worker of steps
starts: what a process that died had taken is then made up for at once.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from math import ceil
from typing import Any, Final, assert_never

from msgspec import Struct
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.job import Job

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.log import Logger
from stoker.protocol import Store
from stoker.protocol.documents import Due
from stoker.protocol.outbox import BATCH, Ending, Notice, Nudge
from stoker.pulse import Pulse
from stoker.settings import JobsSettings
from stoker_jobs.queue import Names, document_job_id, open_queue
from stoker_jobs.steps import Document, advance
from stoker_jobs.tasks import deliver_webhook
from stoker_jobs.waiting import RETRY_DELAY_S, await_store, pause

OUTBOX: Final = "outbox"
BLOCK_MS: Final = 1000
GATHER_S: Final = 0.02
"""Between two batches that are not full: a first notice is handed on at once, and those that follow closely go together."""
DUE_S: Final = 1.0
"""Between two looks at what is due."""
WEBHOOK_PAUSES_S: Final = (1, 5, 30, 120, 600, 3600, 3600 * 6)
"""Between the tries of the job that puts a webhook into its lane: Redis was away. Its own tries come later."""
STEP_PAUSES_S: Final = (1, 2, 5, 15)
"""Between the tries of a step; after the last one the document's own time brings the next."""
KEEP_S: Final = 86_400
"""How long RQ remembers a webhook's job: a repeat within it does nothing."""
STEP_KEEP_S: Final = 300
"""And steps', of which there may be hundreds a second: a repeat after it finds nothing to do."""
TOGETHER: Final = 8
"""Steps of one job, at most: when one fails all are tried again, and a process has so many documents in its memory."""


class Planned(Struct, frozen=True, kw_only=True):
    """A job as it is to be enqueued."""

    id: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    pauses_s: tuple[int, ...]
    keep_s: int


class Relay:
    """Hands on what the outbox and the clock say. `look_at_all`: every document that is under way, once."""

    def __init__(self, settings: JobsSettings, log: Logger, pulse: Pulse) -> None:
        self._settings = settings
        self._log = log
        self._pulse = pulse
        self._names = Names(settings.pool)
        self._queue = open_queue(settings.jobs_url, self._names.steps)
        self._next_due = 0.0
        self.look_at_all = True

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Redis being away is waited out."""
        consumer = f"{socket.gethostname()}-{os.getpid()}"
        while store := await await_store(self._settings, stop, self._log):
            try:
                await store.outbox.open()
                while left := await store.outbox.left(consumer):
                    await self._hand_on(store, left)
                while not stop.is_set():
                    await self._hand_on(store, await store.outbox.read(consumer, BLOCK_MS))
                    await self._hand_on_due(store)
            except (StoreUnavailable, RedisError, OSError) as error:
                self.look_at_all = True  # what was found due and not handed on is else due a minute later
                self._log.warning(Event.JOBS_DELAYED, reason=str(error))
                await pause(stop, RETRY_DELAY_S)
            finally:
                await store.close()

    async def _hand_on(self, store: Store, notices: list[Notice]) -> None:
        self._pulse.beat(OUTBOX)
        if notices:
            planned = plan(notices, self._names, self._settings.step_workers)
            await asyncio.to_thread(hand_on, self._queue, planned)
            await store.outbox.done(notices)
            if len(notices) < BATCH:
                await asyncio.sleep(GATHER_S)

    async def _hand_on_due(self, store: Store) -> None:
        if not self.look_at_all and time.monotonic() < self._next_due:
            return
        everything, self.look_at_all = self.look_at_all, False
        due = await store.documents.take_due(everything=everything)
        if planned := plan_due(due, self._names, self._settings.step_workers):
            await asyncio.to_thread(hand_on, self._queue, planned)
        self._next_due = time.monotonic() + DUE_S


def plan(notices: Iterable[Notice], names: Names, workers: int) -> list[Planned]:
    """The jobs of entries of the outbox: one a webhook, and those of steps. Pure.

    Args:
        names: of the pool whose outbox it is.
        workers: processes that take steps.
    """
    webhooks: list[Planned] = []
    causes: dict[Document, str] = {}
    for notice in notices:
        match notice:
            case Nudge():
                # Not its revision: one deleted and made anew begins with the same.
                identity = document_job_id(notice.kind, notice.id, notice.entry_id)
                causes.setdefault((notice.kind, notice.id), identity)
            case Ending():
                if notice.notify:
                    webhooks.append(_webhook(notice, names))
                if waiter := notice.waiter:
                    identity = names.ending_job(notice.task_id, notice.attempt, waiter.kind)
                    causes.setdefault((waiter.kind, waiter.id), identity)
            case _:
                assert_never(notice)
    return webhooks + _steps(causes, names, workers)


def plan_due(due: Iterable[Due], names: Names, workers: int) -> list[Planned]:
    """The jobs of documents that were found due. Pure."""
    causes = {(each.kind, each.id): document_job_id(each.kind, each.id, f"due-{each.at_ms}") for each in due}
    return _steps(causes, names, workers)


def _webhook(ending: Ending, names: Names) -> Planned:
    identity = names.ending_job(ending.task_id, ending.attempt, "webhook")
    return Planned(
        id=identity,
        function=deliver_webhook,
        arguments=(ending.notify, ending.task_id, identity),
        pauses_s=WEBHOOK_PAUSES_S,
        keep_s=KEEP_S,
    )


def _steps(causes: Mapping[Document, str], names: Names, workers: int) -> list[Planned]:
    """Jobs that take the steps of documents, each of which is there once: a share for each process, and no large one."""
    jobs = []
    share = min(TOGETHER, ceil(len(causes) / workers))
    left = iter(causes.items())
    while some := dict(islice(left, share)):
        jobs.append(
            Planned(
                id=names.steps_job(some.values()),
                function=advance,
                arguments=tuple(some),
                pauses_s=STEP_PAUSES_S,
                keep_s=STEP_KEEP_S,
            )
        )
    return jobs


def hand_on(queue: Queue, planned: Iterable[Planned]) -> None:
    """Enqueue jobs, all in two round trips; a repeat finds the first one's and does nothing."""
    jobs = {job.id: job for job in planned}
    if not jobs:
        return
    with queue.connection.pipeline(transaction=False) as look:
        for identity in jobs:
            look.exists(Job.key_for(identity))
        known = look.execute()
    queue.enqueue_many(
        Queue.prepare_data(
            job.function,
            job.arguments,
            job_id=job.id,
            retry=Retry(max=len(job.pauses_s), interval=list(job.pauses_s)),
            result_ttl=job.keep_s,
            failure_ttl=KEEP_S,  # for people, who look at what failed
        )
        for job, is_known in zip(jobs.values(), known, strict=True)
        if not is_known
    )
