"""What the background worker runs. Each function is a job: a plain function of plain values.

A job may run twice (a worker died after its effect and before its acknowledgement), so each is idempotent.
"""

import asyncio
from typing import Final

from stoker.core.events import Event
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.settings import JobsSettings, load

SWEEP_BATCH: Final = 1000


def sweep_tasks() -> int:
    """Take expired tasks out of every owner's index; the number taken.

    The tasks themselves expire in Redis (`retention_s` after their end); the index is a sorted set, whose
    members cannot.
    """
    settings = load(JobsSettings)
    return asyncio.run(_sweep(settings))


async def _sweep(settings: JobsSettings) -> int:
    store = await Store.open(settings.store_url, settings.pool)
    log = get_logger("jobs")
    try:
        taken = 0
        for owner_id in sorted({key.user_id for key in await store.keys.list()}):
            while batch := await store.tasks.sweep(owner_id, SWEEP_BATCH):
                taken += batch
    finally:
        await store.close()
    log.info(Event.RETENTION_SWEPT, tasks=taken)
    return taken
