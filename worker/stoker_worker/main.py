"""Puts the worker daemon together from its settings and runs it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Final, TypeVar

import uv

from stoker.bundles import Limits
from stoker.core.addresses import AllowList
from stoker.core.errors import IncompatibleVersion, StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import EngineId
from stoker.embedded import DirLock
from stoker.log import get_logger
from stoker.outbound import CheckedTransport
from stoker.protocol import Store
from stoker.settings import WorkerSettings
from stoker_worker import enrolment, identity, private_tmp
from stoker_worker.attempt_log import LogSpool
from stoker_worker.backoff import Backoff
from stoker_worker.daemon import Daemon
from stoker_worker.environment import Environments, Policy
from stoker_worker.execution import Tools
from stoker_worker.fetch import Fetcher
from stoker_worker.fetch_policy import FetchPolicy
from stoker_worker.files import Gateway
from stoker_worker.input_cache import InputCache
from stoker_worker.inputs import Inputs
from stoker_worker.log_upload import LogUploader
from stoker_worker.machine import Machine, Rules
from stoker_worker.parking import Lot
from stoker_worker.spool import Spool
from stoker_worker.telemetry import Sensors
from stoker_worker.versions import Versions

T = TypeVar("T")

DEFAULT_GATEWAY: Final = "http://127.0.0.1:8787"

_log = get_logger("worker")


async def serve(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Run one engine until `stop` is set and what runs has ended.

    Raises:
        DataDirInUse: another daemon of this name runs from the same directory.
        InvalidSettings: a worker names a GPU that is not there, or a token would go over a network in the clear.
        JoinFailed: the gateway did not take the token.
    """
    folder = settings.data_dir / settings.engine_name
    lock = DirLock(folder / "lock")
    await lock.take()
    sensors = Sensors(settings.telemetry_s, folders=(settings.cache_path, settings.data_dir))
    try:
        await sensors.start()
        joined = await _unless(stop, enrolment.join_once(settings, folder))
        if joined is not None:
            await _serve_joined(enrolment.applied(settings, joined), stop, joined, sensors, folder)
    finally:
        await sensors.stop()
        lock.release()


async def _serve_joined(
    settings: WorkerSettings, stop: asyncio.Event, joined: enrolment.Joined, sensors: Sensors, folder: Path
) -> None:
    store = await _unless(stop, _until_answered(lambda: Store.open(settings.store_url, settings.pool)))
    if store is None:
        return
    try:
        if joined.identity is not None:
            engine_id = joined.identity.engine_id
        else:
            engine_id = await _engine_id(settings, store, folder)
        await _serve(settings, stop, store, sensors, folder, engine_id, joined.headers)
    finally:
        await store.close()


async def _serve(
    settings: WorkerSettings,
    stop: asyncio.Event,
    store: Store,
    sensors: Sensors,
    folder: Path,
    engine_id: EngineId,
    headers: Mapping[str, str],
) -> None:
    info = identity.describe_engine(
        engine_id,
        settings,
        sensors.devices,
        driver_version=sensors.driver_version,
        cuda_version=sensors.cuda_version,
    )
    gateway = Gateway(lambda: gateway_url(settings), engine=headers, verify=settings.trust())
    environments = Environments(settings.cache_path, find_uv(), Policy.of(settings))
    inputs = make_inputs(settings, folder / "inputs")
    machine = Machine(
        Versions(settings.cache_path / "versions", Limits(max_bytes=settings.max_app_bytes)),
        environments,
        gateway,
        folder / "work",
        inputs,
        await private_tmp.find_out(settings.private_tmp),
        keep=(settings.cache_path, folder, inputs.open()),
        cache_max_bytes=settings.cache_max_bytes,
    )
    machine.rules = Rules.of(settings)
    machine.clean()
    logs = open_logs(settings, engine_id)
    tools = Tools(
        store=store.engines,
        engine_id=engine_id,
        spool=Spool(settings.spool_path / engine_id),
        logs=logs,
        machine=machine,
        setup_timeout_s=settings.setup_timeout_s,
        run_timeout_s=settings.run_timeout_s,
        upload_timeout_s=settings.upload_timeout_s,
        lot=await make_lot(settings, on_gpu=bool(sensors.devices)),
    )
    daemon = Daemon(
        info,
        store.engines,
        tools,
        sensors,
        machine,
        LogUploader(logs, gateway),
        lease_s=settings.lease_s,
        drain_grace_s=settings.drain_grace_s,
    )
    try:
        if await _unless(stop, _started(daemon)):
            _log.info(
                Event.PART_STARTED,
                engine=engine_id,
                workers=[worker.id for worker in info.workers],
                gpus=len(sensors.devices),
            )
            await daemon.run(stop)
    except IncompatibleVersion as error:
        _log.error(Event.ENGINE_REFUSED, engine=engine_id, reason=error.message)
        raise
    finally:
        await inputs.close()
        await gateway.close()
    _log.info(Event.PART_STOPPED, engine=engine_id)


