"""Sessions: one instance that serves one caller's tasks, one after another, with its memory kept.

While a session is active its instance has a setup key of its own, made of the plain key and the session's id. So
no other task can find it, and everything that is known by setup key (who is warm, what is reported, what goes)
holds for it without a second way.
"""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from stoker.core.messages import EngineId, SetupKey, TaskId, TaskSpec, WorkerId

NEW: Final = "new"
"""What a run says in place of a session's id to open one."""
ID_PREFIX: Final = "sess_"
_SEPARATOR: Final = "+"
"""Between the plain key and the session's id; neither can hold it."""


class SessionEnd(StrEnum):
    """Why a session is over."""

    ENDED = "ended"
    """Its owner ended it."""
    EXPIRED = "expired"
    """No call came for its idle time."""
    WORKER_LOST = "worker_lost"
    """Its instance is gone, and the memory with it."""


class SessionInfo(Struct, frozen=True, kw_only=True):
    """What a session is from its start. `spec` is the pattern of its later tasks."""

    id: str
    user_id: str
    app_id: str
    app: str  # namespace/name
    version_id: str
    idle_s: float
    spec: TaskSpec
    setup: dict[str, Any] = {}


class Session(Struct, frozen=True, kw_only=True):
    """A session as read back. `end` is None while it is active."""

    info: SessionInfo
    created_ms: int
    expires_ms: int  # moves with every call, and while one waits or runs
    end: SessionEnd | None = None
    ended_ms: int = 0
    worker_id: WorkerId = WorkerId("")  # empty until its first task was placed
    engine_id: EngineId = EngineId("")
    last_task_id: TaskId = TaskId("")
    last_call_ms: int = 0
    call_count: int = 0
    open_tasks: tuple[TaskId, ...] = ()  # those that have not ended


def session_key(plain: SetupKey, session_id: str) -> SetupKey:
    """The setup key of a session's instance."""
    return SetupKey(f"{plain}{_SEPARATOR}{session_id}")


def plain_key(key: SetupKey) -> SetupKey:
    """The setup key without its session: what the instance has loaded."""
    return SetupKey(key.partition(_SEPARATOR)[0])


def session_of(key: SetupKey) -> str:
    """The session that an instance belongs to, or ''."""
    return key.partition(_SEPARATOR)[2]
