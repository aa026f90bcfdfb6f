"""The policy as stories: facts, then what must be decided."""

import pytest
from board import Board
from scheduling import engine_info, gpu_needs

from stoker.core.states import TaskState
from stoker_scheduler.actions import Assign, Changed, Rules, Start, Wait, Why


def starts(actions):
    return [(a.worker_id, a.start) for a in actions if isinstance(a, Assign)]


def warm_board(workers=2, warm=(("box-cpu-0", "a"),), rules=Rules(), residents=4):  # noqa: B008 - frozen
    return Board(rules).engine(engine_info(workers=workers, residents=residents), warm)


def test_an_idle_warm_worker_comes_first():
    board = warm_board(warm=(("box-cpu-1", "a"),))
    board.submit("a")
    assert starts(board.decide()) == [("box-cpu-1", Start.WARM)]


def test_of_two_idle_warm_workers_the_one_goes_whose_other_instance_is_wanted_less():
    board = warm_board(
        warm=(("box-cpu-0", "a"), ("box-cpu-0", "hot"), ("box-cpu-1", "a"), ("box-cpu-1", "old"))
    )
    for _ in range(3):
        board.finish(board.submit("hot"), TaskState.CANCELLED)
    board.finish(board.submit("old"), TaskState.CANCELLED)
    board.submit("a")
    assert starts(board.decide()) == [("box-cpu-1", Start.WARM)]


def test_a_warm_start_comes_before_a_load_for_a_key_that_had_less():
    board = warm_board(workers=1, rules=Rules(look_ahead=0, fair_slack_s=1)).learn("a", run_s=60).learn("b")
    first = board.submit("a", key_id="many")
    board.decide()
    warm, cold = board.submit("a", key_id="many"), board.submit("b", key_id="few")
    board.finish(first, run_s=60)
    board.decide()
    assert board.order == [first, warm]
    board.finish(warm, run_s=60)
    board.decide()
    assert board.order == [first, warm, cold]


def test_who_can_start_warm_goes_before_one_whose_instances_are_all_taken():
    warm = (("box-cpu-0", "a"), ("box-cpu-1", "b"))
    board = warm_board(warm=warm, residents=1).learn("a", load_s=10, run_s=60).learn("b", load_s=20)
    before = board.submit("b", key_id="many")
    board.decide()
    board.later(100).finish(before, run_s=100)
    first, second, other = board.submit("a"), board.submit("a"), board.submit("b", key_id="many")
    board.decide()
    assert [board.worker_of(task) for task in (first, second, other)] == ["box-cpu-0", None, "box-cpu-1"]
    assert board.cold == []


def test_nobody_waits_for_an_instance_that_makes_room_in_the_same_decision():
    board = warm_board(residents=1).learn("a", load_s=10, run_s=1).learn("b", load_s=10, run_s=60)
    board.later(100).submit("b", priority=5, workers=("box-cpu-0",))
    board.submit("a")
    board.decide()
    assert (board.cold, board.evicted) == ([("box-cpu-0", "b"), ("box-cpu-1", "a")], ["a"])


def test_a_cold_task_goes_to_the_emptiest_worker():
    board = warm_board(workers=3, warm=(("box-cpu-0", "b"), ("box-cpu-2", "c")))
    board.submit("a")
    assert starts(board.decide()) == [("box-cpu-1", Start.COLD)]


def test_an_instance_is_worth_more_where_many_live_for_it_would_stay_longer():
    board = Board()
    board.engine(engine_info("few", residents=2), [("few-cpu-0", key) for key in "ab"])
    board.engine(engine_info("many", residents=4), [("many-cpu-0", key) for key in "cdef"])
    for key in "aabbcdef":
        board.finish(board.submit(key), TaskState.CANCELLED)
    board.submit("new")
    assert starts(board.decide()) == [("few-cpu-0", Start.COLD)]


def test_a_machine_with_the_environment_beats_an_empty_one():
    board = Board()
    board.engine(engine_info("one"), environments=())
    board.engine(engine_info("two"), [("two-cpu-0", "b")], environments=("env",))
    board.submit("a")
    assert starts(board.decide()) == [("two-cpu-0", Start.COLD)]


def test_a_load_tells_what_it_was_compared_with():
    board = warm_board(workers=3, warm=(("box-cpu-0", "a"), ("box-cpu-2", "b")), residents=1)
    board.learn("a", load_s=10, run_s=60).learn("b", load_s=20)
    board.finish(board.submit("b"), TaskState.CANCELLED)
    board.submit("a")
    board.decide()
    board.submit("a")
    [assign] = board.decide()
    assert [(c.worker_id, c.start, c.evict) for c in assign.candidates] == [
        ("box-cpu-1", Start.COLD, ()),
        ("box-cpu-0", "wait", ()),
        ("box-cpu-2", Start.COLD, ("test/b",)),
    ]
    taken, waiting, other = assign.candidates
    assert (taken.ready_s, taken.cost_s, waiting.ready_s) == (10, 10, 60)
    assert other.ready_s < other.cost_s


