"""From an ending to RQ: read the outbox, enqueue under an id that repeats share, then acknowledge."""

import asyncio
import contextlib
import os
import socket
from typing import Final

from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.job import Job

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.log import Logger
from stoker.protocol import Store
from stoker.protocol.outbox import Ending
from stoker.pulse import Pulse
from stoker.settings import JobsSettings
from stoker_jobs.queue import job_id, open_queue
from stoker_jobs.tasks import deliver_webhook

OUTBOX: Final = "outbox"
BLOCK_MS: Final = 1000
RETRY_DELAY_S: Final = 0.5
WEBHOOK_PAUSES_S: Final = (1, 5, 30, 120, 600, 3600, 3600 * 6)
"""Between the tries of a webhook; the last one is 7 hours after the ending."""
KEEP_S: Final = 86_400
"""How long RQ remembers a job: a repeat within it does nothing."""


async def relay_loop(settings: JobsSettings, stop: asyncio.Event, log: Logger, pulse: Pulse) -> None:
    """Hand endings on until `stop` is set. Redis being away is waited out."""
    queue = open_queue(settings.jobs_url)
    consumer = f"{socket.gethostname()}-{os.getpid()}"
    while not stop.is_set():
        try:
            store = await Store.open(settings.store_url, settings.pool)
        except StoreUnavailable as error:
            log.warning(Event.JOBS_DELAYED, reason=error.message)
            await pause(stop, RETRY_DELAY_S)
            continue
        try:
            await store.outbox.open()
            while not stop.is_set():
                endings = await store.outbox.read(consumer, BLOCK_MS)
                pulse.beat(OUTBOX)
                for ending in endings:
                    await asyncio.to_thread(hand_on, queue, ending)
                    await store.outbox.done(ending)
        except (StoreUnavailable, RedisError, OSError) as error:
            log.warning(Event.JOBS_DELAYED, reason=str(error))
            await pause(stop, RETRY_DELAY_S)
        finally:
            await store.close()


def hand_on(queue: Queue, ending: Ending) -> str:
    """Enqueue the job of one ending; a repeat finds the first one's and does nothing. The job's id."""
    identity = job_id(ending.task_id, ending.attempt, "webhook")
    if not Job.exists(identity, connection=queue.connection):
        queue.enqueue(
            deliver_webhook,
            ending.notify,
            ending.task_id,
            identity,
            job_id=identity,
            retry=Retry(max=len(WEBHOOK_PAUSES_S), interval=list(WEBHOOK_PAUSES_S)),
            result_ttl=KEEP_S,
            failure_ttl=KEEP_S,
        )
    return identity


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not beyond `stop`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
