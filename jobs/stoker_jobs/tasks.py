"""What the background worker runs. Each function is a job: a plain function of plain values.

A job may run twice (a worker died after its effect and before its acknowledgement), so each is idempotent.
"""

import asyncio
import time

from stoker.core.errors import NotFound
from stoker.core.events import Event
from stoker.core.messages import TaskId
from stoker.core.webhooks import Delivery
from stoker.files import open_files
from stoker.files.logs import remove_logs
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.protocol.owners import SWEPT_KINDS
from stoker.settings import JobsSettings, load
from stoker_jobs.desk import at_desk


def sweep_tasks() -> int:
    """Take expired tasks out of every owner's index, and remove their logs and long expired keys; the tasks taken.

    The tasks themselves expire in Redis (`retention_s` after their end); the index is a sorted set, whose
    members cannot.
    """
    settings = load(JobsSettings)
    return asyncio.run(_sweep(settings))


def deliver_webhook(url: str, task_id: str, delivery: str) -> bool:
    """Have the caller's address told that its task ended (`stoker_jobs.webhooks` tells it); whether that is new.

    Args:
        url: what the request named as `webhook`.
        task_id: the task.
        delivery: stable over repeats, so that a receiver can tell one.

    Raises:
        StoreUnavailable: RQ tries again later.
    """
    return at_desk(lambda desk: _open(desk.store, url, TaskId(task_id), delivery))


async def _open(store: Store, url: str, task_id: TaskId, delivery_id: str) -> bool:
    try:
        owner, view = await asyncio.gather(
            store.tasks.owner(task_id), store.tasks.read(task_id, with_logs=False)
        )
        event = f"task.{view.state.wire_name}"
        return await store.deliveries.open(
            Delivery(id=delivery_id, owner_id=owner.user_id, url=url, event=event, task_id=task_id)
        )
    except (
        NotFound
    ):  # its owner deleted it meanwhile: there is nothing left to tell, and nobody who could ask
        get_logger("jobs").info(Event.WEBHOOK_FAILED, task_id=task_id, reason="the task is deleted")
        return False


async def _sweep(settings: JobsSettings) -> int:
    store = await Store.open(settings.store_url, settings.pool)
    log = get_logger("jobs")
    try:
        taken = 0
        with_keys = {key.user_id for key in await store.keys.list()}
        for owner_id in sorted(with_keys | await store.owners.list()):
            taken += await store.tasks.sweep(owner_id)
            for kind in SWEPT_KINDS:
                await store.documents.sweep(kind, owner_id)
            await store.owners.note(owner_id)
        files = open_files(settings)
        chunks = 0
        async for task_id in store.logs.orphans():
            chunks += await remove_logs(files, store.logs, task_id)
        gone = await store.keys.sweep(int((time.time() - settings.key_retention_s) * 1000))
    finally:
        await store.close()
    log.info(Event.RETENTION_SWEPT, tasks=taken, log_chunks=chunks, keys=len(gone))
    return taken