def test_two_alternating_setups_load_once_each():
    board = Board().engine(engine_info(workers=2))
    for number in range(50):
        task = board.submit("ab"[number % 2])
        board.decide()
        board.run(task)
        board.finish(task, run_s=1.0, load_s=1.0)
        board.later(1)
    assert board.cold == [("box-cpu-0", "a"), ("box-cpu-1", "b")]


@pytest.mark.parametrize(
    ("busy_s", "load_s", "expected"),
    [
        (12, 41, Why.WARM_BUSY),
        (60, 41, Start.COLD),
    ],
    ids=["waiting is cheaper", "loading is cheaper"],
)
def test_waiting_for_a_busy_warm_worker_against_loading(busy_s, load_s, expected):
    board = warm_board().learn("a", load_s=load_s, run_s=busy_s)
    board.submit("a")
    board.decide()
    board.submit("a")
    [action] = board.decide()
    assert expected is (action.start if isinstance(action, Assign) else action.reason.why)


def test_the_reason_of_a_wait_names_the_worker_and_both_times():
    board = warm_board().learn("a", load_s=41, run_s=12)
    board.submit("a")
    board.decide()
    waiting = board.submit("a")
    board.decide()
    assert board.reason_of(waiting) == (
        "waiting ~12 s for box-cpu-0, which has this model loaded; loading elsewhere would take ~41 s"
    )


def test_a_load_in_flight_counts_as_resident():
    board = Board().engine(engine_info(workers=2))
    board.submit("a")
    board.submit("a")
    actions = board.decide()
    assert starts(actions) == [("box-cpu-0", Start.COLD)]
    assert actions[-1].reason.why is Why.LOADING


def test_a_deep_queue_loads_a_second_copy_once_the_times_are_known():
    board = warm_board().learn("a", load_s=10, run_s=5)
    tasks = [board.submit("a") for _ in range(10)]
    assert starts(board.decide()) == [("box-cpu-0", Start.WARM), ("box-cpu-1", Start.COLD)]
    # The loading copy serves a task that would have waited that long, not the next one.
    assert board.order == [tasks[0], tasks[2]]


def test_a_second_task_loads_elsewhere_as_soon_as_the_first_load_was_short():
    board = Board().engine(engine_info(workers=2))
    first = board.submit("a")
    board.decide()
    second = board.submit("a")
    assert starts(board.decide()) == []
    board.later(0.5)
    board.run(first)
    assert starts(board.decide()) == [("box-cpu-1", Start.COLD)]
    assert board.worker_of(second) == "box-cpu-1"


def test_an_overdue_run_is_not_waited_for_forever():
    board = warm_board().learn("a", load_s=20, run_s=5)
    board.submit("a")
    board.decide()
    board.submit("a")
    assert starts(board.decide()) == []
    board.later(100)
    assert starts(board.look_again()) == [("box-cpu-1", Start.COLD)]


def test_the_least_valuable_resident_is_evicted():
    board = warm_board(workers=1, residents=2, warm=(("box-cpu-0", "a"), ("box-cpu-0", "b")))
    board.learn("a", load_s=100).learn("b", load_s=1)
    for key in "ab":
        board.submit(key)
        board.decide()
        board.finish(board.order[-1], run_s=1)
    board.submit("c")
    [assign] = board.decide()
    assert assign.evict == ("b",)


def test_a_worker_that_must_evict_loses_against_one_with_room():
    board = warm_board(workers=2, residents=1, warm=(("box-cpu-0", "b"),))
    board.submit("a")
    [assign] = board.decide()
    assert (assign.worker_id, assign.evict) == ("box-cpu-1", ())


def test_gpu_memory_decides_how_many_go():
    info = engine_info(gpus=(24,))
    board = Board().engine(info, [("box-gpu-0", k) for k in "abc"])
    for key in "abc":
        board.learn(key, vram_gb=8)
    board.submit("d", needs=gpu_needs(10))
    [assign] = board.decide()
    assert len(assign.evict) == 2


def test_memory_that_is_being_freed_counts_as_used_and_evicts_nobody():
    from scheduling import resident

    from stoker.core.states import ResidentState

    board = Board().engine(
        engine_info(gpus=(24,)),
        [
            resident("box-gpu-0", "a", ResidentState.STOPPING, vram_gb=16),
            resident("box-gpu-0", "b", vram_gb=4),
        ],
    )
    board.submit("c", needs=gpu_needs(12))
    [wait] = board.decide()
    assert wait.reason.why is Why.FREEING


