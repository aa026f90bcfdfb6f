"""What the end and the moves of a task teach. Pure."""

from stoker.core.measures import Measures
from stoker.core.messages import TaskView
from stoker.core.states import TaskState
from stoker_scheduler.fleet import Held
from stoker_scheduler.knowledge import Knowledge


def learn_move(knowledge: Knowledge, held: Held, state: TaskState, now_ms: int) -> None:
    """Time what comes before a run, so that tasks which wait need not wait for the end to know it.

    Preparing lasts from the assignment to the start of the process, loading from there to the run.
    """
    since_s = (now_ms - held.assigned_ms) / 1000
    if state is TaskState.SERVING and held.needs_env and not held.prepare_s:
        held.prepare_s = since_s
        knowledge.learn_prepare(held.env_key, since_s)
    elif state is TaskState.RUNNING and held.load_s and not held.running_ms:
        _learn_start(knowledge, held, since_s - held.prepare_s)


def date(held: Held, task: TaskView, now_ms: int) -> None:
    """Take the times of an attempt that is under way from its history: it did not begin when it was read.

    Nothing is later than now, whatever an engine has written.
    """
    entered = {
        TaskState(state): min(at_ms, now_ms)
        for attempt, state, at_ms in reversed(task.history)
        if attempt == task.attempt
    }
    held.assigned_ms = entered.get(TaskState.SCHEDULED, now_ms)
    held.running_ms = entered.get(TaskState.RUNNING, 0)
    if TaskState.PREPARING in entered and TaskState.SERVING in entered:
        held.prepare_s = max(0, entered[TaskState.SERVING] - held.assigned_ms) / 1000


def learn_end(knowledge: Knowledge, held: Held, state: TaskState, measured: Measures, device: str) -> None:
    """Learn from an ending on a type of device; a failed or cancelled run says nothing about how long a run takes."""
    key = held.setup_key
    if measured.load_s > 0 and measured.run_s > 0 and not held.running_ms:
        _learn_start(knowledge, held, measured.load_s - held.prepare_s)
    if state is TaskState.COMPLETED and measured.run_s > 0:
        knowledge.learn_run(key, held.app, measured.run_s)
    if measured.vram_bytes and not measured.vram_short:
        knowledge.learn_vram(key, measured.vram_bytes, device)
    if measured.vram_short:
        knowledge.infer_vram(key, measured.vram_short, device)


def _learn_start(knowledge: Knowledge, held: Held, seconds: float) -> None:
    """A load is one, coming back from being parked another thing; where that failed, the load after it is its price."""
    learn = knowledge.learn_unpark if held.unparks else knowledge.learn_load
    learn(held.setup_key, held.app, max(0.0, seconds))
