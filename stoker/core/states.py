"""The states of a task, of an instance, of a flow run and its nodes, of a webhook's delivery, and every move between them.

The Lua scripts get the task's table as text (`lua_table`), docs/states.md is made from this page, and each wire
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
    """A task, or an order to load, brings it up: its process starts and sets up, or comes back from being parked."""
    IDLE = "idle"
    """It is loaded, and nothing runs on it. If the process ends, it is stopping."""
    BUSY = "busy"
    """A function runs on it."""
    STOPPING = "stopping"
    """It leaves the worker; until its memory is back it counts as used. It is gone then, or parked."""
    PARKED = "parked"
    """It lives in the machine's memory and has left the GPUs. If the process ends, it is gone."""


_I = ResidentState

RESIDENT_MOVES: Final[dict[ResidentState, frozenset[ResidentState]]] = {
    _I.LOADING: frozenset({_I.IDLE, _I.STOPPING}),
    _I.IDLE: frozenset({_I.BUSY, _I.STOPPING}),
    _I.BUSY: frozenset({_I.IDLE, _I.STOPPING}),
    _I.STOPPING: frozenset({_I.PARKED}),
    _I.PARKED: frozenset({_I.LOADING, _I.STOPPING}),
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


class RunState(IntEnum):
    """Where a flow run is. The values are the platform's; 0 is unknown there and never used."""

    PENDING = 1
    """Accepted; its first step was not taken yet. A crash leaves a document, or a task, that is looked at again."""
    RUNNING = 2
    """Nodes run or wait. A step that died is made up for by the next one."""
    COMPLETED = 3
    """Every node has settled; the output is there."""
    FAILED = 4
    """A node failed, and `fail_on_error` holds; or the run could not be begun."""
    CANCELLED = 5
    """Ended by its caller; tasks that ran were asked to end."""

    @property
    def wire_name(self) -> str:
        """The lower-case name."""
        return self.name.lower()


class NodeState(StrEnum):
    """Where a node of a flow run is; the values are the platform's."""

    PENDING = "pending"
    """Waits for nodes before it."""
    RUNNING = "running"
    """Its task was submitted, or is about to be: the next step makes up for a submission that was lost."""
    COMPLETED = "completed"
    """Its output is stored."""
    FAILED = "failed"
    """Its task failed, or could not be submitted, or what it computes could not be."""
    CANCELLED = "cancelled"
    """The run ended before it, or somebody cancelled its task."""
    SKIPPED = "skipped"
    """A gate before it was closed."""
    BLOCKED = "blocked"
    """A node before it failed."""


_R, _N = RunState, NodeState
RUN_MOVES: Final[dict[RunState, frozenset[RunState]]] = {
    _R.PENDING: frozenset({_R.RUNNING, _R.COMPLETED, _R.FAILED, _R.CANCELLED}),
    _R.RUNNING: frozenset({_R.COMPLETED, _R.FAILED, _R.CANCELLED}),
    _R.COMPLETED: frozenset(),
    _R.FAILED: frozenset(),
    _R.CANCELLED: frozenset(),
}
RUN_ENDED: Final = frozenset(state for state, to in RUN_MOVES.items() if not to)
NODE_MOVES: Final[dict[NodeState, frozenset[NodeState]]] = {
    _N.PENDING: frozenset(_N) - {_N.PENDING},
    _N.RUNNING: frozenset({_N.COMPLETED, _N.FAILED, _N.CANCELLED}),
    _N.COMPLETED: frozenset(),
    _N.FAILED: frozenset(),
    _N.CANCELLED: frozenset(),
    _N.SKIPPED: frozenset(),
    _N.BLOCKED: frozenset(),
}
NODE_SETTLED: Final = frozenset(state for state, to in NODE_MOVES.items() if not to)


class DeliveryState(StrEnum):
    """Where a delivery of a webhook is. A crash in any of them changes nothing: a try that was cut off is repeated."""

    PENDING = "pending"
    """Waits for its next try, or is being tried."""
    DELIVERED = "delivered"
    """The receiver answered with 2xx."""
    DEAD = "dead"
    """Given up. Kept, with its tries, for somebody to replay it."""


DELIVERY_ALLOWED: Final[dict[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.PENDING: frozenset(DeliveryState),
    DeliveryState.DELIVERED: frozenset({DeliveryState.PENDING}),
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING}),
}
"""A try leaves PENDING (`end_try.lua`), a replay enters it (`replay_delivery.lua`)."""
