"""Queues of short tasks: each waits for less than a load takes, and yet another copy is worth it when the queue lasts."""

import pytest
from board import Board
from scheduling import engine_info

from stoker_scheduler.actions import Rules

LOAD_S = 2.0
COLD = [("box-cpu-1", "a")]


def board_of(*, run_s=0.001, residents=4, others=(), **rules):
    """Three workers, the first of which has the model."""
    warm = [("box-cpu-0", "a"), *others]
    board = Board(Rules(**rules)).engine(engine_info(workers=3, residents=residents), warm)
    return board.learn("a", load_s=LOAD_S, run_s=run_s)


def serve(board, seconds, *, run_s=0.001):
    """So many seconds in which new tasks come whenever one ends, twice a second; the copy is never without."""
    running = [board.submit("a") for _ in range(5)]
    board.decide()
    for _ in range(int(seconds * 2)):
        board.later(0.5)
        done = next(task for task in running if board.worker_of(task) == "box-cpu-0")
        running.remove(done)
        board.finish(done, run_s=run_s)
        running.append(board.submit("a"))
        board.decide()


def test_a_burst_waits_for_the_copy_that_is_there():
    board = board_of()
    serve(board, LOAD_S)
    assert board.cold == []


def test_a_queue_that_lasts_longer_than_a_load_gets_another_copy():
    board = board_of()
    serve(board, LOAD_S + 0.5)
    assert board.cold == COLD


def test_the_next_copy_comes_when_the_last_one_is_there_and_did_not_end_the_queue():
    board = board_of()
    serve(board, 10 * LOAD_S)
    assert board.cold == COLD
    loading = board.mirror.fleet.workers["box-cpu-1"].held[0].task_id
    board.run(loading)
    board.submit("a")
    board.decide()
    assert board.cold == [*COLD, ("box-cpu-2", "a")]


def test_a_queue_that_was_empty_meanwhile_begins_anew():
    board = board_of()
    tasks = [board.submit("a") for _ in range(3)]
    board.decide()
    board.later(LOAD_S + 1)
    for task in tasks:
        board.finish(task, run_s=0.001)
        board.decide()
    serve(board, LOAD_S)
    assert board.cold == []


def test_what_would_have_to_make_room_stays():
    others = [("box-cpu-1", "b"), ("box-cpu-2", "c")]
    board = board_of(residents=1, others=others).learn("b", load_s=0.0).learn("c", load_s=0.0)
    serve(board, 10 * LOAD_S)
    assert board.cold == []


@pytest.mark.parametrize(
    ("run_s", "rules"), [(0.06, {}), (0.001, {"look_ahead": 0})], ids=["not short", "switched off"]
)
def test_the_length_of_a_queue_of_other_tasks_says_enough(run_s, rules):
    board = board_of(run_s=run_s, **rules)
    serve(board, 10 * LOAD_S, run_s=run_s)
    assert board.cold == []
