"""A worker on which everything fails gets no tasks, says why, and comes back."""

import pytest
from board import Board
from scheduling import engine_info

from stoker.core.measures import Measures
from stoker.core.messages import Quarantine
from stoker.core.states import TaskState
from stoker_scheduler.actions import Rules
from stoker_scheduler.wards import Wards

pytestmark = pytest.mark.unit

RULES = Rules(quarantine_failures=3, quarantine_s=60)


@pytest.fixture
def board():
    return Board(RULES).engine()


def fail_in_a_row(board, times):
    for _ in range(times):
        task = board.submit()
        board.decide()
        board.fail(task)


def test_a_worker_on_which_tasks_fail_in_a_row_gets_no_more(board):
    fail_in_a_row(board, 3)
    task = board.submit()
    board.decide()
    assert board.worker_of(task) is None
    reason = board.reason_of(task)
    assert "quarantine" in reason
    assert "3 tasks in a row failed there, and not by their apps; the last one: no network" in reason
    assert "stoker workers release" in reason
    assert board.mirror.wards.take_errands() == {
        "box-cpu-0": Quarantine(
            worker_id="box-cpu-0",
            since_ms=board.now_ms,
            until_ms=board.now_ms + 60_000,
            failures=3,
            reason="no network",
        )
    }


def test_others_go_on(board):
    fail_in_a_row(board, 3)
    board.engine(engine_info("other"))
    task = board.submit()
    board.decide()
    assert board.worker_of(task) == "other-cpu-0"


@pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.FAILED])
def test_what_an_app_ends_itself_shows_that_the_worker_works(board, state):
    fail_in_a_row(board, 2)
    task = board.submit()
    board.decide()
    board.finish(task, state, run_s=1)
    fail_in_a_row(board, 2)
    assert not board.mirror.wards.take_errands()


def test_a_cancel_says_nothing(board):
    fail_in_a_row(board, 2)
    task = board.submit()
    board.decide()
    board.finish(task, TaskState.CANCELLED)
    fail_in_a_row(board, 1)
    assert "box-cpu-0" in board.mirror.wards


def test_the_last_attempt_of_a_task_counts_too(board):
    fail_in_a_row(board, 2)
    task = board.submit()
    board.decide()
    board.mirror.on_finished(task, TaskState.FAILED, Measures(at_fault="killed"), board.now_ms)
    assert "box-cpu-0" in board.mirror.wards


def test_a_released_worker_gets_tasks_and_a_clean_sheet(board):
    fail_in_a_row(board, 3)
    task = board.submit()
    board.decide()
    assert board.mirror.on_worker_released("box-cpu-0")
    board.decide()
    assert board.worker_of(task) == "box-cpu-0"
    board.fail(task)
    assert "box-cpu-0" not in board.mirror.wards
    assert board.mirror.wards.take_errands() == {"box-cpu-0": None}


def test_after_its_time_one_task_shows_how_the_worker_is(board):
    fail_in_a_row(board, 3)
    assert board.mirror.end_quarantines(board.now_ms + 59_000) == []
    board.later(60)
    assert board.mirror.end_quarantines(board.now_ms) == ["box-cpu-0"]
    fail_in_a_row(board, 1)
    assert "box-cpu-0" in board.mirror.wards
    board.later(60)
    board.mirror.end_quarantines(board.now_ms)
    task = board.submit()
    board.decide()
    board.finish(task, run_s=1)
    fail_in_a_row(board, 2)
    assert "box-cpu-0" not in board.mirror.wards


def test_the_engine_that_registers_anew_is_still_in_quarantine(board):
    fail_in_a_row(board, 3)
    board.mirror.fleet.drop("box")
    board.engine()
    task = board.submit()
    board.decide()
    assert board.worker_of(task) is None


def test_a_next_leader_goes_on_where_the_first_was():
    board = Board(RULES).engine()
    found = Quarantine(worker_id="box-cpu-0", since_ms=0, until_ms=1, failures=3, reason="no network")
    board.mirror.wards.restore(found)
    board.mirror.quarantine(found)
    task = board.submit()
    board.decide()
    assert board.worker_of(task) is None
    assert board.mirror.end_quarantines(board.now_ms) == ["box-cpu-0"]


def test_no_limit_no_quarantine():
    wards = Wards(Rules(quarantine_failures=0))
    assert not any(wards.failed("w", f"t{n}", "no network", 0) for n in range(100))


def test_a_task_that_kills_its_process_on_every_attempt_counts_once():
    wards = Wards(RULES)
    assert not any(wards.failed("w", task, "SIGKILL", 0) for task in ("t1", "t1", "t2", "t1", "t2"))
    assert wards.failed("w", "t3", "SIGKILL", 0).failures == 3
