"""The sentences that people read: why a task waits, why it was given to its worker, why it failed in the queue."""

import msgspec
import pytest

from stoker.core.explanations import Candidate
from stoker_scheduler.actions import Assign, GroupId, Reason, Start, Why
from stoker_scheduler.deadlines import no_match_text, queue_timeout_text
from stoker_scheduler.reasons import assigned, sentence, span


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1 s"), (12.4, "12 s"), (119, "119 s"), (600, "10 min"), (86_400, "24.0 h")]
)
def test_spans_are_rounded_to_what_matters(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize("why", list(Why))
def test_every_reason_has_a_sentence(why):
    text = sentence(Reason(why=why, worker_id="w", wait_s=8, load_s=41, workers=3, text="facts"))
    assert text
    assert "{" not in text


def made(*candidates):
    chosen = candidates[0]
    return Assign(
        task_id="t",
        group_id=GroupId("g"),
        engine_id="e",
        worker_id=chosen.worker_id,
        start=Start(chosen.start),
        estimate_s=3,
        candidates=candidates,
    )


COLD = Candidate(worker_id="w", start="cold", ready_s=41, cost_s=44, evict=("x/a", "x/b"))


@pytest.mark.parametrize(
    ("candidates", "text"),
    [
        ([Candidate(worker_id="w", start="warm")], "w was idle and had this model loaded"),
        (
            [Candidate(worker_id="w", start="ahead")],
            "queued at w behind a short task of the same model",
        ),
        (
            [COLD],
            (
                "loading on w (~41 s): no worker has this model loaded; "
                "evicts x/a, x/b, which is expected to cost ~3 s of loading later"
            ),
        ),
        (
            [msgspec.structs.replace(COLD, evict=()), Candidate(worker_id="v", start="wait", ready_s=90)],
            (
                "loading on w (~41 s) is sooner than v, which has this model loaded, "
                "is through with those before it (~90 s)"
            ),
        ),
        (
            [Candidate(worker_id="w", start="cold", ready_s=3, cost_s=3, parked=True)],
            "comes back from being parked on w (~3 s): no worker has this model loaded",
        ),
        (
            [
                Candidate(worker_id="w", start="cold", ready_s=3, cost_s=3, parked=True),
                Candidate(worker_id="v", start="wait", ready_s=90),
            ],
            (
                "comes back from being parked on w (~3 s), which is sooner than v, which has this model loaded, "
                "is through with those before it (~90 s)"
            ),
        ),
    ],
    ids=["warm", "ahead", "cold", "cold though warm elsewhere", "parked", "parked though warm elsewhere"],
)
def test_every_assignment_has_a_reason(candidates, text):
    assert assigned(made(*candidates)) == text


def test_errors_of_tasks_that_waited_too_long_carry_the_last_reason():
    reason = Reason(why=Why.FREEING, worker_id="w")
    assert queue_timeout_text(60, reason) == (
        "The task waited 60 s in the queue and was not started. "
        "Last reason: waiting for w, which is freeing GPU memory."
    )
    assert no_match_text(600, None) == "No worker could run this task within 10 min: no worker matches."
