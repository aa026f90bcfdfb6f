"""What a webhook carries: the ending of a task, in the platform's names and numbers; or what a chat's hook is told."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stoker.agents.chats import load_chat
from stoker.agents.telling import hook_event
from stoker.core.errors import NotFound
from stoker.core.messages import TaskId, TaskView
from stoker.protocol import Store
from stoker.protocol.deliveries import DeliveryView

PLATFORM_NUMBERS: Final = {"completed": 10, "failed": 11, "cancelled": 12}
"""Status numbers of ended tasks as the platform's present clients count them."""
GONE_EVENT: Final = "task.gone"
CHAT_GONE_EVENT: Final = "chat.gone"


async def event_of(store: Store, delivery: DeliveryView) -> dict[str, Any]:
    """The event of a delivery, the same at every try. What is not kept any more is told by its id alone."""
    about = delivery.about
    if about.chat_id:
        try:
            chat = (await load_chat(store, about.chat_id)).chat
        except NotFound:
            return {"event": CHAT_GONE_EVENT, "chat_id": about.chat_id}
        return hook_event(chat, about.event, about.part, delivery.created_ms, about.detail)
    if not about.task_id:
        return {"event": about.event, "created_at": _time(delivery.created_ms)}
    try:
        view = await store.tasks.read(TaskId(about.task_id), with_logs=False)
    except NotFound:
        return {"event": GONE_EVENT, "task": {"id": about.task_id}}
    return webhook_event(view)


def webhook_event(view: TaskView) -> dict[str, Any]:
    """An ended task."""
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
