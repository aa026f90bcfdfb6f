"""Tasks of the past as a trace for `stoker simulate`."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import msgspec

from stoker_cli.api import Task, state_name, state_of

LOADING: Final = frozenset({"preparing", "serving", "setting_up"})
ENDED: Final = frozenset({"completed"})


def trace_row(task: Task) -> dict[str, Any] | None:
    """One line of a trace; None for a task that did not complete.

    `setup` is the same for tasks that could share an instance: app, version and setup parameters.
    """
    if state_of(task) not in ENDED:
        return None
    times = list(_times(task))
    run_s = sum(end - begin for state, begin, end in times if state == "running")
    load_s = sum(end - begin for state, begin, end in times if state in LOADING)
    setup = msgspec.json.encode([task.get("app_version_id"), task.get("setup")], order="sorted")
    return {
        "id": task["id"],
        "at_s": round(_seconds(task["created_at"]), 3),
        "setup": f"{task.get('app_ref')}/{hashlib.sha256(setup).hexdigest()[:12]}",
        "run_s": round(run_s, 3),
        "tenant": str(task.get("user_id") or ""),
    } | ({"load_s": round(load_s, 3)} if load_s else {})


def _times(task: Task) -> Iterator[tuple[str, float, float]]:
    """The states of the attempt that ended the task: name, begin, end."""
    events: Sequence[dict[str, Any]] = [
        event for event in task.get("events") or () if event.get("attempt") == task.get("attempt")
    ]
    for before, after in pairwise(events):
        yield state_name(before["status"]), _seconds(before["event_time"]), _seconds(after["event_time"])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
