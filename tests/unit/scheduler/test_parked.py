"""Three temperatures in the scheduler's decisions: a start where an instance is parked costs its way back, and no load."""

import pytest
from board import Board
from msgspec import structs
from scheduling import engine_info, gpu_needs, resident

from stoker.core.states import ResidentState, Temperature
from stoker_scheduler.actions import Rules, Start
from stoker_scheduler.eviction import decide_unload
from stoker_scheduler.parked import temperature
from stoker_scheduler.reasons import assigned

pytestmark = pytest.mark.unit

ONE, TWO = "box-gpu-0", "other-gpu-0"


def parked(worker, key, **fields):
    found = resident(worker, key, state=ResidentState.PARKED)
    return structs.replace(found, temperature=Temperature.PARKED, **fields)


def report(board, name="box", residents=(), parks=False, **view):
    """An engine with one GPU worker of 24 GB; `residents` are setups that take 16 GB."""
    found = [structs.replace(resident(f"{name}-gpu-0", key, vram_gb=16), parks=parks) for key in residents]
    return board.engine(engine_info(name, gpus=(24,)), found, **view)


def submit(board, key, **fields):
    return board.submit(key, needs=gpu_needs(16), **fields)


def worker(board, worker_id=ONE):
    return board.mirror.fleet.workers[worker_id]


def decided(board, key, **fields):
    task = submit(board, key, **fields)
    [assign] = [action for action in board.decide() if getattr(action, "task_id", "") == task]
    return assign


def test_a_worker_knows_three_temperatures():
    board = report(Board(), residents=["hot"], parked=[parked(ONE, "parked")])
    found = [temperature(worker(board), key) for key in ("hot", "parked", "cold")]
    assert found == [Temperature.HOT, Temperature.PARKED, Temperature.COLD]


def test_a_task_goes_where_its_instance_is_parked():
    board = report(report(Board()), "other", residents=["x"], parked=[parked(TWO, "a")])
    board.learn("a", load_s=20).learn("x", load_s=2)
    assign = decided(board, "a")
    assert (assign.worker_id, assign.start, assign.parked) == (TWO, Start.COLD, True)
    assert assigned(assign).startswith(f"comes back from being parked on {TWO} (~5 s)")
    assert [(c.worker_id, c.parked) for c in assign.candidates] == [(TWO, True), (ONE, False)]


def test_a_start_costs_the_learned_way_back_and_not_the_load():
    board = report(Board(), parked=[parked(ONE, "a")])
    board.learn("a", load_s=40, run_s=1)
    board.mirror.knowledge.learn_unpark("a", "test/a", 3.0)
    assert decided(board, "a").estimate_s == 4.0


def test_what_is_parked_needs_no_environment():
    board = report(Board(), parked=[parked(ONE, "a")], environments=())
    board.learn("a", load_s=40, run_s=1, prepare_s=60)
    board.mirror.knowledge.learn_unpark("a", "test/a", 3.0)
    assign = decided(board, "a")
    assert assign.estimate_s == 4.0
    assert not board.mirror.fleet.held(assign.task_id).needs_env


def test_until_it_is_measured_a_quarter_of_the_load_is_expected():
    board = report(Board(), parked=[parked(ONE, "a")]).learn("a", load_s=40, run_s=1)
    assert decided(board, "a").estimate_s == 11.0


def test_what_comes_back_teaches_the_way_back_and_a_load_the_load():
    board = report(Board(), parked=[parked(ONE, "a")]).learn("a", load_s=40, run_s=1)
    task = decided(board, "a").task_id
    board.later(3).run(task)
    knowledge = board.mirror.knowledge
    assert (knowledge.unpark_s("a"), knowledge.load_s("a")) == (3.0, 40.0)
    board.later(1).finish(task, run_s=1.0)
    other = decided(board, "b", workers=(ONE,)).task_id
    board.later(20).run(other)
    assert (knowledge.load_s("b"), knowledge.unpark_s("b")) == (20.0, 5.0)