def test_a_young_model_with_tasks_waiting_is_kept():
    board = warm_board(workers=1, residents=1, warm=(), rules=Rules(look_ahead=0, age_cap_s=1))
    board.learn("a", load_s=10, run_s=1).learn("b", load_s=10, run_s=1)
    first = board.submit("a")
    board.decide()
    board.later(10)
    board.run(first)
    board.submit("b")
    board.decide()
    board.later(2)  # b is past its age cap now
    board.submit("a")
    board.finish(first, run_s=1)
    assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]
    board.later(60)
    board.finish(board.order[-1], run_s=1)
    board.submit("a")
    assert board.decide()[0].evict == ("a",)


def test_warm_tasks_pass_a_cold_one_until_its_age_cap():
    rules = Rules(age_cap_s=30, look_ahead=0, churn_factor=0)
    board = warm_board(workers=1, residents=1, rules=rules)
    board.learn("a", load_s=5, run_s=1).learn("b", load_s=5)
    running = board.submit("a")
    board.decide()
    cold = board.submit("b")
    board.decide()
    passed = 0
    while board.worker_of(cold) is None:
        board.later(1)
        board.submit("a")
        board.finish(running, run_s=1)
        board.decide()
        running = board.order[-1]
        passed += running != cold
    assert passed == 30


def test_a_short_task_is_queued_behind_one_of_its_own_setup():
    board = warm_board(workers=1).learn("a", run_s=0.001)
    for _ in range(3):
        board.submit("a")
    actions = board.decide()
    assert starts(actions) == [("box-cpu-0", Start.WARM), ("box-cpu-0", Start.AHEAD)]
    assert isinstance(actions[-1], Wait)


@pytest.mark.parametrize(
    ("run_s", "rules"),
    [(0.06, Rules()), (None, Rules()), (0.001, Rules(look_ahead=0))],
    ids=["not short", "not learned", "switched off"],
)
def test_no_task_is_queued_ahead_when_it_might_wait_there(run_s, rules):
    board = warm_board(workers=1, rules=rules)
    if run_s:
        board.learn("a", run_s=run_s)
    board.submit("a")
    board.submit("a")
    assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]


def test_nothing_is_queued_ahead_where_an_older_task_of_another_setup_waits():
    board = warm_board(workers=1, rules=Rules(age_cap_s=10)).learn("a", run_s=0.001)
    first = board.submit("a")
    board.decide()
    board.submit("b")
    board.decide()
    board.later(11)
    board.submit("a")
    assert starts(board.decide()) == []
    board.finish(first, run_s=0.001)
    assert starts(board.decide()) == [("box-cpu-0", Start.COLD)]


def test_higher_priority_goes_first():
    board = warm_board(workers=1)
    low, high = board.submit("a"), board.submit("a", priority=5)
    board.decide()
    assert board.order == [high]
    board.finish(high, run_s=1)
    board.decide()
    assert board.order == [high, low]


def test_waiting_raises_the_priority():
    board = warm_board(workers=1, rules=Rules(priority_step_s=100))
    low = board.submit("a")
    board.later(250)
    board.submit("a", priority=1)
    board.decide()
    assert board.order == [low]


def test_keys_share_a_worker_by_time():
    board = warm_board(workers=1, rules=Rules(look_ahead=0)).learn("a", run_s=1)
    many = [board.submit("a", key_id="many") for _ in range(10)]
    few = [board.submit("a", key_id="few") for _ in range(2)]
    for _ in range(12):
        board.decide()
        board.later(1)
        board.finish(board.order[-1], run_s=1)
    assert set(few) <= set(board.order[:5])
    assert [t for t in board.order if t in many] == many


@pytest.mark.parametrize("names", [("box-cpu-1",), ("two",), ("nope", "two-cpu-0")])
def test_named_workers_are_a_hard_constraint(names):
    board = Board().engine(engine_info("box", 2)).engine(engine_info("two"))
    board.submit("a", workers=names)
    [assign] = board.decide()
    assert assign.worker_id in names or assign.engine_id in names


def test_a_task_without_gpu_needs_spares_the_gpu():
    board = Board().engine(engine_info("gpu", gpus=(24,))).engine(engine_info("zcpu"))
    board.submit("a")
    assert starts(board.decide()) == [("zcpu-cpu-0", Start.COLD)]


