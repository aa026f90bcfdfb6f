"""What a new leader makes of the tasks that engines have: as if it had led all the time."""

import msgspec
from board import Board
from scheduling import engine_info, engine_view, request, resident, spec

from stoker.core.messages import TaskView
from stoker.core.states import TaskState

S = TaskState


def view(*entered, attempt=1, key="a"):
    """A task on box-cpu-0; `entered` are (state, seconds ago), the first of which is its assignment."""
    history = tuple((attempt, int(state), Board().now_ms - int(ago_s * 1000)) for state, ago_s in entered)
    return TaskView(
        request=request(spec(key, task="t")),
        state=entered[-1][0],
        attempt=attempt,
        created_ms=0,
        updated_ms=0,
        worker_id="box-cpu-0",
        history=history,
    )


def taken_over(task, residents=(), environments=("env",)):
    board = Board()
    found = [resident(*each) for each in residents]
    about = engine_view(engine_info(), residents=found, environments=environments)
    board.mirror.on_engine(about, board.now_ms)
    board.mirror.restore(task, task.request.app, board.now_ms)
    return board


def held(board):
    return board.mirror.fleet.held("t")


def test_a_load_that_a_new_leader_finds_is_timed_from_its_assignment():
    board = taken_over(view((S.SCHEDULED, 291), (S.SERVING, 290), (S.SETTING_UP, 289)))
    board.later(9).run("t")
    assert board.mirror.knowledge.load_s("a") == 300


def test_the_time_of_an_environment_is_no_time_of_the_load():
    board = taken_over(view((S.SCHEDULED, 100), (S.PREPARING, 100), (S.SERVING, 40), (S.SETTING_UP, 39)))
    assert held(board).prepare_s == 60
    board.run("t")
    assert board.mirror.knowledge.load_s("a") == 40


def test_an_environment_that_is_being_built_is_learned_of_by_a_new_leader():
    board = taken_over(view((S.SCHEDULED, 50), (S.PREPARING, 50)), environments=())
    assert board.mirror.fleet.workers["box-cpu-0"].preparing("env")
    board.mirror.on_moved("t", S.SERVING, board.later(10).now_ms)
    assert board.mirror.knowledge.prepare_s("env") == 60


def test_a_run_that_a_new_leader_finds_has_run_before():
    board = Board().learn("a", run_s=3600)
    task = view((S.SCHEDULED, 3510), (S.RUNNING, 3500))
    board.engine(engine_info(), [("box-cpu-0", "a")])
    board.mirror.restore(task, "test/a", board.now_ms)
    assert board.mirror.fleet.workers["box-cpu-0"].remaining_s(board.now_ms) == 100


def test_earlier_attempts_and_times_to_come_date_nothing():
    task = view((S.SCHEDULED, 10), (S.RUNNING, -60), attempt=2)
    before = ((1, int(S.SCHEDULED), 1), (1, int(S.RUNNING), 2))
    board = taken_over(msgspec.structs.replace(task, history=before + task.history))
    assert held(board).assigned_ms == board.now_ms - 10_000
    assert held(board).running_ms == board.now_ms
