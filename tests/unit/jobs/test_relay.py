"""Which jobs the entries of the outbox become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rq.job import validate_job_id

from stoker.core.messages import Waiter
from stoker.core.states import TaskState
from stoker.protocol.documents import Due
from stoker.protocol.outbox import Ending, Nudge
from stoker_jobs.queue import Names
from stoker_jobs.relay import TOGETHER, plan, plan_due
from stoker_jobs.steps import advance
from stoker_jobs.tasks import deliver_webhook

WAITER = Waiter(kind="flowrun", id="r1", part="resize")
WORKERS = 2
NAMES = Names("default")


def ending(**changes):
    said = {"entry_id": "1-0", "task_id": "gpu.t1", "attempt": 2, "state": TaskState.COMPLETED, "notify": ""}
    return Ending(**(said | changes))


def nudges(count):
    return [Nudge(entry_id=f"{n}-0", kind="chat", id=f"c{n}") for n in range(count)]


def documents_of(jobs):
    return [document for job in jobs for document in job.arguments]


def test_each_who_waits_for_an_ending_has_one_job():
    webhook, step = plan([ending(notify="http://x/", waiter=WAITER)], NAMES, WORKERS)
    assert (step.function, step.arguments) == (advance, (("flowrun", "r1"),))
    assert (webhook.function, webhook.arguments) == (deliver_webhook, ("http://x/", "gpu.t1", webhook.id))


@pytest.mark.parametrize("asks", [{"notify": "http://x/"}, {"waiter": WAITER}], ids=["webhook", "step"])
def test_a_repeat_has_the_same_id_and_another_attempt_has_not(asks):
    first, repeat, other = (plan([ending(attempt=n, **asks)], NAMES, WORKERS)[0].id for n in (2, 2, 3))
    assert first == repeat != other


@pytest.mark.parametrize("pool", ["default", "gpu-1"])
@pytest.mark.parametrize(
    "notice",
    [ending(notify="http://x/", waiter=WAITER), Nudge(entry_id="1-0", kind="chat", id="gpu.c1")],
)
def test_every_id_is_one_that_rq_takes(notice, pool):
    for job in plan([notice], Names(pool), WORKERS):
        validate_job_id(job.id)


def test_what_is_the_same_in_two_pools_is_no_repeat():
    """RQ knows a job by its id alone, whatever its queue."""
    notices = [ending(notify="http://x/", waiter=WAITER), *nudges(3)]
    due = [Due(kind="flowrun", id="r1", at_ms=1)]
    ids = [
        {job.id for job in plan(notices, names, WORKERS) + plan_due(due, names, WORKERS)}
        for names in map(Names, ("default", "gpu", "gpu-2"))
    ]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 3 * 4


@pytest.mark.parametrize("pool", ["gpu", "steps", "intermediate", "default-steps"])
def test_no_pool_has_a_queue_of_another(pool):
    names = Names(pool)
    assert (NAMES.jobs, NAMES.steps) == ("stoker", "stoker-steps")
    assert len({NAMES.jobs, NAMES.steps, names.jobs, names.steps}) == 4


def test_what_is_due_again_later_is_another_job():
    [first], [later] = (plan_due([Due(kind="flowrun", id="r1", at_ms=at)], NAMES, WORKERS) for at in (1, 2))
    assert first.arguments == later.arguments == (("flowrun", "r1"),)
    assert first.id != later.id


def test_a_document_that_is_made_anew_is_no_repeat_of_the_one_before():
    """Both begin with revision 1, and RQ remembers the first one's job."""
    [first], [anew] = (
        plan([Nudge(entry_id=entry, kind="flowrun", id="r1")], NAMES, WORKERS) for entry in ("1-0", "2-0")
    )
    assert first.id != anew.id


def test_a_document_with_several_causes_takes_one_step():
    endings = [ending(task_id=f"t{n}", waiter=WAITER) for n in range(3)]
    assert documents_of(plan(endings, NAMES, WORKERS)) == [("flowrun", "r1")]


def test_steps_that_begin_alike_and_go_on_otherwise_are_no_repeat():
    first, second, third = nudges(3)
    [one], [other] = (plan(notices, NAMES, 1) for notices in ([first, second], [first, third]))
    assert one.id != other.id


@given(count=st.integers(0, 100), workers=st.integers(1, 5))
def test_every_process_gets_a_share_and_no_job_is_large(count, workers):
    jobs = plan(nudges(count), NAMES, workers)
    assert documents_of(jobs) == [("chat", f"c{n}") for n in range(count)]
    assert len(jobs) >= min(count, workers) / 2  # three steps for two processes: two and one
    assert all(0 < len(job.arguments) <= TOGETHER for job in jobs)