def make_inputs(settings: WorkerSettings, folder: Path) -> Inputs:
    """What fetches the files of inputs, into `folder`."""
    policy = FetchPolicy(AllowList.parse(settings.fetch_allow), lambda: store_urls(settings))
    cache = InputCache(settings.cache_path / "inputs", settings.input_cache_max_bytes)
    transport = CheckedTransport(verify=settings.trust())
    fetcher = Fetcher(policy, max_bytes=settings.fetch_max_bytes, transport=transport)
    return Inputs(fetcher, cache, folder, timeout_s=settings.fetch_timeout_s)


def store_urls(settings: WorkerSettings) -> list[str]:
    """Addresses of the gateway, whose files are fetched wherever it stands; the one that this machine uses first."""
    urls = [gateway_url(settings), settings.public_url, settings.internal_url]
    return list(dict.fromkeys(url for url in urls if url))


async def make_lot(settings: WorkerSettings, *, on_gpu: bool) -> Lot:
    """What is parked on this machine; without GPUs the driver is not asked."""
    lot = Lot(settings)
    if on_gpu:
        await lot.start()
    return lot


def open_logs(settings: WorkerSettings, engine_id: EngineId) -> LogSpool:
    """Where the complete logs wait for the gateway."""
    return LogSpool(
        settings.spool_path / engine_id / "logs",
        attempt_bytes=settings.log_max_bytes,
        total_bytes=settings.log_spool_bytes,
    )


def gateway_url(settings: WorkerSettings) -> str:
    """Where this machine reaches the gateway: as set, else as a gateway here wrote down, else the default."""
    named = settings.internal_url or settings.public_url
    if named:
        return named
    try:
        return settings.url_file.read_text(encoding="utf-8").strip().rstrip("/") or DEFAULT_GATEWAY
    except OSError:
        return DEFAULT_GATEWAY


def find_uv() -> str:
    """The uv that builds environments: the one installed with Stoker, else whatever the PATH has."""
    try:
        return uv.find_uv_bin()
    except FileNotFoundError:
        return "uv"  # a task that needs it says that it is missing


async def _started(daemon: Daemon) -> bool:
    await daemon.start()
    return True


async def _until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """`call` again and again while the store is away."""
    backoff = Backoff()
    told = False
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            if not told:
                _log.warning(Event.STORE_LOST, reason=error.message)
            told = True
            await backoff.wait()


async def _engine_id(settings: WorkerSettings, store: Store, folder: Path) -> EngineId:
    """The id of this directory's engine; a new one is chosen once, and kept."""
    known = identity.read_engine_id(folder)
    if known is not None:
        return known
    name = settings.engine_name
    engines = await _until_answered(store.engines.list)
    taken = any(engine.info.id == name and engine.status in ("running", "draining") for engine in engines)
    engine_id = identity.decide_engine_id(name, taken=taken)
    identity.write_engine_id(folder, engine_id)
    return engine_id


async def _unless(stop: asyncio.Event, work: Coroutine[object, object, T]) -> T | None:
    """The result of `work`, or None when `stop` is set first: then `work` is cancelled."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopped.cancel()
        task.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
