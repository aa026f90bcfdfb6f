"""Where the chunks of logs lie in the file store, and how they are removed with their task."""

from collections.abc import AsyncIterator
from typing import Final

from stoker.core.messages import TaskId
from stoker.files.store import FileStore
from stoker.protocol.task_logs import TaskLogs

LOG_PREFIX: Final = "logs/"


def log_key(task_id: TaskId, attempt: int, first: int) -> str:
    """The place of a chunk: by task, attempt and the number of its first line."""
    return f"{LOG_PREFIX}{task_id[-2:]}/{task_id}/{attempt}-{first}.gz"


async def one(data: bytes) -> AsyncIterator[bytes]:
    """Bytes as the stream that a store takes."""
    yield data


async def remove_logs(files: FileStore, logs: TaskLogs, task_id: TaskId) -> int:
    """Remove the chunks of a task that is gone, then what Redis knows of them; how many there were.

    Raises:
        FilesUnavailable, StoreUnavailable: some are left; safe to repeat.
    """
    chunks = await logs.chunks(task_id)
    for attempt, first in chunks:
        await files.delete(log_key(task_id, attempt, first))
    await logs.forget(task_id)
    return len(chunks)
