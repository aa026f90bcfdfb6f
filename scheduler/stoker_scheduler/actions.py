"""What a decision consists of, and what may be tuned about deciding. No behaviour here.

Actions are frozen; the loop carries them out. A `Reason` holds facts; `reasons.sentence` makes the text.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

from msgspec import Struct

from stoker.core.explanations import Candidate
from stoker.core.messages import EngineId, SetupKey, TaskId, WorkerId

GroupId = NewType("GroupId", str)

GPU_SPARE_S: Final = 5.0
"""What it costs to put an app without GPU needs on a GPU worker: it blocks a scarcer thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of a decision.

    `look_ahead` is how many short tasks a warm worker may hold beside the one it runs, `short_s` what counts
    as short. A task may be passed by warm ones for `age_cap_s`, and every `priority_step_s` of waiting counts
    as one level of priority. A key may be ahead of its fair share by `fair_slack_s` of worker time, so that
    fairness does not load models back and forth. A model with tasks waiting stays at least `churn_factor`
    times what its load took. An instance that was idle for `idle_unload_s` is unloaded (0 = never). After
    `quarantine_failures` in a row that are no app's own (0 = never) a worker gets no task for `quarantine_s`.
    """

    look_ahead: int = 1
    short_s: float = 0.05
    age_cap_s: float = 120.0
    priority_step_s: float = 300.0
    fair_slack_s: float = 10.0
    churn_factor: float = 1.0
    idle_unload_s: float = 0.0
    quarantine_failures: int = 5
    quarantine_s: float = 300.0


class Start(StrEnum):
    """How a task reaches a ready instance."""

    WARM = "warm"
    AHEAD = "ahead"  # queued at the worker, behind a short task of the same setup
    COLD = "cold"


class Why(StrEnum):
    """Why a group of tasks waits."""

    WARM_BUSY = "warm_busy"
    LOADING = "loading"
    ALL_BUSY = "all_busy"
    FREEING = "freeing"
    CROWDED = "crowded"  # others hold the GPU memory that it needs
    KEPT = "kept"
    REFUSED = "refused"
    NO_MATCH = "no_match"
    UNAVAILABLE = "unavailable"
    LEASED = "leased"
    SESSION_BUSY = "session_busy"
    SESSION_STARTS = "session_starts"


class Reason(Struct, frozen=True, kw_only=True):
    """The facts of a wait; which are set follows from `why`. `text` is for NO_MATCH, UNAVAILABLE and CROWDED."""

    why: Why
    worker_id: WorkerId = WorkerId("")
    wait_s: float = 0.0
    load_s: float = 0.0  # what loading elsewhere would take; 0 = nowhere to load
    workers: int = 0  # how many could run it
    text: str = ""


class Assign(Struct, frozen=True, kw_only=True):
    """Give a task to a worker. `evict` names the residents that make room."""

    task_id: TaskId
    group_id: GroupId
    engine_id: EngineId
    worker_id: WorkerId
    start: Start
    estimate_s: float  # worker time that this is expected to take, load included
    evict: tuple[SetupKey, ...] = ()
    candidates: tuple[Candidate, ...]  # what was compared; the first one was taken
    parked: bool = False  # a cold start for which the instance is parked there


class Evict(Struct, frozen=True, kw_only=True):
    """Unload an idle instance that nobody waits for."""

    engine_id: EngineId
    worker_id: WorkerId
    setup_key: SetupKey
    reason: str


class Wait(Struct, frozen=True, kw_only=True):
    """Leave a group in the queue. `reason.worker_id` is the worker that it waits for, if one."""

    group_id: GroupId
    reason: Reason


Action = Assign | Evict | Wait


@dataclass(slots=True)
class Changed:
    """What events have touched since the last decision. Dicts are ordered sets: decisions are repeatable."""

    groups: dict[GroupId, None] = field(default_factory=dict)
    workers: dict[WorkerId, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.groups or self.workers)
