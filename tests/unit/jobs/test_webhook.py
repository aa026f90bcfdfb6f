"""What a webhook is told."""

import msgspec

from stoker.core.messages import TaskRequest, TaskView
from stoker.core.states import TaskState
from stoker_jobs.hook_body import webhook_event
from stoker_jobs.queue import Names


def ended(state, **changes):
    request = TaskRequest(
        id="t1",
        app_id="a",
        app="infsh/echo",
        version_id="v",
        function="run",
        input={},
        setup={},
        setup_key="s",
        env_key="e",
    )
    return TaskView(request=request, state=state, attempt=1, created_ms=1000, updated_ms=2500, **changes)


def test_a_completed_task_carries_its_output():
    event = webhook_event(ended(TaskState.COMPLETED, output=msgspec.Raw(b'{"a":1}')))
    assert event["event"] == "task.completed"
    assert event["task"] == {
        "id": "t1",
        "app": "infsh/echo",
        "function": "run",
        "status": 10,
        "status_text": "completed",
        "output": {"a": 1},
        "error": "",
        "created_at": "1970-01-01T00:00:01.000+00:00",
        "updated_at": "1970-01-01T00:00:02.500+00:00",
    }


def test_a_failed_task_carries_its_error_and_the_platforms_number():
    event = webhook_event(ended(TaskState.FAILED, error="no face"))
    assert (event["event"], event["task"]["status"]) == ("task.failed", 11)
    assert event["task"]["error"] == "no face"


def test_each_attempt_and_consumer_has_its_own_job():
    job_id = Names("default").ending_job
    ids = {job_id("t", 1, "webhook"), job_id("t", 2, "webhook"), job_id("t", 1, "flow")}
    assert len(ids) == 3
    assert job_id("t", 1, "webhook") in ids
