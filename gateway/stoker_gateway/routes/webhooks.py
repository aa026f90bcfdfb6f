"""Webhooks of the user of the key: what was told to whom, once more, and the secret that signs it."""

import asyncio
from typing import Annotated, Any

from litestar import get, post
from litestar.params import QueryParameter
from msgspec import Meta, Struct

from stoker.core.errors import Conflict, InvalidRequest, NotFound
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.core.messages import TaskId
from stoker.core.scopes import Scope
from stoker.core.states import DeliveryState
from stoker.core.webhooks import TEST_EVENT, Delivery, SigningSecret, Try, shown_receiver
from stoker.log import get_logger
from stoker.protocol.deliveries import DeliveryView
from stoker.runs.submit import check_webhook
from stoker_gateway.access import needs
from stoker_gateway.clock import now_ms
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.listing import MAX_LIMIT
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of
from stoker_gateway.signing import OVERLAP_MAX_S, OVERLAP_S

StateName = Annotated[str, QueryParameter(name="state")]  # the framework has another `state`

log = get_logger("gateway")


class Target(Struct, kw_only=True):
    """An address to call once, as a webhook would."""

    url: str


class Renewal(Struct, kw_only=True):
    """How long the secret before signs as well, in seconds."""

    overlap_s: Annotated[float, Meta(ge=0, le=OVERLAP_MAX_S)] = OVERLAP_S


def delivery_dto(view: DeliveryView) -> dict[str, Any]:
    """A delivery as clients read it. `receiver` is no whole address: receivers put secrets into those."""
    about = view.about
    return {
        "id": about.id,
        "state": view.state,
        "event": about.event,
        "task_id": about.task_id or None,
        "chat_id": about.chat_id or None,
        "receiver": shown_receiver(about.url),
        "try_count": view.total,
        "next_try_at": iso(view.due_ms) if view.due_ms else None,
        "created_at": iso(view.created_ms),
        "updated_at": iso(view.changed_ms),
    }


def try_dto(each: Try) -> dict[str, Any]:
    """A try as clients read it."""
    return {
        "at": iso(each.at_ms),
        "duration_ms": each.took_ms,
        "status": each.status or None,
        "error": each.error or None,
        "excerpt": each.excerpt or None,
    }


def secret_dto(record: SigningSecret | None, now_ms: int) -> dict[str, Any]:
    """What may be known of a secret that signs: never the secret."""
    if record is None:
        return {"id": None, "signs": False, "created_at": None, "previous_id": None, "previous_until": None}
    previous = record.previous if len(record.good(now_ms)) > 1 else None
    return {
        "id": record.current.id,
        "signs": True,
        "created_at": iso(record.current.created_ms),
        "previous_id": previous.id if previous else None,
        "previous_until": iso(record.previous_until_ms) if previous else None,
    }


@get("/webhooks/deliveries", tags=["webhooks"], summary="List deliveries")
async def list_deliveries(
    request: AnyRequest, wanted: StateName = "", cursor: str = "", limit: int = 20
) -> Answer:
    """Of the caller's webhooks, those that changed their state last first; `state`: pending, delivered or dead."""
    states = (_state(wanted),) if wanted else tuple(DeliveryState)
    limit, owner_id = max(1, min(limit, MAX_LIMIT)), caller_of(request).owner.user_id
    deliveries = services_of(request).store.deliveries
    (found, following), total = await asyncio.gather(
        deliveries.page(owner_id, states, cursor, limit), deliveries.count(owner_id, states)
    )
    return answer(request, page([delivery_dto(view) for view in found], following, limit, total))


@get("/webhooks/deliveries/{delivery_id:str}", tags=["webhooks"], summary="Read a delivery")
async def read_delivery(request: AnyRequest, delivery_id: str) -> Answer:
    """One delivery with its latest tries, oldest first: when, how long, the status or why there was none."""
    return answer(request, await _whole(request, await _own(request, delivery_id)))


@post(
    "/webhooks/deliveries/{delivery_id:str}/replay",
    status_code=200,
    tags=["webhooks"],
    summary="Replay a delivery",
)
async def replay_delivery(request: AnyRequest, delivery_id: str) -> Answer:
    """Try it again now, and as often as a new one, under the same delivery id. Also one that was delivered."""
    store, view = services_of(request).store, await _own(request, delivery_id)
    if view.about.task_id:
        [known] = await store.files.standings([TaskId(view.about.task_id)])
        if known is None:
            raise Conflict(
                f"The task {view.about.task_id} is deleted or no longer kept: there is nothing left to tell."
            )
    await store.deliveries.replay(view.about)
    caller = caller_of(request)
    log.info(Event.WEBHOOK_REPLAYED, delivery=delivery_id, api_key_id=caller.actor.key_id)
    return answer(request, await _whole(request, await store.deliveries.read(delivery_id)))


@post("/webhooks/test", status_code=200, tags=["webhooks"], summary="Call an address for a test")
async def call_for_test(request: AnyRequest, data: Target) -> Answer:
    """Have one `webhook.test` event sent, signed as all others; read the delivery to see what came of it."""
    if not check_webhook(data.url):
        raise InvalidRequest("Input validation failed: url: give the address to call")
    made = Delivery(
        id=f"test-{new_id()}",
        owner_id=caller_of(request).owner.user_id,
        url=data.url,
        event=TEST_EVENT,
        tries=1,
    )
    deliveries = services_of(request).store.deliveries
    await deliveries.open(made)
    return answer(request, await _whole(request, await deliveries.read(made.id)))


@get("/webhooks/secret", tags=["webhooks"], summary="See what signs webhooks")
async def read_secret(request: AnyRequest) -> Answer:
    """Whether the caller's webhooks are signed, and since when. Never the secret itself."""
    record = await services_of(request).signing.read(caller_of(request).owner.user_id)
    return answer(request, secret_dto(record, now_ms()))


@post("/webhooks/secret", status_code=200, tags=["webhooks"], summary="Make the secret that signs webhooks")
async def renew_secret(request: AnyRequest, data: Renewal) -> Answer:
    """Make it, or replace it; the answer is the only one that has it. The one before signs too for `overlap_s`."""
    record, secret = await services_of(request).signing.renew(caller_of(request).actor, data.overlap_s)
    told = answer(request, secret_dto(record, now_ms()) | {"secret": secret})
    told.headers["cache-control"] = "no-store"
    return told


async def _own(request: AnyRequest, delivery_id: str) -> DeliveryView:
    """A delivery of the caller.

    Raises:
        NotFound: no such delivery, or somebody else's.
    """
    view = await services_of(request).store.deliveries.read(delivery_id)
    if view.about.owner_id != caller_of(request).owner.user_id:
        raise NotFound("Delivery not found")
    return view


async def _whole(request: AnyRequest, view: DeliveryView) -> dict[str, Any]:
    tries = await services_of(request).store.deliveries.tries(view.about.id)
    return delivery_dto(view) | {"tries": [try_dto(each) for each in tries]}


def _state(name: str) -> DeliveryState:
    try:
        return DeliveryState(name)
    except ValueError:
        raise InvalidRequest(
            f"Input validation failed: state: {name[:100]!r} is unknown; known: {', '.join(DeliveryState)}"
        ) from None


ROUTES = [
    *needs(Scope.WEBHOOKS_READ, list_deliveries, read_delivery, read_secret),
    *needs(Scope.WEBHOOKS_WRITE, replay_delivery, call_for_test, renew_secret),
]
