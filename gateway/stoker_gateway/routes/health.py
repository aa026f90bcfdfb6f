"""How the system is: for load balancers, for people, for Prometheus."""

import asyncio

from litestar import Response, get

from stoker.core.errors import NoCapacity
from stoker_gateway.access import open_to_all
from stoker_gateway.metrics import MEDIA_TYPE, measurements
from stoker_gateway.readiness import Engine, Facts, deaf, missing
from stoker_gateway.services import JSON, Answer, AnyRequest, services_of


@get("/health", tags=["system"], summary="Whether this process runs")
async def health(request: AnyRequest) -> Answer:
    """Answers while the process lives; says nothing of Redis or workers."""
    return Answer(content=request.app.state.encode({"status": "ok"}), media_type=JSON)


@get("/ready", tags=["system"], summary="Whether a task can run")
async def ready(request: AnyRequest) -> Answer:
    """200 when this gateway hears, a scheduler leads and a worker takes tasks; else 503 with what is missing."""
    services = services_of(request)
    store = services.store
    if reason := deaf(services.hub.pulse.silent_s()):
        raise NoCapacity(reason)
    leader, engines, told, expired = await asyncio.gather(
        store.scheduling.leader(),
        store.engines.list(),
        store.pulses.told(),
        store.scheduling.expired(),
    )
    running = tuple(
        Engine(
            id=engine.info.id,
            workers=len(engine.info.workers),
            leased=engine.info.id not in expired,
            silent_s=engine.telemetry.silent_s if engine.telemetry else {},
        )
        for engine in engines
        if engine.status == "running"
    )
    if reason := missing(Facts(leader=leader, engines=running, told=told)):
        raise NoCapacity(reason)
    return Answer(content=request.app.state.encode({"status": "ready"}), media_type=JSON)


@get("/metrics", tags=["system"], summary="Measurements for Prometheus", media_type="text/plain")
async def metrics(request: AnyRequest) -> Response[str]:
    """Prometheus text format, version 0.0.4."""
    services = services_of(request)
    return Response(content=await measurements(services.store, services.hub), media_type=MEDIA_TYPE)


@get("/openapi.json", include_in_schema=False)
async def openapi(request: AnyRequest) -> Answer:
    """The description of every route, in OpenAPI 3.1; `/docs` shows it."""
    schema = request.app.openapi_schema.to_schema()
    return Answer(content=request.app.state.encode(schema), media_type=JSON)


ROUTES = open_to_all(health, ready, metrics, openapi)
