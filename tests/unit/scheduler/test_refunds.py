"""What a key pays for attempts that did not end by themselves: the time that they took, and nothing for the rest."""

import pytest
from board import Board
from scheduling import engine_info, spec

from stoker.core.measures import Measures

LOAD_S, RUN_S, TOOK_S = 10.0, 100.0, 4
AHEAD_S = 0.01
"""So short that a worker is given the next one too."""


def handed_back(board, task):
    again = spec("a", task=task, created_ms=board.now_ms)
    board.mirror.on_requeued(again, board.now_ms, 1)


def released(board, task):
    board.mirror.on_released(spec("a", task=task, created_ms=board.now_ms), board.now_ms)


ENDINGS = {
    "handed back": handed_back,
    "orphaned": lambda board, task: board.mirror.on_taken_back(task, board.now_ms),
    "stuck": lambda board, task: board.mirror.on_stuck(task, board.now_ms),
    "due again": released,
    "failed for now": lambda board, task: board.mirror.on_delayed(task, 1, Measures(), board.now_ms),
    "its engine is lost": lambda board, _: board.mirror.on_lost("box", board.now_ms),
}


def used_s(board):
    return board.mirror.queues.shares.used_s("k1")


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_an_attempt_costs_its_key_the_time_that_it_took(end):
    board = Board().engine(engine_info()).learn("a", load_s=LOAD_S, run_s=RUN_S)
    task = board.submit("a")
    board.decide()
    assert used_s(board) == LOAD_S + RUN_S
    board.submit("b")  # it waits, so that the key does not come back from being away
    end(board.later(TOOK_S), task)
    assert used_s(board) == pytest.approx(TOOK_S)


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_an_attempt_that_waited_behind_another_costs_nothing(end):
    board = Board().engine(engine_info(), [("box-cpu-0", "a")]).learn("a", run_s=AHEAD_S)
    first, second = board.submit("a"), board.submit("a")
    board.decide()
    assert board.worker_of(second) == board.worker_of(first) == "box-cpu-0"
    board.submit("b")
    end(board.later(TOOK_S), second)
    is_lost = board.worker_of(first) is None  # then the first one has ended with it
    assert used_s(board) == pytest.approx(TOOK_S if is_lost else AHEAD_S)
