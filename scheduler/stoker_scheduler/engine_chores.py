"""What becomes of engines that left for good: a container without a volume is another engine at each start."""

import asyncio
import time
from typing import Final

from stoker.core.events import Event
from stoker.log import Logger
from stoker.protocol import Store

PAUSE_S: Final = 60.0
AT_ONCE: Final = 100
"""Engines asked about after each pause; the next ones follow after the next."""


class EngineChores:
    """The work of one leadership on engines that are away."""

    def __init__(self, store: Store, epoch: int, log: Logger, forget_s: float) -> None:
        self._store = store
        self._epoch = epoch
        self._log = log
        self._forget_s = forget_s
        self._mono_next = 0.0
        self._skip = 0  # engines that were kept, from the oldest on

    async def tick(self) -> None:
        """Forget some of those that were not seen for long; the server knows which may go. Most ticks do nothing."""
        if time.monotonic() < self._mono_next:
            return
        self._mono_next = time.monotonic() + PAUSE_S
        scheduling = self._store.scheduling
        engine_ids = await scheduling.old_engines(self._forget_s, self._skip, AT_ONCE)
        gone = await asyncio.gather(
            *(scheduling.forget(self._epoch, engine_id, self._forget_s) for engine_id in engine_ids)
        )
        self._skip = self._skip + gone.count(False) if len(engine_ids) == AT_ONCE else 0
        for engine_id, is_gone in zip(engine_ids, gone, strict=True):
            if is_gone:
                self._log.info(Event.ENGINE_FORGOTTEN, engine=engine_id, unseen_s=self._forget_s)
