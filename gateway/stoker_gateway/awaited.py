"""Whether a chat or a flow run still waits for a task. Whoever waits and does not find it would have it run once more."""

from stoker.agents.chat import KIND as CHAT
from stoker.agents.chats import load_chat
from stoker.agents.orders import awaited
from stoker.core.errors import Conflict, NotFound
from stoker.core.messages import TaskView
from stoker.flows import records
from stoker.flows.records import RUN
from stoker.flows.run import running
from stoker.protocol import Store


async def check_not_awaited(store: Store, view: TaskView) -> None:
    """Refuse what would take a task from those who wait for it.

    Raises:
        Conflict: somebody waits for it.
    """
    waiter = view.request.waiter
    if waiter is None:
        return
    try:
        if waiter.kind == CHAT:
            name, ids = "chat", awaited((await load_chat(store, waiter.id)).chat)
        else:
            name, ids = "flow run", await _of_run(store, waiter.id)
    except NotFound:
        return
    if view.request.id in ids:
        raise Conflict(
            f"The {name} {waiter.id} waits for this task, or has not taken over what it gave. "
            f"Delete it when the {name} has gone on, or stop that first."
        )


async def _of_run(store: Store, run_id: str) -> frozenset[str]:
    return frozenset(running(records.run_of((await store.documents.get(RUN, run_id)).body)).values())
