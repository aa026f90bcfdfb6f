"""What the background worker runs. Each function is a job: a plain function of plain values.

A job may run twice (a worker died after its effect and before its acknowledgement), so each is idempotent.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import msgspec

from stoker import __version__
from stoker.core.addresses import AllowList
from stoker.core.errors import NotFound
from stoker.core.events import Event
from stoker.core.messages import TaskId, TaskView
from stoker.files import open_files
from stoker.files.logs import remove_logs
from stoker.log import get_logger
from stoker.outbound import PERMITS, checked_client, may_reach
from stoker.protocol import Store
from stoker.settings import JobsSettings, load

SWEEP_BATCH: Final = 1000
SWEPT_KINDS: Final = ("flowrun", "chat")
"""Documents that expire."""
WEBHOOK_TIMEOUT_S: Final = 15.0
PLATFORM_NUMBERS: Final = {"completed": 10, "failed": 11, "cancelled": 12}
"""Status numbers of ended tasks as the platform's present clients count them."""


def sweep_tasks() -> int:
    """Take expired tasks out of every owner's index, and remove their logs and long expired keys; the tasks taken.

    The tasks themselves expire in Redis (`retention_s` after their end); the index is a sorted set, whose
    members cannot.
    """
    settings = load(JobsSettings)
    return asyncio.run(_sweep(settings))


def deliver_webhook(url: str, task_id: str, delivery: str) -> int:
    """Tell the caller's address that its task ended; the HTTP status of the answer.

    Args:
        url: what the request named as `webhook`.
        task_id: the task.
        delivery: stable over repeats, so that a receiver can tell one.

    Raises:
        httpx.HTTPError, TimeoutError, AddressRefused: no 2xx answer, or an address that is not public and not in
            `webhook_allow`; RQ tries again later, with growing pauses.
    """
    return asyncio.run(_deliver(load(JobsSettings), url, TaskId(task_id), delivery))


async def _deliver(settings: JobsSettings, url: str, task_id: TaskId, delivery: str) -> int:
    """Who answers is a stranger: one time limit for all of it, and nothing of the body is read."""
    body = await _webhook_body(settings, task_id)
    headers = {"User-Agent": f"stoker/{__version__}", "X-Delivery-Id": delivery}
    permits = may_reach(AllowList.parse(settings.webhook_allow), httpx.URL(url))
    async with asyncio.timeout(WEBHOOK_TIMEOUT_S), checked_client(httpx.Timeout(WEBHOOK_TIMEOUT_S)) as client:
        request = client.build_request("POST", url, json=body, headers=headers, extensions={PERMITS: permits})
        answer = await client.send(request, stream=True)
        await answer.aclose()
    if not answer.is_success:  # httpx's own error has the whole address, and receivers put a secret into it
        text = f"{request.url.host} answered the webhook of task {task_id} with {answer.status_code}"
        raise httpx.HTTPStatusError(text, request=request, response=answer)
    get_logger("jobs").info(Event.WEBHOOK_DELIVERED, task_id=task_id, status=answer.status_code)
    return answer.status_code


async def _webhook_body(settings: JobsSettings, task_id: TaskId) -> dict[str, Any]:
    """The event; a task that is forgotten already is told by its id alone."""
    store = await Store.open(settings.store_url, settings.pool)
    try:
        view = await store.tasks.read(task_id, with_logs=False)
    except NotFound:
        return {"event": "task.gone", "task": {"id": task_id}}
    finally:
        await store.close()
    return webhook_event(view)


def webhook_event(view: TaskView) -> dict[str, Any]:
    """What a webhook carries: the task's ending, in the platform's names and numbers."""
    name = view.state.wire_name
    task = {
        "id": view.request.id,
        "app": view.request.app,
        "function": view.request.function,
        "status": PLATFORM_NUMBERS.get(name, int(view.state)),
        "status_text": name,
        "output": msgspec.json.decode(view.output),
        "error": view.error,
        "created_at": _time(view.created_ms),
        "updated_at": _time(view.updated_ms),
    }
    return {"event": f"task.{name}", "task": task}


def _time(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds")


async def _sweep(settings: JobsSettings) -> int:
    store = await Store.open(settings.store_url, settings.pool)
    log = get_logger("jobs")
    try:
        taken = 0
        for owner_id in sorted({key.user_id for key in await store.keys.list()}):
            while batch := await store.tasks.sweep(owner_id, SWEEP_BATCH):
                taken += batch
            for kind in SWEPT_KINDS:
                while await store.documents.sweep(kind, owner_id, SWEEP_BATCH):
                    pass
        files = open_files(settings)
        chunks = 0
        async for task_id in store.logs.orphans():
            chunks += await remove_logs(files, store.logs, task_id)
        gone = await store.keys.sweep(int((time.time() - settings.key_retention_s) * 1000))
    finally:
        await store.close()
    log.info(Event.RETENTION_SWEPT, tasks=taken, log_chunks=chunks, keys=len(gone))
    return taken
