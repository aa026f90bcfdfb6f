"""What the routes work with, and how they answer."""

import asyncio
from typing import Any

import msgspec
from litestar import Request, Response
from msgspec import Struct

from stoker.core.errors import NotFound
from stoker.core.messages import TaskId, TaskView
from stoker.files import FileStore
from stoker.protocol import Store
from stoker.runs.registry import Registry
from stoker.runs.submit import Submitter
from stoker.settings import GatewaySettings
from stoker_gateway.attempts import Attempts
from stoker_gateway.door import caller_of
from stoker_gateway.enrolment import Enroller
from stoker_gateway.flows import Flows
from stoker_gateway.pinning import Pinner
from stoker_gateway.registration import Registrar
from stoker_gateway.secret_store import SecretStore
from stoker_gateway.signing import Signing
from stoker_gateway.streams import Hub
from stoker_gateway.uploads import Uploads

AnyRequest = Request[Any, Any, Any]
Answer = Response[bytes]
JSON = "application/json"

_encode = msgspec.json.Encoder().encode


class Services(Struct, frozen=True, kw_only=True):
    """The parts of one gateway process."""

    store: Store
    settings: GatewaySettings
    registry: Registry
    submitter: Submitter
    flows: Flows
    registrar: Registrar
    hub: Hub
    uploads: Uploads
    blobs: FileStore
    secrets: SecretStore
    signing: Signing
    attempts: Attempts
    enroller: Enroller
    pinner: Pinner
    base_url: str


def services_of(request: AnyRequest) -> Services:
    """The services that the application was made with."""
    services: Services = request.app.state.services
    return services


def answer(request: AnyRequest, data: object, messages: tuple[object, ...] | list[Any] = ()) -> Answer:
    """A success in the caller's envelope."""
    body = data if caller_of(request).dialect.bare else envelope(data, messages)
    return Response(content=bytes(_encode(body)), media_type=JSON, status_code=200)


def envelope(data: object, messages: tuple[object, ...] | list[Any] = ()) -> dict[str, object]:
    """One body that every generation of clients can read but those that ask for a bare one."""
    return {"success": True, "status": 200, "data": data, "messages": messages}


def page(
    items: list[Any], next_cursor: str = "", limit: int = 0, total: int | None = None, prev_cursor: str = ""
) -> dict[str, Any]:
    """A list answer in the platform's form."""
    return {
        "items": items,
        "next_cursor": next_cursor or None,
        "prev_cursor": prev_cursor or None,
        "has_next": bool(next_cursor),
        "has_previous": bool(prev_cursor),
        "items_per_page": limit or len(items),
        "total_items": len(items) if total is None else total,
    }


async def own_task(request: AnyRequest, task_id: str, *, with_logs: bool = True) -> TaskView:
    """A task of the caller.

    Raises:
        NotFound: no such task, or somebody else's.
    """
    tasks, user_id = services_of(request).store.tasks, caller_of(request).owner.user_id
    owner, view = await asyncio.gather(  # both leave in one batch
        tasks.owner(TaskId(task_id)), tasks.read(TaskId(task_id), with_logs=with_logs)
    )
    if owner.user_id != user_id:
        raise NotFound("Task not found")
    return view
