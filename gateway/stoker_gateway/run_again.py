"""The run request of a task that is to be run again. Pure."""

from typing import Any

from stoker.core.errors import Conflict
from stoker.core.messages import TaskRequest, TaskSpec, TaskView
from stoker.core.states import TERMINAL, TaskState
from stoker.runs.submit import RunBody


def retry_body(view: TaskView, spec: TaskSpec) -> RunBody:
    """What to submit for a task that failed or was cancelled.

    Raises:
        Conflict: it has not ended, it has completed, or it belonged to a session.
    """
    request = view.request
    if view.state not in TERMINAL:
        raise Conflict(
            f"The task is {view.state.wire_name}: it has not ended. Wait for its end, or cancel it first."
        )
    if view.state is TaskState.COMPLETED:
        raise Conflict("The task has completed. Only one that failed or was cancelled can be run again.")
    if request.session_id:
        raise Conflict(
            "The task belonged to a session, whose memory it needs. Run it in a session of its own (session: new)."
        )
    return RunBody(
        app_id=request.app_id,
        version_id=request.version_id,
        function=request.function,
        input=request.input,
        setup=request.setup,
        infra=request.infra,
        workers=list(request.workers) or None,
        variant=request.variant,
        webhook=request.webhook,
        priority=spec.priority,
        timeouts=_timeouts(request, spec),
        retry={
            "max_attempts": spec.max_attempts,
            "delay": spec.retry_delay_s,
            "app_errors": request.retry_app_errors,
        },
    )


def _timeouts(request: TaskRequest, spec: TaskSpec) -> dict[str, Any]:
    said = {
        "queue": spec.queue_timeout_s,
        "no_match": spec.no_match_timeout_s,
        "setup": request.setup_timeout_s,
        "run": request.run_timeout_s,
        "upload": request.upload_timeout_s,
    }
    return {key: seconds for key, seconds in said.items() if seconds}
