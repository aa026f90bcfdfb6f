"""What the wake stream and the control plane tell the scheduler, decoded."""

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec import Struct

from stoker.core.events import Event
from stoker.core.ids import may_be_id
from stoker.core.measures import Measures
from stoker.core.messages import EngineId, SetupKey, TaskId, TaskSpec, WorkerId
from stoker.core.sessions import SessionEnd
from stoker.core.states import TaskState
from stoker.log import get_logger

_log = get_logger("scheduling")
_spec = msgspec.json.Decoder(TaskSpec)
_TIME = re.compile(rb"[0-9]{1,18}")


class WakeKind(StrEnum):
    """What happened that the scheduler must look at."""

    SUBMITTED = "submitted"
    REQUEUED = "requeued"
    CANCELLED = "cancelled"
    MOVED = "moved"
    FINISHED = "finished"
    DELAYED = "delayed"
    """A task waits for a time: its own, or that of its next attempt."""
    ORPHANED = "orphaned"
    ENGINE = "engine"
    LOST = "lost"
    RELEASED = "released"
    """Somebody took a worker out of quarantine."""
    SESSION = "session"
    """A session is over."""
    PINS = "pins"
    """What is to stay loaded has changed, or for how long an app's instances do."""
    UNLOAD = "unload"
    """Somebody wants an instance to go."""


_measures = msgspec.json.Decoder(Measures)


class WakeEvent(Struct, frozen=True, kw_only=True):
    """One entry of the wake stream. Which fields are set follows from `kind`."""

    kind: WakeKind
    task_id: TaskId = TaskId("")
    engine_id: EngineId = EngineId("")
    attempt: int = 0
    reason: str = ""
    session_id: str = ""
    session_end: SessionEnd = SessionEnd.ENDED
    spec: TaskSpec | None = None
    state: TaskState | None = None
    measures: Measures | None = None
    due_ms: int = 0
    worker_id: WorkerId = WorkerId("")
    setup_key: SetupKey = SetupKey("")


FACTS = ("spec", "created", "queued")
"""What the control plane keeps of a task for the scheduler."""


def read_spec(facts: Sequence[bytes | None], returned_ms: int = 0) -> TaskSpec | None:
    """A spec from where the control plane keeps it (`FACTS`), None when it is gone.

    Args:
        returned_ms: when an engine gave the task back that had begun it; 0 = none did.
    """
    if facts[0] is None:
        return None
    spec = _created_at(_spec.decode(facts[0]), facts[1] or b"0")
    return msgspec.structs.replace(spec, queued_ms=max(int(facts[2] or 0), returned_ms))


def returned_at(told: bytes | None, now_ms: int) -> int:
    """When an engine gave a task back that it had begun, 0 = it did not. It may tell nonsense, or that it is yet to come."""
    return min(int(told), now_ms) if told and _TIME.fullmatch(told) else 0


def _created_at(spec: TaskSpec, created: bytes) -> TaskSpec:
    """The server's time of submission counts, not the caller's."""
    return msgspec.structs.replace(spec, created_ms=int(created))


def wake_event(fields: dict[bytes, bytes]) -> WakeEvent | None:
    """One entry; None for one that nobody of ours wrote: engines may add to the stream."""
    try:
        return _read_wake_event(fields)
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        _log.warning(Event.WAKE_UNREADABLE, reason=str(error))
        return None


def _read_wake_event(fields: dict[bytes, bytes]) -> WakeEvent:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    def name(field: bytes) -> str:
        if not may_be_id(text(field)):
            raise ValueError(f"{field.decode()} is no id")
        return text(field)

    spec = fields.get(b"spec")
    measures = fields.get(b"o")
    decoded = _spec.decode(spec) if spec else None
    if decoded is not None and b"at" in fields:
        decoded = _created_at(decoded, fields[b"at"])
    kind, reason = WakeKind(text(b"k")), text(b"reason")
    return WakeEvent(
        kind=kind,
        task_id=TaskId(name(b"task")),
        engine_id=EngineId(name(b"engine")),
        attempt=int(text(b"attempt") or 0),
        reason=reason,
        session_id=text(b"session"),
        session_end=SessionEnd(reason) if kind is WakeKind.SESSION else SessionEnd.ENDED,
        spec=decoded,
        state=TaskState(int(fields[b"s"])) if b"s" in fields else None,
        measures=_measures.decode(measures) if measures else None,
        due_ms=int(text(b"due") or 0),
        worker_id=WorkerId(text(b"worker")),
        setup_key=SetupKey(text(b"setup")),
    )
