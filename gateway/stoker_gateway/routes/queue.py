"""What runs and what waits, of everybody: for those who look after the machines."""

import asyncio
from typing import Any

from litestar import get

from stoker.core.messages import TaskId
from stoker.core.scopes import Scope
from stoker.protocol.work import WorkItem
from stoker_gateway.access import needs
from stoker_gateway.dto import iso
from stoker_gateway.services import Answer, AnyRequest, answer, services_of

MOST = 200


@get("/queue", tags=["engines"], summary="See what runs and what waits")
async def get_queue(request: AnyRequest, limit: int = 50) -> Answer:
    """The tasks of all users that workers hold, and the first that wait, with the reason; no inputs and outputs.

    `limit` holds for each of the two (200 at most). `pending` and `delayed` count all that wait for a worker, and for a
    time. `now` is the clock that all times are of.
    """
    store = services_of(request).store
    most = max(1, min(limit, MOST))
    engines, waiting, now_ms = await asyncio.gather(
        store.engines.list(), store.work.waiting(most), store.now_ms()
    )
    held = [TaskId(task_id) for engine in engines for task_id in engine.tasks][:most]
    running = await store.work.read(held)
    body = {
        "now": iso(now_ms),
        "running": [item_dto(item) for item in sorted(running, key=lambda item: item.since_ms)],
        "waiting": [item_dto(item) for item in waiting.items],
        "pending": waiting.pending,
        "delayed": waiting.delayed,
    }
    return answer(request, body)


def item_dto(item: WorkItem) -> dict[str, Any]:
    """A task that has not ended, in short."""
    return {
        "task_id": item.task_id,
        "app": item.app,
        "state": item.state.wire_name,
        "since": iso(item.since_ms),
        "created_at": iso(item.created_ms),
        "attempt": item.attempt,
        "worker_id": item.worker_id or None,
        "queue_reason": item.reason or None,
        "due": iso(item.due_ms) if item.due_ms else None,
    }


ROUTES = needs(Scope.ENGINES_READ, get_queue)
