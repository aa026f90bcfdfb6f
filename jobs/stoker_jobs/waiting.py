"""Waits of the loops of this part: for a time, and for Redis, and never beyond the part's end."""

import asyncio
import contextlib
from typing import Final

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.log import Logger
from stoker.protocol import Store
from stoker.settings import JobsSettings

RETRY_DELAY_S: Final = 0.5
"""Between two tries of what Redis does not answer."""


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not beyond `stop`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def await_store(settings: JobsSettings, stop: asyncio.Event, log: Logger) -> Store | None:
    """A store as soon as Redis answers; None when `stop` was set before."""
    while not stop.is_set():
        try:
            return await Store.open(settings.store_url, settings.pool)
        except StoreUnavailable as error:
            log.warning(Event.JOBS_DELAYED, reason=error.message)
            await pause(stop, RETRY_DELAY_S)
    return None