def test_an_ending_without_a_move_before_it_teaches_the_same():
    board = report(Board(), parked=[parked(ONE, "a")]).learn("a", load_s=40, run_s=1)
    task = decided(board, "a").task_id
    board.later(4).finish(task, load_s=2.0, run_s=1.0)
    assert (board.mirror.knowledge.unpark_s("a"), board.mirror.knowledge.load_s("a")) == (2.0, 40.0)


def test_a_busy_copy_is_not_waited_for_when_a_parked_one_is_back_sooner():
    board = report(report(Board(), residents=["a"]), "other", parked=[parked(TWO, "a")])
    board.learn("a", load_s=60, run_s=30)
    board.mirror.knowledge.learn_unpark("a", "test/a", 3.0)
    assert decided(board, "a").worker_id == ONE
    assert decided(board, "a").worker_id == TWO


def test_one_that_is_on_its_way_back_is_not_parked_any_more_whatever_an_old_report_says():
    board = report(Board(), parked=[parked(ONE, "a")])
    decided(board, "a")
    assert worker(board).parked == {}
    report(board, parked=[parked(ONE, "a")])
    assert worker(board).parked == {}
    assert temperature(worker(board), "a") is Temperature.HOT


def test_what_can_be_parked_is_cheaper_to_lose():
    """Of two workers, each full of a model that is wanted as much, the one goes that comes back soon."""
    board = report(report(Board(), residents=["x"]), "other", residents=["y"], parks=True)
    for key in ("x", "y"):
        board.learn(key, load_s=40)
        board.mirror.knowledge.note_submitted(key, board.now_ms, "someone")
    assign = decided(board.learn("new", load_s=10), "new")
    assert (assign.worker_id, assign.evict) == (TWO, ("y",))


def test_a_parked_instance_goes_when_its_secret_was_changed_or_nobody_used_it():
    board = report(Board(), parked=[parked(ONE, "a"), parked(ONE, "b")])
    m = board.mirror
    [gone] = decide_unload(board.now_ms, m.queues, m.fleet, Rules(), frozenset({"a"}))
    assert (gone.worker_id, gone.setup_key) == (ONE, "a")
    m.apply_evict(gone, board.now_ms)
    assert list(worker(board).parked) == ["b"]
    assert decide_unload(board.now_ms, m.queues, m.fleet, Rules(), frozenset({"a"})) == ()
    board.later(61)
    [gone] = decide_unload(board.now_ms, m.queues, m.fleet, Rules(idle_unload_s=60))
    assert gone.setup_key == "b"


def test_keep_alive_ends_what_is_parked_and_counts_from_its_last_task():
    board = report(Board(), residents=["a"])
    task = submit(board, "a")
    board.decide()
    board.run(task)
    board.finish(task, run_s=1.0)
    board.later(50)
    report(board, parked=[parked(ONE, "a")])
    m = board.mirror

    def gone():
        found = decide_unload(board.now_ms, m.queues, m.fleet, Rules(), keep_alives={"test/a": 60})
        return [(evict.setup_key, evict.reason) for evict in found]

    assert gone() == []
    board.later(11)
    assert gone() == [("a", "not used for 60 s")]


def test_keep_alive_leaves_what_was_loaded_ahead_and_parked_before_its_first_task():
    board = report(Board(), residents=["a"])
    worker(board).residents["a"].unused = True
    report(board, parked=[parked(ONE, "a")])
    board.later(1000)
    m = board.mirror
    assert decide_unload(board.now_ms, m.queues, m.fleet, Rules(), keep_alives={"test/a": 0}) == ()


def test_a_lost_engine_has_nothing_parked():
    board = report(Board(), parked=[parked(ONE, "a")])
    board.mirror.on_lost("box", board.now_ms)
    assert worker(board).parked == {}


def test_a_large_fleet_finds_the_one_worker_where_it_is_parked():
    board = Board()
    for number in range(200):
        name = f"box{number}"
        report(board, name, parked=[parked(f"{name}-gpu-0", "a")] if number == 150 else ())
    board.learn("a", load_s=20)
    assert decided(board, "a").worker_id == "box150-gpu-0"
