"""What the end and the moves of a task teach. Pure."""

from msgspec import Struct

from stoker.core.states import TaskState
from stoker_scheduler.fleet import Held
from stoker_scheduler.knowledge import Knowledge


class Measured(Struct, frozen=True, kw_only=True):
    """What an attempt reported at its end; zero = not measured."""

    load_s: float = 0.0
    run_s: float = 0.0
    vram_bytes: int = 0


def learn_move(knowledge: Knowledge, held: Held, state: TaskState, now_ms: int) -> None:
    """Time the preparing of an environment: from the assignment to the start of the process after it."""
    if state is TaskState.SERVING and held.needs_env and not held.prepare_s:
        held.prepare_s = (now_ms - held.assigned_ms) / 1000
        knowledge.learn_prepare(held.env_key, held.prepare_s)


def learn_end(knowledge: Knowledge, held: Held, state: TaskState, measured: Measured) -> None:
    """Learn from an ending; a failed or cancelled run says nothing about how long a run takes."""
    key = held.setup_key
    if measured.load_s > 0 and measured.run_s > 0:
        knowledge.learn_load(key, held.app, max(0.0, measured.load_s - held.prepare_s))
    if state is TaskState.COMPLETED and measured.run_s > 0:
        knowledge.learn_run(key, held.app, measured.run_s)
    if measured.vram_bytes:
        knowledge.learn_vram(key, measured.vram_bytes)
