"""What an engine tells of the loads that it was ordered to make for tasks to come."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

PREFIX: Final = "load~"
"""Of the id of an order to load. A task's id may begin with the name of its pool, and no pool has this sign."""
ENDED_KEPT: Final = 16
"""Ended loads that an engine still tells of, the latest ones: whoever leads reads each report a moment later."""


class LoadState(StrEnum):
    """How far an order is."""

    WAITING = "waiting"
    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"


class LoadReport(Struct, frozen=True, kw_only=True):
    """An order and what became of it. `load_s` is without what the environment took."""

    id: str
    worker_id: str
    setup_key: str
    app: str = ""
    state: LoadState
    load_s: float = 0
    unparked: bool = False  # it was parked there: `load_s` is its way back
    error: str = ""
    hindered: bool = False  # it failed before anything of the app was tried: no room, or the worker leaves

    @property
    def ended(self) -> bool:
        return self.state in (LoadState.LOADED, LoadState.FAILED)
