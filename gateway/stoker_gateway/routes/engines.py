"""Engines and workers, with live memory and utilisation."""

import asyncio
from typing import Any

from litestar import get, post
from msgspec import Struct

from stoker.core.audit import Action
from stoker.core.errors import NotFound
from stoker.core.messages import DrainOrder, EngineId, EngineView, WorkerId
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.fleet_dto import Quarantines, engine_dto, worker_dto
from stoker_gateway.listing import ListQuery, plain
from stoker_gateway.routes.audit import record
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

REASON_SHOWN = 200


class DrainBody(Struct, kw_only=True):
    """Why an engine is drained."""

    reason: str = ""


async def fleet(request: AnyRequest) -> tuple[list[EngineView], Quarantines]:
    """Every engine, and the workers that get no tasks."""
    store = services_of(request).store
    engines, quarantines = await asyncio.gather(store.engines.list(), store.quarantines.list())
    return engines, quarantines


async def engine_page(request: AnyRequest) -> dict[str, Any]:
    engines, quarantines = await fleet(request)
    return page([engine_dto(engine, quarantines) for engine in engines])


@get("/engines", tags=["engines"], summary="List engines")
async def get_engines(request: AnyRequest) -> Answer:
    """Every machine that registered, with its workers and last readings."""
    return answer(request, await engine_page(request))


@post("/engines/list", status_code=200, tags=["engines"], summary="List engines")
async def list_engines(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The same; one page holds all."""
    plain(data)
    return answer(request, await engine_page(request))


@get("/engines/{engine_id:str}", tags=["engines"], summary="Read an engine")
async def get_engine(request: AnyRequest, engine_id: str) -> Answer:
    """One machine."""
    store = services_of(request).store
    found = await store.engines.get(EngineId(engine_id))
    return answer(request, engine_dto(found, await store.quarantines.list()))


@post("/engines/{engine_id:str}/drain", status_code=200, tags=["engines"], summary="Drain an engine")
async def drain_engine(request: AnyRequest, engine_id: str) -> Answer:
    """The machine takes nothing new, hands back what has not started, finishes what runs, and leaves.

    It takes tasks again when its daemon is started anew. Body, optional: `{"reason": "new driver"}`. Answers with the
    engine: `draining`, later `stopped` with `drain.done`.
    """
    return await _drain(request, engine_id, "drained by its operator", restart=False)


@post("/engines/{engine_id:str}/update", status_code=200, tags=["engines"], summary="Restart an engine")
async def update_engine(request: AnyRequest, engine_id: str) -> Answer:
    """Drain it, and end its daemon. Who supervises the daemon starts it again, as the version that is installed then."""
    return await _drain(request, engine_id, "restarted by its operator", restart=True)


async def _drain(request: AnyRequest, engine_id: str, reason: str, *, restart: bool) -> Answer:
    raw = await request.body()
    body = request.app.state.decode(raw, DrainBody) if raw.strip() else DrainBody()
    store = services_of(request).store
    order = DrainOrder(reason=body.reason[:REASON_SHOWN] or reason, restart=restart)
    try:
        await store.scheduling.drain(EngineId(engine_id), order)
    except NotFound as error:
        known = ", ".join(engine.info.id for engine in await store.engines.list())
        raise NotFound(f"Engine not found: {engine_id!r}; known: {known or 'none'}") from error
    action = Action.WORKER_RESTARTED if restart else Action.WORKER_DRAINED
    await record(request, action, engine_id, reason=order.reason)
    return answer(
        request, engine_dto(await store.engines.get(EngineId(engine_id)), await store.quarantines.list())
    )


async def all_workers(request: AnyRequest) -> list[dict[str, Any]]:
    engines, quarantines = await fleet(request)
    return [worker_dto(engine, worker, quarantines) for engine in engines for worker in engine.info.workers]


@get("/workers", tags=["engines"], summary="List workers")
async def get_workers(request: AnyRequest) -> Answer:
    """Every slot of every machine: its devices, what it does, what is warm on it."""
    return answer(request, page(await all_workers(request)))


@post("/workers/list", status_code=200, tags=["engines"], summary="List workers")
async def list_workers(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The same; one page holds all."""
    plain(data)
    return answer(request, page(await all_workers(request)))


@get("/workers/{worker_id:str}", tags=["engines"], summary="Read a worker")
async def get_worker(request: AnyRequest, worker_id: str) -> Answer:
    """One slot."""
    return answer(request, await one_worker(request, worker_id))


@post("/workers/{worker_id:str}/release", status_code=200, tags=["engines"], summary="Release a worker")
async def release_worker(request: AnyRequest, worker_id: str) -> Answer:
    """Take a worker out of quarantine: it gets tasks again at once. One that is in none stays as it is.

    One whose GPUs are to blame stays there until they work again.
    """
    await one_worker(request, worker_id)
    await services_of(request).store.quarantines.release(WorkerId(worker_id))
    await record(request, Action.WORKER_RELEASED, worker_id)
    return answer(request, await one_worker(request, worker_id))


async def one_worker(request: AnyRequest, worker_id: str) -> dict[str, Any]:
    """A slot by its id.

    Raises:
        NotFound: none has it; names those that there are.
    """
    workers = {worker["id"]: worker for worker in await all_workers(request)}
    if worker_id not in workers:
        raise NotFound(f"Worker not found: {worker_id!r}; known: {', '.join(sorted(workers)) or 'none'}")
    return workers[worker_id]


ROUTES = [
    *needs(Scope.ENGINES_READ, get_engines, list_engines, get_engine, get_workers, list_workers, get_worker),
    *needs(Scope.ENGINES_WRITE, drain_engine, update_engine, release_worker),
]
