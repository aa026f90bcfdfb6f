"""The only code that speaks to Redis: Lua scripts, one a verb, and their wrappers.

A wrapper makes one call, decodes and raises; it decides nothing.
"""

from stoker.protocol.admission import Repeat, Room
from stoker.protocol.engines import Renewal
from stoker.protocol.limits import RateState
from stoker.protocol.scheduling import AssignOrder, AssignResult
from stoker.protocol.store import Store
from stoker.protocol.wake import WakeEvent, WakeKind

__all__ = [
    "AssignOrder",
    "AssignResult",
    "RateState",
    "Renewal",
    "Repeat",
    "Room",
    "Store",
    "WakeEvent",
    "WakeKind",
]
