"""Retention of files: bytes and records go together, and what lost its record goes a day later.

An uploaded file lives until somebody deletes it. An output lives as long as its task is kept, or a task, a flow
run or a chat that names it; the output of an attempt that did not end its task well is of no use to anybody.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from stoker.core.errors import FilesUnavailable
from stoker.core.events import Event
from stoker.core.messages import StoredFile, TaskId
from stoker.core.states import TERMINAL, TaskState
from stoker.files import FileStore, file_key, open_files
from stoker.files.store import DATA_PREFIX
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.protocol.files import Standing
from stoker.settings import DAY_S, JobsSettings, load

BATCH: Final = 500
REMOVED_AT_ONCE: Final = 5000
"""A sweep that has more to remove leaves the rest to the next one: a job has a time limit."""
ABANDONED_MS: Final = DAY_S * 1000
"""So long after its upload address expired a file whose bytes never came is forgotten: an upload that began before
may go on. Bytes without a record are removed from this age on.
"""
OUTPUT: Final = "output"

Sweep = Callable[[Store, FileStore, int], Awaitable[int]]


def sweep_files() -> int:
    """Remove files that nobody needs any more; how many."""
    return asyncio.run(_with_stores(remove_expired))


def sweep_orphans() -> int:
    """Remove bytes without a record; how many files. Lists the whole store."""
    return asyncio.run(_with_stores(remove_orphans))


def is_over(file: StoredFile, standing: Standing | None, now_ms: int) -> bool:
    """Whether a file has served its purpose. Pure; `standing` is that of its task, read after the record.

    The output of a task that is gone is over, unless another task uses it (`Files.is_used`).
    """
    if file.role != OUTPUT:
        good_until_ms = max(file.created_ms, file.upload_until_ms)
        return not file.uploaded and good_until_ms + ABANDONED_MS < now_ms
    if standing is None or standing.attempt != file.attempt:
        return True
    ended = standing.state in TERMINAL
    return ended and (standing.state is not TaskState.COMPLETED or not file.uploaded)


async def remove_expired(store: Store, files: FileStore, now_ms: int) -> int:
    """Go through all records once, oldest first; how many were removed."""
    removed = offset = 0
    while removed < REMOVED_AT_ONCE and (ids := await store.files.oldest(offset, BATCH)):
        gone = 0
        records = await store.files.get_many(ids)
        for file_id in (one for one, record in zip(ids, records, strict=True) if record is None):
            await store.files.unlist(file_id)
            gone += 1
        for file in await _over(store, [record for record in records if record is not None], now_ms):
            await files.delete(file_key(file.id))
            await store.files.delete(file)
            gone += 1
        removed += gone
        offset += len(ids) - gone
    return removed


async def _over(store: Store, files: list[StoredFile], now_ms: int) -> list[StoredFile]:
    outputs = [TaskId(file.task_id) for file in files if file.role == OUTPUT]
    standings = dict(zip(outputs, await store.files.standings(outputs), strict=True))
    over = []
    for file in files:
        standing = standings.get(TaskId(file.task_id))
        if is_over(file, standing, now_ms) and not (
            standing is None and file.role == OUTPUT and await store.files.is_used(file.id, now_ms)
        ):
            over.append(file)
    return over


async def remove_orphans(store: Store, files: FileStore, now_ms: int) -> int:
    """Remove what lies in the store for a day without a record: left by a process that died; how many."""
    removed = 0
    batch: list[str] = []
    async for held in files.list(DATA_PREFIX):
        if held.modified_s * 1000 + ABANDONED_MS < now_ms:
            batch.append(held.key)
        if len(batch) >= BATCH:
            removed += await _remove_unknown(store, files, batch)
            batch = []
        if removed >= REMOVED_AT_ONCE:
            return removed
    return removed + await _remove_unknown(store, files, batch)


async def _remove_unknown(store: Store, files: FileStore, keys: list[str]) -> int:
    known = await store.files.get_many([key.rsplit("/", 1)[-1] for key in keys])
    unknown = [key for key, record in zip(keys, known, strict=True) if record is None]
    for key in unknown:
        await files.delete(key)
    return len(unknown)


async def _with_stores(sweep: Sweep) -> int:
    settings = load(JobsSettings)
    store = await Store.open(settings.store_url, settings.pool)
    log = get_logger("jobs")
    try:
        removed = await sweep(store, open_files(settings), int(time.time() * 1000))
    except FilesUnavailable as error:
        log.warning(Event.JOBS_DELAYED, reason=error.message)
        return 0
    finally:
        await store.close()
    log.info(Event.RETENTION_SWEPT, files=removed)
    return removed
