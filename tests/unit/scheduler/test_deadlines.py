"""Which of the tasks that no worker matches are late, and in what order."""

from scheduling import spec

from stoker_scheduler.actions import Reason, Why
from stoker_scheduler.deadlines import Limits, overdue_unmatched
from stoker_scheduler.queues import Queues


def test_a_task_with_a_short_no_match_timeout_does_not_wait_for_one_before_it():
    queues = Queues()
    patient, hasty, hastier = spec("a"), spec("a", no_match_timeout_s=5), spec("a", no_match_timeout_s=3)
    for task in (patient, hasty, hastier):
        group_id = queues.add(task)
    queues.waits(group_id, Reason(why=Why.NO_MATCH, text="none"), 2000)
    assert overdue_unmatched(5_001, queues, Limits()) == [hastier.id]
    queues.remove(hastier.id)
    assert overdue_unmatched(7_001, queues, Limits()) == [hasty.id]
    queues.remove(hasty.id)
    assert overdue_unmatched(602_001, queues, Limits()) == [patient.id]


def test_a_task_whose_time_has_come_has_its_whole_no_match_timeout_and_holds_up_none():
    queues = Queues()
    older, younger = spec("a", created_ms=3_000), spec("a", created_ms=9_000)
    delayed = spec("a", created_ms=1_000, queued_ms=500_000)
    for task in (older, younger):
        group_id = queues.add(task)
    queues.waits(group_id, Reason(why=Why.NO_MATCH, text="none"), 2_000)
    queues.add(delayed, front=True)
    assert queues.group(group_id).head is delayed
    assert overdue_unmatched(603_001, queues, Limits()) == [older.id]
    assert overdue_unmatched(609_001, queues, Limits()) == [older.id, younger.id]
    assert overdue_unmatched(1_100_001, queues, Limits()) == [older.id, younger.id, delayed.id]
