"""Sessions as clients read them."""

from typing import Any

from stoker.core.sessions import Session, SessionEnd
from stoker_gateway.dto import iso


def session_dto(session: Session) -> dict[str, Any]:
    """A session in the platform's form. One whose worker was lost counts as ended; `end_reason` tells."""
    info, end = session.info, session.end
    shown = SessionEnd.ENDED if end is SessionEnd.WORKER_LOST else end
    return {
        "id": info.id,
        "created_at": iso(session.created_ms),
        "worker_id": session.worker_id or None,
        "app_id": info.app_id,
        "app_ref": info.app,
        "app_version_id": info.version_id,
        "status": shown or "active",
        "end_reason": end,
        "expires_at": iso(session.expires_ms),
        "ended_at": iso(session.ended_ms) if session.ended_ms else None,
        "task_id": session.last_task_id or None,
        "call_count": session.call_count,
        "last_call_at": iso(session.last_call_ms) if session.last_call_ms else None,
        "idle_timeout": int(info.idle_s),
    }