def test_a_worker_that_handed_a_task_back_is_not_tried_at_once():
    board = warm_board(workers=1)
    task = board.submit("a")
    board.decide()
    board.mirror.on_requeued(_spec_of(board, task), board.now_ms)
    [wait] = board.decide()
    assert wait.reason.why is Why.REFUSED
    board.later(6)
    assert starts(board.look_again()) == [("box-cpu-0", Start.WARM)]


@pytest.mark.parametrize(("told", "holder"), [(1, "box-cpu-0"), (2, None), (0, None)])
def test_a_return_ends_no_later_attempt_than_its_own(told, holder):
    board = warm_board(workers=1)
    task = board.submit("a")
    board.decide()
    board.mirror.fleet.held(task).attempt = 2
    board.mirror.on_requeued(_spec_of(board, task), board.now_ms, told)
    assert board.worker_of(task) == holder
    assert (task in board.mirror.queues) is (holder is None)


def _spec_of(board, task_id):
    from scheduling import spec

    return spec("a", task=task_id, created_ms=board.now_ms)


def test_a_failed_load_does_not_count_as_resident():
    board = warm_board(workers=1, warm=())
    task = board.submit("a")
    board.decide()
    board.finish(task, TaskState.FAILED)
    board.submit("a")
    assert starts(board.decide()) == [("box-cpu-0", Start.COLD)]


def test_groups_behind_a_window_full_of_others_get_idle_workers_too():
    board = Board().engine(engine_info(workers=300))
    for number in range(300):
        board.submit(f"k{number}")
    board.decide()
    board.look_again()
    assert len(board.order) == 300


def test_a_changed_worker_leads_to_every_waiting_setup_though_windows_are_bounded():
    board = Board()
    for number in range(200):
        board.submit(f"k{number}")
    board.decide()
    board.engine(engine_info(workers=200))
    board.decide()
    assert len(board.order) == 200


def test_a_decision_changes_nothing_by_itself():
    board = warm_board().learn("a", run_s=0.001)
    for key in "aab":
        board.submit(key)
    first = board.ask()
    assert first == board.ask()
    assert len(board.mirror.queues) == 3


def test_nothing_changed_decides_nothing():
    board = warm_board()
    board.submit("a")
    assert board.ask(Changed()) == ()


def drain(board, run_s, load_s):
    """Carry out what is decided, one task after the other on each worker, until nothing is left."""
    lines = {}
    while True:
        for action in board.decide():
            if isinstance(action, Assign):
                took = run_s + (load_s if action.start is Start.COLD else 0)
                lines.setdefault(action.worker_id, []).append((action.task_id, took, action.start))
        if not any(lines.values()):
            return
        ends = {}
        for worker_id, line in lines.items():
            if line:
                ends[worker_id] = board.since.setdefault(worker_id, board.now_ms) + line[0][1] * 1000
        worker_id = min(ends, key=ends.get)
        task_id, _, start = lines[worker_id].pop(0)
        board.now_ms = max(board.now_ms, int(ends[worker_id]))
        board.run(task_id)
        board.finish(task_id, run_s=run_s, load_s=load_s if start is Start.COLD else 0)
        board.since.pop(worker_id)
        if lines[worker_id]:
            board.since[worker_id] = board.now_ms


@pytest.mark.parametrize("load_s", [0.3, 1.0, 20.0])
def test_two_setups_that_wait_at_once_keep_a_worker_each(load_s):
    """A second copy on the other's worker would only make the other one wait: both have work to the end."""
    board = Board().engine(engine_info(workers=2)).learn("a", load_s=load_s, run_s=0.2)
    board.learn("b", load_s=load_s, run_s=0.2)
    board.since = {}
    for number in range(50):
        board.submit("ab"[number % 2])
    drain(board, run_s=0.2, load_s=load_s)
    assert sorted(board.cold) == [("box-cpu-0", "a"), ("box-cpu-1", "b")]


def test_a_worker_whose_own_queue_is_empty_helps_out():
    board = warm_board(warm=(("box-cpu-0", "a"), ("box-cpu-1", "b")))
    board.learn("a", load_s=2, run_s=5).learn("b", load_s=2, run_s=5)
    for _ in range(4):
        board.submit("a")
    board.decide()
    assert board.cold == [("box-cpu-1", "a")]


def test_a_setup_that_is_loaded_nowhere_gets_a_worker_whose_own_tasks_wait():
    board = warm_board(workers=1, warm=(("box-cpu-0", "b"),), rules=Rules(look_ahead=0))
    board.learn("b", load_s=2, run_s=1)
    first = board.submit("b")
    board.decide()
    board.submit("a", priority=1)
    board.submit("b")
    board.run(first)
    board.finish(first, run_s=1)
    board.decide()
    assert board.cold == [("box-cpu-0", "a")]
