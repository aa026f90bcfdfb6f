"""The states of a task and of an instance, and every move between them: the one table of each.

The Lua scripts get the task's table as text (`lua_table`), docs/states.md is made from both, and each wire
dialect maps these members to its own numbers. Nobody else compares states by name or number.
"""

from enum import IntEnum, StrEnum
from typing import Final


class TaskState(IntEnum):
    """Where a task is. The values are the numbers of the documented REST contract."""

    RECEIVED = 1
    """Validated by the gateway; never stored alone: submit moves it on to QUEUED in the same script."""
    QUEUED = 2
    """Waits for the scheduler, or for a time. Nothing is lost in it: the task is in `pending`, or in `delayed`."""
    SCHEDULED = 3
    """An engine was chosen and told. If that engine is lost, the reaper queues the task again."""
    PREPARING = 4
    """The engine fetches the code and builds the environment. A crash leaves a cache that is resumed."""
    SERVING = 5
    """The app's process starts and imports the code. A crash ends the process with its group."""
    SETTING_UP = 6
    """`setup()` loads the model. A crash frees its memory; the attempt is spent."""
    RUNNING = 7
    """The function runs. A crash of the process spends the attempt or fails the task."""
    UPLOADING = 8
    """Output files go to the file store; each knows its task and attempt."""
    COMPLETED = 9
    """Ended with an output. Absorbs all that comes later."""
    FAILED = 10
    """Ended with an error. Absorbs all that comes later."""
    CANCELLED = 11
    """Ended by its caller. Absorbs all that comes later."""

    @property
    def wire_name(self) -> str:
        """The lower-case name that the platform uses, for instance ``setting_up``."""
        return self.name.lower()


_S = TaskState
_END: Final = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})
_LOST: Final = frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED})

ALLOWED: Final[dict[TaskState, frozenset[TaskState]]] = {
    _S.RECEIVED: frozenset({_S.QUEUED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.SCHEDULED, _S.FAILED, _S.CANCELLED}),
    _S.SCHEDULED: frozenset({_S.PREPARING, _S.SERVING, _S.SETTING_UP, _S.RUNNING}) | _LOST,
    _S.PREPARING: frozenset({_S.SERVING, _S.SETTING_UP, _S.RUNNING}) | _LOST,
    _S.SERVING: frozenset({_S.SETTING_UP, _S.RUNNING}) | _LOST,
    _S.SETTING_UP: frozenset({_S.RUNNING}) | _LOST,
    _S.RUNNING: frozenset({_S.UPLOADING, _S.QUEUED}) | _END,
    _S.UPLOADING: frozenset({_S.QUEUED}) | _END,
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""state -> states it may move to. Moves back to QUEUED are the reaper's and the drain's."""

TERMINAL: Final = frozenset(state for state, to in ALLOWED.items() if not to)
ON_ENGINE: Final = frozenset(s for s in ALLOWED if _S.SCHEDULED <= s <= _S.UPLOADING)
"""States in which an engine owns the task and a lease guards it."""


def may_move(old: TaskState, new: TaskState) -> bool:
    """Whether the table has a move from `old` to `new`."""
    return new in ALLOWED[old]


def lua_table() -> str:
    """The table as Lua source: ``{["1"]={["2"]=true}, ...}``; a terminal state has an empty row."""
    rows = (
        f'["{int(old)}"]={{' + ",".join(f'["{int(new)}"]=true' for new in sorted(to)) + "}"
        for old, to in sorted(ALLOWED.items())
    )
    return "{" + ",".join(rows) + "}"


class ResidentState(StrEnum):
    """What an instance is doing."""

    LOADING = "loading"
    """A task brings it up: its process starts and sets up, or comes back from being parked."""
    IDLE = "idle"
    """It is loaded, and nothing runs on it. If the process ends, it is stopping."""
    BUSY = "busy"
    """A function runs on it."""
    STOPPING = "stopping"
    """It leaves the worker; until its memory is back it counts as used. It is gone then, or parked."""
    PARKED = "parked"
    """It lives in the machine's memory and has left the GPUs. If the process ends, it is gone."""


_R = ResidentState

RESIDENT_MOVES: Final[dict[ResidentState, frozenset[ResidentState]]] = {
    _R.LOADING: frozenset({_R.IDLE, _R.STOPPING}),
    _R.IDLE: frozenset({_R.BUSY, _R.STOPPING}),
    _R.BUSY: frozenset({_R.IDLE, _R.STOPPING}),
    _R.STOPPING: frozenset({_R.PARKED}),
    _R.PARKED: frozenset({_R.LOADING, _R.STOPPING}),
}
"""state of an instance -> states it may move to. One that is stopping is gone afterwards, or parked."""


class Temperature(StrEnum):
    """How far the instance of a setup is from running on a worker."""

    HOT = "hot"
    """It is loaded there: a task runs at once."""
    PARKED = "parked"
    """It is parked there: a task runs when it has come back, which is shorter than a load."""
    COLD = "cold"
    """It is not there: a task runs when it was loaded."""
