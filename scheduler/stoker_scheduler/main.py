"""The scheduler as a process: connect, stand by, lead."""

import asyncio
import os
import socket
import time
from typing import Final

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.log import Logger, get_logger
from stoker.protocol import Store
from stoker.pulse import tell_loop
from stoker.settings import SchedulerSettings
from stoker_scheduler.actions import Rules
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.leader import Leader, pause
from stoker_scheduler.loop import Loop

CONNECT_RETRY_S: Final = 0.5


def rules_of(settings: SchedulerSettings) -> Rules:
    """The settings that decisions look at."""
    return Rules(
        look_ahead=settings.look_ahead,
        short_s=settings.short_task_s,
        age_cap_s=settings.age_cap_s,
        idle_unload_s=settings.idle_unload_s,
        quarantine_failures=settings.quarantine_failures,
        quarantine_s=settings.quarantine_s,
    )


def limits_of(settings: SchedulerSettings) -> Limits:
    """The settings that deadlines look at."""
    return Limits(
        queue_timeout_s=settings.queue_timeout_s,
        no_match_timeout_s=settings.no_match_timeout_s,
        hold_timeout_s=settings.hold_timeout_s,
        engine_forget_s=settings.engine_forget_s,
    )


async def serve(settings: SchedulerSettings, stop: asyncio.Event) -> None:
    """Lead or stand by until `stop` is set. Redis being away is waited out."""
    log = get_logger("scheduler")
    store = await _connect(settings, stop, log)
    if store is None:
        return
    holder = f"{socket.gethostname()}-{os.getpid()}-{new_id()[:6]}"
    leader = Leader(store.scheduling, holder, settings.leader_ttl_s, log)
    loop = Loop(store, rules_of(settings), log, limits=limits_of(settings))
    telling = asyncio.create_task(
        tell_loop(store.pulses, holder, "scheduler", lambda: silences(leader, loop), loop.counters.decisions),
        name="pulse",
    )
    try:
        await leader.run(loop, stop)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await store.close()


def silences(leader: Leader, loop: Loop) -> dict[str, float]:
    """Seconds since the last useful read of each loop; `wake` is read by the one that leads."""
    found = {"leader": round(time.monotonic() - leader.mono_heard, 3)}
    return found if leader.epoch is None else found | {"wake": round(loop.deaf_s(), 3)}


async def _connect(settings: SchedulerSettings, stop: asyncio.Event, log: Logger) -> Store | None:
    while not stop.is_set():
        try:
            return await Store.open(settings.store_url, settings.pool)
        except StoreUnavailable as error:
            log.warning(Event.STORE_UNAVAILABLE, reason=error.message)
        await pause(stop, CONNECT_RETRY_S)
    return None
