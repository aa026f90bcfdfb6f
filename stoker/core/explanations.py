"""Why a task was given to its worker: what the scheduler compared, kept with the task for people. No behaviour here."""

from typing import Final

from msgspec import Struct

from stoker.core.messages import WorkerId

WAIT: Final = "wait"
"""`Candidate.start` of a busy worker that has the instance: what was not waited for."""


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One way to run the task that was compared."""

    worker_id: WorkerId
    start: str  # 'warm', 'ahead' or 'cold'; 'wait' for a busy worker that has the instance
    ready_s: float = 0.0  # expected until it would run there
    cost_s: float = 0.0  # what is compared: ready_s, and the loads that it is expected to cause later
    evict: tuple[str, ...] = ()  # apps whose instances would go for it
    parked: bool = False  # 'cold', and the instance waits in that machine's memory


class Explanation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One assignment. The first candidate is the one that was taken."""

    text: str
    candidates: tuple[Candidate, ...]
