"""The list of a user's tasks: pages in both directions, filters, search."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from stoker.core.messages import TaskView
from stoker.protocol.pages import Place
from stoker_gateway.door import Caller
from stoker_gateway.dto import task_dto
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, chooser, read_page, term_of
from stoker_gateway.services import Services, page

FIELDS: Final = (
    "id",
    "status",
    "status_text",
    "app_id",
    "app_ref",
    "app_version_id",
    "function",
    "infra",
    "engine_id",
    "worker_id",
    "session_id",
    "flow_run_id",
    "chat_id",
    "error",
    "error_code",
    "created_at",
    "updated_at",
)
"""Of a task as clients read it, what a filter may name."""
SEARCHED: Final = ("id", "app_ref", "function", "error")
_Entry = tuple[Place, TaskView | None]


async def task_page(services: Services, caller: Caller, query: ListQuery) -> dict[str, Any]:
    """One page of the caller's tasks, newest first.

    Raises:
        InvalidRequest: the cursor is none of this list, or a filter names what it cannot.
    """
    tasks, user_id = services.store.tasks, caller.owner.user_id
    query = replace(query, limit=query.limit or LIST_LIMIT)
    is_chosen = chooser(query, FIELDS, SEARCHED)
    chooses = bool(query.filters or term_of(query))

    def shown(view: TaskView) -> dict[str, Any]:
        return task_dto(view, caller.dialect, user_id)

    async def beyond(place: Place | None, limit: int, newer: bool) -> tuple[Sequence[_Entry], bool]:
        found, more = await tasks.after(user_id, place, limit, newer=newer)
        views = await tasks.read_many([task_id for _, task_id in found], with_logs=False)
        return list(zip(found, views, strict=True)), more

    async def wanted(entries: Sequence[_Entry]) -> Sequence[_Entry]:
        there = [(place, view) for place, view in entries if view is not None]  # others have expired
        return [(place, view) for place, view in there if is_chosen(shown(view))] if chooses else there

    # A task may be large: no more of them than are asked for are read, where none is left out.
    batch = MAX_LIMIT if chooses else min(query.limit or LIST_LIMIT, MAX_LIMIT) + 1
    found = await read_page(query, beyond, lambda entry: entry[0], wanted, batch=max(2, batch))
    items = [shown(view) for _, view in found.items if view is not None]
    total = len(items) if chooses else await tasks.count(user_id)
    return page(items, found.next_cursor, found.limit, total, found.prev_cursor)
