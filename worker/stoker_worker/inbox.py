"""The inbox loop: reads the orders of this engine and hands each one to its handler. It decides nothing.

Every read is bounded, so that a server which went away without a word is noticed; what is read is fenced by
attempt numbers, so that reading an order twice does no harm.
"""

import asyncio
import time
from typing import Final, Protocol

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.core.messages import (
    Assignment,
    CancelOrder,
    DrainOrder,
    EngineId,
    EvictOrder,
    InboxMessage,
    LoadOrder,
    PinOrder,
    RecallOrder,
)
from stoker.log import get_logger
from stoker_worker.backoff import Backoff

TOGETHER_S: Final = 0.002
"""What was handed out goes first, and what comes meanwhile is read together."""

_log = get_logger("inbox")


class InboxStore(Protocol):
    """The part of `stoker.protocol.engines.Engines` that the inbox needs."""

    async def inbox(
        self, engine_id: EngineId, last_id: str, block_ms: int, count: int = 100
    ) -> tuple[str, list[tuple[str, InboxMessage]]]: ...


class Orders(Protocol):
    """Who acts on what the inbox says."""

    def on_assign(self, entry: str, order: Assignment) -> None: ...

    def on_cancel(self, order: CancelOrder) -> None: ...

    def on_evict(self, order: EvictOrder) -> None: ...

    def on_drain(self, order: DrainOrder) -> None: ...

    def on_recall(self) -> None: ...

    def on_load(self, order: LoadOrder) -> None: ...

    def on_pins(self, order: PinOrder) -> None: ...


class Inbox:
    """Reads orders until cancelled. `useful_mono` is when the last read succeeded."""

    def __init__(self, store: InboxStore, engine_id: EngineId, orders: Orders, block_s: float) -> None:
        self.useful_mono = time.monotonic()
        self._store = store
        self._engine_id = engine_id
        self._orders = orders
        self._block_ms = max(int(block_s * 1000), 1)
        self._last_id = "0"
        self._away_mono = 0.0

    def rewind(self) -> None:
        """Read from the start again: the inbox was emptied by a registration."""
        self._last_id = "0"

    def silent_s(self) -> float:
        """Seconds since the last read that the store answered."""
        return round(time.monotonic() - self.useful_mono, 3)

    async def read_loop(self) -> None:
        """Read, hand out, repeat; a store that is away is tried again with growing pauses."""
        backoff = Backoff()
        while True:
            asked_from = self._last_id
            try:
                last_id, messages = await self._store.inbox(self._engine_id, asked_from, self._block_ms)
            except StoreUnavailable as error:
                self._lost(error)
                await backoff.wait()
                continue
            backoff.reset()
            self._useful()
            if self._last_id == asked_from:  # else it was rewound while this read was under way
                self._last_id = last_id
            for entry, message in messages:
                self._dispatch(entry, message)
            if messages:
                await asyncio.sleep(TOGETHER_S)

    def _dispatch(self, entry: str, message: InboxMessage) -> None:
        match message:
            case Assignment():
                self._orders.on_assign(entry, message)
            case CancelOrder():
                self._orders.on_cancel(message)
            case EvictOrder():
                self._orders.on_evict(message)
            case DrainOrder():
                self._orders.on_drain(message)
            case RecallOrder():
                self._orders.on_recall()
            case LoadOrder():
                self._orders.on_load(message)
            case PinOrder():
                self._orders.on_pins(message)

    def _lost(self, error: StoreUnavailable) -> None:
        if not self._away_mono:
            self._away_mono = time.monotonic()
            _log.warning(Event.STORE_LOST, reason=error.message)

    def _useful(self) -> None:
        now = time.monotonic()
        if self._away_mono:
            _log.info(Event.STORE_BACK, since_useful_read_s=round(now - self.useful_mono, 3))
            self._away_mono = 0.0
        self.useful_mono = now
