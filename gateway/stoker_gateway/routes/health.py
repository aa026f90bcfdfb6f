"""How the system is: for load balancers, for people, for Prometheus."""

import time

from litestar import Response, get

from stoker.core.errors import NoCapacity
from stoker_gateway.services import JSON, Answer, AnyRequest, services_of

_READY_SILENCE_S = 15.0


@get("/health", tags=["system"], summary="Whether this process runs")
async def health(request: AnyRequest) -> Answer:
    """Answers while the process lives; says nothing of Redis or workers."""
    return Answer(content=request.app.state.encode({"status": "ok"}), media_type=JSON)


@get("/ready", tags=["system"], summary="Whether a task can run")
async def ready(request: AnyRequest) -> Answer:
    """200 when Redis answers, a scheduler leads and a worker is registered; else 503 with what is missing."""
    services = services_of(request)
    await services.store.ping()
    if not await services.store.scheduling.leader():
        raise NoCapacity("No scheduler leads yet. Start one (stoker scheduler) or wait a few seconds.")
    running = [engine for engine in await services.store.engines.list() if engine.status == "running"]
    if not any(engine.info.workers for engine in running):
        raise NoCapacity("No worker is registered yet. Start one (stoker worker) or wait a few seconds.")
    silent_s = time.monotonic() - services.hub.mono_heard
    if silent_s > _READY_SILENCE_S:
        raise NoCapacity(
            f"This gateway has heard nothing of its tasks for {silent_s:.0f} s. It reconnects by itself."
        )
    return Answer(content=request.app.state.encode({"status": "ready"}), media_type=JSON)


@get("/metrics", tags=["system"], summary="Measurements for Prometheus", media_type="text/plain")
async def metrics(request: AnyRequest) -> Response[str]:
    """Prometheus text format, version 0.0.4."""
    services = services_of(request)
    engines = await services.store.engines.list()
    lines = [
        "# TYPE stoker_pending_tasks gauge",
        f"stoker_pending_tasks {await services.store.scheduling.pending_count()}",
        "# TYPE stoker_open_streams gauge",
        f"stoker_open_streams {services.hub.open_streams}",
        "# TYPE stoker_seconds_since_last_read gauge",
        f'stoker_seconds_since_last_read{{loop="announcements"}} {time.monotonic() - services.hub.mono_heard:.3f}',
        "# TYPE stoker_engine_up gauge",
        *(f'stoker_engine_up{{engine="{e.info.id}"}} {int(e.status == "running")}' for e in engines),
        "# TYPE stoker_engine_running_tasks gauge",
        *(f'stoker_engine_running_tasks{{engine="{e.info.id}"}} {len(e.tasks)}' for e in engines),
        "# TYPE stoker_engine_residents gauge",
        *(f'stoker_engine_residents{{engine="{e.info.id}"}} {len(e.report.residents)}' for e in engines),
        "# TYPE stoker_gpu_memory_used_bytes gauge",
        "# TYPE stoker_gpu_utilisation_percent gauge",
    ]
    for engine in engines:
        for gpu in engine.telemetry.gpus if engine.telemetry else ():
            labels = f'{{engine="{engine.info.id}",gpu="{gpu.index}",uuid="{gpu.uuid}"}}'
            lines.append(f"stoker_gpu_memory_used_bytes{labels} {gpu.memory_used_bytes}")
            lines.append(f"stoker_gpu_utilisation_percent{labels} {gpu.utilisation_percent}")
    return Response(content="\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


@get("/openapi.json", include_in_schema=False)
async def openapi(request: AnyRequest) -> Answer:
    """The description of every route, in OpenAPI 3.1; `/docs` shows it."""
    schema = request.app.openapi_schema.to_schema()
    return Answer(content=request.app.state.encode(schema), media_type=JSON)


ROUTES = [health, ready, metrics, openapi]
