"""What stays loaded, what is loaded ahead of its tasks, and what is unloaded."""

import asyncio
from typing import Any

from litestar import delete, get, post

from stoker.core.errors import NotFound
from stoker.core.pins import Pin, PinState, PinStatus
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.pinning import PinBody, UnloadBody
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

UNSEEN = PinStatus(state=PinState.WAITING, reason="the scheduler has not looked at it yet")


def pin_dto(pin: Pin, status: PinStatus | None) -> dict[str, Any]:
    """A pin, or a load that is wanted once, with what was found of it."""
    found, task = status or UNSEEN, pin.request
    return {
        "id": pin.id,
        "app": task.app,
        "app_id": task.app_id,
        "app_version_id": task.version_id,
        "follows_current": pin.follows,
        "setup": task.setup,
        "setup_key": pin.setup_key,
        "workers": pin.workers,
        "copies": pin.copies,
        "once": pin.once,
        "user_id": pin.owner.user_id,
        "created_at": iso(pin.created_ms),
        "expires_at": iso(pin.until_ms) if pin.until_ms else None,
        "looked_at": status is not None,
        "state": found.state,
        "wanted": found.wanted,
        "loaded_on": found.workers,
        "loading_on": found.loading,
        "reason": found.reason or None,
    }


async def all_pins(request: AnyRequest, *, once: bool) -> list[dict[str, Any]]:
    """Pins, or loads that are wanted once, the oldest first."""
    pins = services_of(request).store.pins
    found, states = await asyncio.gather(pins.list(), pins.states())
    return [pin_dto(pin, states.get(pin.id)) for pin in found if pin.once is once]


async def one_pin(request: AnyRequest, pin_id: str, *, once: bool) -> dict[str, Any]:
    """One of them.

    Raises:
        NotFound: there is none with this id; of loads, none of this user.
    """
    pins = services_of(request).store.pins
    pin, states = await asyncio.gather(pins.get(pin_id), pins.states())
    if pin.once is not once or (once and pin.owner.user_id != caller_of(request).owner.user_id):
        raise NotFound(f"{'Load' if once else 'Pin'} not found: {pin_id!r}")
    return pin_dto(pin, states.get(pin.id))


@get("/pins", tags=["pins"], summary="List pins")
async def list_pins(request: AnyRequest) -> Answer:
    """What is to stay loaded, of all users: where it is, and where it is not, why."""
    return answer(request, page(await all_pins(request, once=False)))


@get("/pins/{pin_id:str}", tags=["pins"], summary="Read a pin")
async def read_pin(request: AnyRequest, pin_id: str) -> Answer:
    """One pin."""
    return answer(request, await one_pin(request, pin_id, once=False))


@post("/pins", status_code=200, tags=["pins"], summary="Pin an app")
async def make_pin(request: AnyRequest, data: PinBody) -> Answer:
    """Load an app with a setup now, keep it loaded whatever else wants its room, and load it again where it is lost.

    On each of `workers` (ids of workers, names of machines), or on `copies` of them, or of all: on one where neither is
    said. The same app and setup again replaces the pin. Without a version in `app` it goes with the current one.
    """
    pin, messages = await services_of(request).pinner.pin(data, caller_of(request).actor, once=False)
    return answer(request, await one_pin(request, pin.id, once=False), messages)


@delete("/pins/{pin_id:str}", status_code=200, tags=["pins"], summary="Unpin")
async def remove_pin(request: AnyRequest, pin_id: str) -> Answer:
    """What is loaded stays until its room is wanted, and makes room from now on."""
    await one_pin(request, pin_id, once=False)
    await services_of(request).pinner.unpin(pin_id, caller_of(request).actor)
    return answer(request, {"id": pin_id, "deleted": True})


@post("/loads", status_code=200, tags=["pins"], summary="Load an app ahead of its tasks")
async def make_load(request: AnyRequest, data: PinBody) -> Answer:
    """Load an app with a setup now, without a task; the first task then finds it warm. Where: as with a pin.

    It waits up to 15 minutes for room, is tried once on a worker, and protects nothing from making room afterwards.
    """
    load, messages = await services_of(request).pinner.pin(data, caller_of(request).actor, once=True)
    return answer(request, await one_pin(request, load.id, once=True), messages)


@get("/loads/{load_id:str}", tags=["pins"], summary="Read a load")
async def read_load(request: AnyRequest, load_id: str) -> Answer:
    """A load of the caller's, for 15 minutes after it was asked for: `waiting`, `loading`, `loaded` or `failed`."""
    return answer(request, await one_pin(request, load_id, once=True))


@post("/apps/unload", status_code=200, tags=["pins"], summary="Unload an app")
async def unload_app(request: AnyRequest, data: UnloadBody) -> Answer:
    """Unload the idle instances of an app, or of one setup of it; on these workers, or on all.

    Answers with each instance that it concerns: `unloading`; `busy` and `pinned` ones stay.
    """
    found = await services_of(request).pinner.unload(data, caller_of(request).actor)
    return answer(request, page(found))


ROUTES = [
    *needs(Scope.ENGINES_READ, list_pins, read_pin),
    *needs(Scope.ENGINES_WRITE, make_pin, remove_pin, unload_app),
    *needs(Scope.APPS_EXECUTE, make_load, read_load),
]
