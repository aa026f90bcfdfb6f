"""The gateway process: settings in, a served application out."""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from litestar import Litestar

from stoker.api_keys import make_first_key
from stoker.bundles import Limits
from stoker.core.events import Event
from stoker.files import FileStore, open_files
from stoker.listening import BACKLOG, listen_on, url_host
from stoker.log import get_logger
from stoker.protocol import Room, Store
from stoker.runs.registry import Registry
from stoker.runs.submit import Submitter
from stoker.settings import GatewaySettings
from stoker_gateway.app import build
from stoker_gateway.attempts import Attempts
from stoker_gateway.clock import now_ms
from stoker_gateway.enrolment import Enroller
from stoker_gateway.flows import Flows
from stoker_gateway.pinning import Pinner
from stoker_gateway.registration import Registrar
from stoker_gateway.secret_store import SecretStore
from stoker_gateway.services import Services
from stoker_gateway.signing import Signing
from stoker_gateway.streams import Hub, StreamCut
from stoker_gateway.sweeper import Sweeper
from stoker_gateway.uploads import Uploads, sweep_loop

KEEP_ALIVE_S = 75
SHUTDOWN_S = 5
_GC_THRESHOLDS = (50_000, 20, 100)
"""Start-up makes objects that live for ever; collecting them again and again is the p99."""

log = get_logger("gateway")


async def serve(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        StoreUnavailable: Redis does not answer at the start.
        OSError: the port is taken.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = await Store.open(settings.store_url, settings.pool)
    listener = listen(settings)
    base_url = settings.public_url or own_url(settings, listener)
    try:
        await ensure_first_key(store, settings)
        registry, secrets = Registry(store), SecretStore(store, settings)
        blobs = open_files(settings)
        services = Services(
            store=store,
            settings=settings,
            registry=registry,
            submitter=submitter_of(store, registry, settings, base_url),
            flows=Flows(store, registry, base_url),
            secrets=secrets,
            signing=Signing(store, settings),
            attempts=Attempts(store.audit),
            registrar=Registrar(store, blobs, Limits(max_bytes=settings.max_app_bytes)),
            hub=Hub(store, settings),
            uploads=_uploads(settings, blobs),
            blobs=blobs,
            enroller=Enroller(store, settings, base_url),
            pinner=Pinner(store, registry, settings),
            base_url=base_url,
        )

        @contextlib.asynccontextmanager
        async def lifespan(_app: Litestar) -> AsyncIterator[None]:
            loops = [
                asyncio.create_task(services.hub.run()),
                asyncio.create_task(sweep_loop(services.uploads)),
                asyncio.create_task(Sweeper(store, blobs).run()),
                asyncio.create_task(services.enroller.settle_loop()),
            ]
            try:
                yield
            finally:
                for loop in loops:
                    loop.cancel()
                await asyncio.gather(*loops, return_exceptions=True)

        logging.getLogger("uvicorn.error").addFilter(hide_cuts)
        server = _Server(uvicorn_config(build(services, lifespan), settings))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await _started(server, serving)
        settings.url_file.write_text(base_url)
        _leave_alone()
        log.info(Event.PART_STARTED, url=base_url)
        await _until(stop, serving)
        server.should_exit = True
        services.hub.close()
        await serving
    finally:
        listener.close()
        await store.close()


def submitter_of(store: Store, registry: Registry, settings: GatewaySettings, base_url: str) -> Submitter:
    """What takes the runs of clients: the queue's bounds hold for them."""
    room = Room(queue=settings.max_queued, key=settings.max_queued_per_key)
    return Submitter(
        store, registry, settings, base_url=base_url, room=room, idempotency_s=settings.idempotency_s
    )


def _uploads(settings: GatewaySettings, blobs: FileStore) -> Uploads:
    folder = settings.files_dir / "uploads"
    return Uploads(blobs, folder, max_bytes=settings.max_upload_bytes, ttl_s=settings.upload_ttl_s)


def _leave_alone() -> None:
    """Have the collector pass over what start-up made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def uvicorn_config(app: Any, settings: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        proxy_headers=False,  # addresses come from settings, never from a header
        server_header=False,
        date_header=False,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
    )


def hide_cuts(record: logging.LogRecord) -> bool:
    """Whether to log what uvicorn says of a request: a stream that was broken off on purpose is no error."""
    error = record.exc_info[1] if record.exc_info else None
    while error is not None:
        if isinstance(error, StreamCut):
            return False
        if isinstance(error, BaseExceptionGroup):
            return error.split(StreamCut)[1] is not None
        error = error.__cause__
    return True


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the service runner has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def ensure_first_key(store: Store, settings: GatewaySettings) -> None:
    """Make the first API key of a system that has none. A gateway without the file of one goes without it."""
    made = await make_first_key(store, settings.key_file, now_ms())
    if not made and not settings.key_file.exists():
        log.info(
            Event.KEY_FILE_ABSENT,
            path=str(settings.key_file),
            reason="the system has API keys, and none is made anew; who has lost them: stoker keys recover",
        )


def listen(settings: GatewaySettings) -> socket.socket:
    """The socket to serve on: the inherited one, or a new one.

    What it accepts sends at once. asyncio's own loop leaves that out for a listener like this one, and each answer
    on a connection that is kept then waits 40 ms for the other side's acknowledgement; uvloop sets it by itself.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    if settings.listen_fd >= 0:
        listener = socket.socket(fileno=settings.listen_fd)
    else:
        listener = listen_on(settings.host, settings.port)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def own_url(settings: GatewaySettings, listener: socket.socket) -> str:
    """The address that it listens on, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"{settings.scheme}://{url_host(host)}:{port}"


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            await serving
            raise RuntimeError("the HTTP server ended while it started; its log says why")
        await asyncio.sleep(0.005)


async def _until(stop: asyncio.Event, serving: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
