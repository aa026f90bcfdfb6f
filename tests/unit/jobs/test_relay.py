"""Which jobs the entries of the outbox become."""

import pytest
from rq.job import validate_job_id

from stoker.core.messages import Waiter
from stoker.core.states import TaskState
from stoker.protocol.documents import Due
from stoker.protocol.outbox import Ending, Nudge
from stoker_jobs.relay import plan, plan_due
from stoker_jobs.steps import advance

WAITER = Waiter(kind="flowrun", id="r1", part="resize")


def ending(**changes):
    said = {"entry_id": "1-0", "task_id": "gpu.t1", "attempt": 2, "state": TaskState.COMPLETED, "notify": ""}
    return Ending(**(said | changes))


def test_each_who_waits_for_an_ending_has_one_job():
    webhook, step = plan(ending(notify="http://x/", waiter=WAITER))
    assert (step.function, step.arguments) == (advance, ("flowrun", "r1"))
    assert webhook.arguments == ("http://x/", "gpu.t1", webhook.id)


def test_a_repeat_has_the_same_id_and_another_attempt_has_not():
    first, repeat, other = (plan(ending(waiter=WAITER, attempt=n))[0].id for n in (2, 2, 3))
    assert first == repeat != other


@pytest.mark.parametrize(
    "notice",
    [ending(notify="http://x/", waiter=WAITER), Nudge(entry_id="1-0", kind="chat", id="gpu.c1")],
)
def test_every_id_is_one_that_rq_takes(notice):
    for job in plan(notice):
        validate_job_id(job.id)


def test_what_is_due_again_later_is_another_job():
    first, later = (plan_due(Due(kind="flowrun", id="r1", at_ms=at)) for at in (1, 2))
    assert first.arguments == later.arguments == ("flowrun", "r1")
    assert first.id != later.id


def test_a_document_that_is_made_anew_is_no_repeat_of_the_one_before():
    """Both begin with revision 1, and RQ remembers the first one's job."""
    first, anew = (plan(Nudge(entry_id=entry, kind="flowrun", id="r1")) for entry in ("1-0", "2-0"))
    assert first[0].id != anew[0].id
