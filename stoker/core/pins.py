"""What people want to be loaded although no task asks for it: pins, and loads that are wanted once."""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from stoker.core.loads import PREFIX
from stoker.core.messages import EngineId, Needs, Owner, SetupKey, TaskRequest, WorkerId

MAX_PINS: Final = 500
"""Of a pool, loads that are wanted once included: whoever leads compares each one with the fleet."""
ONCE_KEPT_S: Final = 900.0
"""A load that is wanted once waits for room this long, and its record is kept so long."""


class PinState(StrEnum):
    """How far the fleet is from a pin. Derived from the fleet at every look, so there is no order of moves."""

    LOADED = "loaded"
    LOADING = "loading"
    WAITING = "waiting"
    FAILED = "failed"
    """Of a load that was wanted once, and is not tried again."""


class Pin(Struct, frozen=True, kw_only=True):
    """Instances of one setup that are to be loaded. Lives in a key that no engine may read.

    `workers` are names as they were typed, empty = any. `copies` 0 = one on each worker that is named, else one. With
    `once` it is over as soon as they are loaded, and protects nothing from eviction.
    """

    id: str
    request: (
        TaskRequest  # what an engine is told to load; it has no function, and each load has an id of its own
    )
    needs: Needs
    owner: Owner
    setup: dict[str, Any] = {}  # as it was asked for, an alias's values included, without the app's defaults
    follows: bool = True  # neither it nor its alias named a version, so it is for the current one
    workers: tuple[str, ...] = ()
    copies: int = 0
    once: bool = False
    created_ms: int = 0
    until_ms: int = 0  # of a load that is wanted once

    @property
    def setup_key(self) -> SetupKey:
        return self.request.setup_key


class PinStatus(Struct, frozen=True, kw_only=True):
    """What the leader found of a pin at its last look."""

    state: PinState
    workers: tuple[WorkerId, ...] = ()  # where it is loaded
    loading: tuple[WorkerId, ...] = ()
    wanted: int = 1
    reason: str = ""  # why not all are loaded


class LoadGrant(Struct, frozen=True, kw_only=True):
    """What the gateway gives to the engine that makes a load: this app's code, and these secrets of its owner."""

    engine_id: EngineId
    app_id: str
    app: str
    version_id: str
    setup_key: SetupKey
    owner: Owner


def is_load(task_id: str) -> bool:
    """Whether an id is that of an order to load, and not a task's."""
    return task_id.startswith(PREFIX)
