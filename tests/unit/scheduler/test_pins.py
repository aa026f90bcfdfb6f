"""Pins as stories: facts, then what must be loaded, what stays, and why something is not there."""

import pytest
from msgspec import structs
from pin_board import PinBoard, loads, pin
from scheduling import GB, engine_info, gpu_needs, resident

from stoker.core.loads import LoadReport, LoadState
from stoker.core.measures import Measures
from stoker.core.pins import PinState, PinStatus
from stoker.core.states import ResidentState, TaskState
from stoker.core.vram import VramState
from stoker_scheduler.actions import Assign, Rules, Start, Why
from stoker_scheduler.eviction import decide_unload
from stoker_scheduler.pin_book import UNHEARD_MS
from stoker_scheduler.pins import RESEND_MS, TOLD_MS, to_tell
from stoker_scheduler.residents import Phase

BOX = engine_info(workers=2)


def test_a_pin_is_loaded_where_nothing_asks_for_it_and_then_stays():
    board = PinBoard().engine(BOX).wants(pin())
    assert loads(board.look()) == [("box-cpu-0", "a")]
    assert loads(board.look()) == []  # under way
    assert board.status().state is PinState.LOADING
    board.ends(BOX, load_s=3.0)
    status = board.status()
    assert (status.state, status.workers, status.reason) == (PinState.LOADED, ("box-cpu-0",), "")
    assert board.mirror.knowledge.load_s("a") == 3.0
    assert board.mirror.fleet.workers["box-cpu-0"].free


def test_a_pin_brings_back_what_is_parked_and_that_is_learned_as_a_way_back():
    here = structs.replace(resident("box-cpu-1", "a", state=ResidentState.PARKED), temperature="parked")
    board = PinBoard().engine(BOX, parked=[here]).wants(pin()).learn("a", load_s=20)
    assert loads(board.look()) == [("box-cpu-1", "a")]
    board.ends(BOX, load_s=3.0, unparked=True)
    knowledge = board.mirror.knowledge
    assert (knowledge.unpark_s("a"), knowledge.load_s("a")) == (3.0, 20.0)


def test_a_load_under_way_counts_like_a_cold_start_for_tasks():
    """One load a model, and its worker is busy meanwhile."""
    board = PinBoard().engine(BOX).wants(pin()).learn("a", load_s=20, run_s=1)
    board.look()
    board.submit("a")
    board.submit("b")
    actions = board.decide()
    assert [(a.worker_id, a.start) for a in actions if isinstance(a, Assign)] == [("box-cpu-1", Start.COLD)]
    [reason] = [group.reason for group in board.mirror.queues.groups()]
    assert (reason.why, reason.worker_id) == (Why.LOADING, "box-cpu-0")
    board.ends(BOX)
    [warm] = [a for a in board.decide() if isinstance(a, Assign)]
    assert (warm.worker_id, warm.start) == ("box-cpu-0", Start.WARM)


def test_a_task_loads_it_and_the_pin_is_satisfied_by_that():
    board = PinBoard().engine(BOX).wants(pin())
    board.submit("a")
    board.decide()
    assert loads(board.look()) == []
    assert board.status().state is PinState.LOADING


def test_a_pinned_instance_makes_no_room_for_a_task():
    info = engine_info(residents=1)
    board = PinBoard().engine(info, [("box-cpu-0", "a")]).wants(pin())
    board.look()
    board.submit("b")
    board.decide()
    [reason] = [group.reason for group in board.mirror.queues.groups()]
    assert reason.why is Why.KEPT
    board.book.pins.clear()
    board.look()
    [assign] = [a for a in board.decide() if isinstance(a, Assign)]
    assert assign.evict == ("a",)


def test_an_idle_instance_makes_room_for_a_pin_but_another_pins_does_not():
    info = engine_info(residents=1)
    board = PinBoard().engine(info, [("box-cpu-0", "b")]).wants(pin("a"))
    [load] = board.look().loads
    assert load.evict == ("b",)

    board = PinBoard().engine(info, [("box-cpu-0", "b")])
    board.wants(pin("b", created_ms=2), pin("a", created_ms=1))
    plan = board.look()  # the first look of a leadership: nothing is marked yet
    assert loads(plan) == []
    assert plan.states["pin-b"].state is PinState.LOADED
    reason = board.status().reason
    assert reason.startswith("box-cpu-0 holds 1 of at most 1 instances; 1 of them are pinned")


def test_a_lost_instance_is_loaded_again():
    board = PinBoard().engine(BOX, [("box-cpu-1", "a")]).wants(pin())
    assert board.status().workers == ("box-cpu-1",)
    board.engine(BOX, [])  # its process ended
    assert loads(board.look()) == [("box-cpu-0", "a")]


def test_a_restarted_daemon_knows_nothing_of_its_orders():
    board = PinBoard().engine(engine_info()).wants(pin())
    board.look()
    board.later(1)
    board.told(engine_info(), registered_ms=board.now_ms)
    assert loads(board.look()) == [("box-cpu-0", "a")]


def test_an_engine_that_has_not_read_its_inbox_yet_is_not_asked_twice():
    board = PinBoard().engine(engine_info()).wants(pin())
    board.look()
    board.told(engine_info())  # of something else, before it read the order
    assert loads(board.look()) == []
    board.later(UNHEARD_MS / 1000 + 1)
    assert [order.worker_id for order in board.book.lost(board.mirror.fleet, board.now_ms)] == ["box-cpu-0"]
    assert "did not take the order to load within 30 s" in board.status().reason


def test_a_load_that_fails_is_tried_again_after_pauses_that_grow():
    board = PinBoard().engine(engine_info()).wants(pin())
    pauses = []
    for _ in range(3):
        assert loads(board.look()) == [("box-cpu-0", "a")]
        board.ends(engine_info(), LoadState.FAILED, error="No such model.")
        begun_ms = board.now_ms
        while not loads(decide_plan := board.look()):
            assert "failed" in decide_plan.states["pin-a"].reason
            assert "No such model." in decide_plan.states["pin-a"].reason
            board.later(1)
        pauses.append((board.now_ms - begun_ms) / 1000)
        board.book.drop(next(iter(board.book.orders.values())), board.mirror.fleet, board.now_ms)
    assert pauses == [5, 10, 20]


def test_a_load_wanted_once_is_over_when_it_is_loaded_and_protects_nothing():
    board = PinBoard().engine(engine_info()).wants(pin(once=True, until_ms=2_000_000))
    assert loads(board.look()) == [("box-cpu-0", "a")]
    board.ends(engine_info())
    plan = board.look()
    assert plan.states["pin-a"].state is PinState.LOADED
    assert not plan.pinned
    board.engine(engine_info(), [])  # evicted since
    assert loads(board.look()) == []
    board.now_ms = 2_000_001 + TOLD_MS
    assert board.look().over == ["pin-a"]


def test_a_load_wanted_once_that_finds_no_room_in_its_time_has_failed():
    board = PinBoard().engine(engine_info())
    board.submit("b")
    board.decide()
    board.wants(pin(once=True, created_ms=board.now_ms, until_ms=board.now_ms + 900_000))
    assert board.status().state is PinState.WAITING
    board.later(901)
    status = board.status()
    assert status.state is PinState.FAILED
    assert status.reason.startswith("it was not loaded within 15 min: box-cpu-0 is busy")
    board.later(TOLD_MS / 1000)
    assert board.look().over == ["pin-a"]


def test_a_load_wanted_once_that_fails_says_so_and_is_not_tried_again():
    board = PinBoard().engine(engine_info()).wants(pin(once=True, until_ms=9_000_000))
    board.look()
    board.ends(engine_info(), LoadState.FAILED, error="No such model.")
    board.later(600)
    status = board.status()
    assert (status.state, loads(board.look())) == (PinState.FAILED, [])
    assert status.reason == "loading on box-cpu-0 failed: No such model."


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"workers": ("nowhere",)}, "workers: ['nowhere'] is unknown; known: box-gpu-0"),
        (
            {"needs": gpu_needs(30)},
            "no worker has 30.0 GB of GPU memory; the largest is box-gpu-0 with 24.0 GB",
        ),
        (
            {"needs": gpu_needs(20)},
            "22.0 GB are needed; of its 24.0 GB 6.0 GB are in use by other programs, 0.0 GB are pinned",
        ),
        ({"copies": 2}, "2 copies are wanted, and 1 worker can hold one each"),
    ],
    ids=["no worker of that name", "no device so large", "others hold the memory", "too many copies"],
)
def test_a_pin_that_cannot_be_satisfied_says_why(fields, reason):
    info = engine_info(gpus=(24,))
    vram = {"box-gpu-0": VramState(other_bytes=int(6 * GB))}
    board = PinBoard().engine(info, vram=vram).wants(pin(**fields))
    board.look()
    status = board.status()
    assert reason in status.reason


def test_a_pin_takes_the_first_worker_that_becomes_free_before_tasks_do():
    board = PinBoard().engine(engine_info())
    task = board.submit("b")
    board.decide()
    board.wants(pin())
    assert board.status().reason.startswith("box-cpu-0 is busy for")
    board.run(task)
    board.finish(task, run_s=1.0, load_s=1.0)
    assert loads(board.look()) == [("box-cpu-0", "a")]


def test_copies_and_named_workers():
    info = engine_info(workers=3)
    board = PinBoard().engine(info).wants(pin(copies=2))
    assert len(loads(board.look())) == 2
    board = PinBoard().engine(info).wants(pin(workers=("box-cpu-2", "box-cpu-1")))
    assert sorted(loads(board.look())) == [("box-cpu-1", "a"), ("box-cpu-2", "a")]
    board = PinBoard().engine(info).wants(pin(workers=("box",)))
    assert len(loads(board.look())) == 3
    board = PinBoard().engine(info).wants(pin(workers=("box-cpu-1", "typo")))
    board.look()
    board.ends(info)
    status = board.status()
    assert (status.state, status.workers) == (PinState.LOADED, ("box-cpu-1",))
    assert status.reason == "workers: ['typo'] is unknown (stoker workers list)"


def test_an_engine_is_told_what_is_pinned_until_it_says_so():
    board = PinBoard().engine(BOX, [("box-cpu-0", "a")]).wants(pin())

    def told():
        plan = board.look()
        workers = [worker.id for worker in to_tell(plan, board.book, board.facts)]
        board.book.told |= {w: (board.book.pinned.get(w, frozenset()), board.now_ms) for w in workers}
        return workers

    assert told() == ["box-cpu-0"]
    assert told() == []
    board.later(RESEND_MS / 1000)
    assert told() == ["box-cpu-0"]  # the order was lost
    here = [resident("box-cpu-0", "a")]
    board.told(BOX, residents=here, pins={"box-cpu-0": ("a",)})
    board.later(RESEND_MS / 1000)
    assert told() == []
    board.book.pins.clear()
    assert told() == ["box-cpu-0"]


def test_a_new_leader_takes_over_the_loads_under_way():
    board = PinBoard().engine(engine_info()).wants(pin())
    place = {"worker_id": "box-cpu-0", "setup_key": "a", "app": "test/a"}
    under_way = LoadReport(id="load~x", **place, state=LoadState.WAITING)
    board.told(engine_info(), under_way)
    assert loads(board.look()) == []
    assert board.status().state is PinState.LOADING
    loading = resident("box-cpu-0", "a", ResidentState.LOADING)
    board.told(engine_info(), under_way, residents=[loading])
    assert board.status().state is PinState.LOADING
    board.ends(engine_info())
    assert board.status().state is PinState.LOADED
    assert board.mirror.fleet.workers["box-cpu-0"].residents["a"].app == "test/a"


@pytest.mark.parametrize("state", [LoadState.WAITING, LoadState.LOADING])
def test_a_load_wanted_once_that_a_new_leader_takes_over_may_still_fail(state):
    board = PinBoard().engine(engine_info()).wants(pin(once=True, until_ms=9_000_000))
    place = {"worker_id": "box-cpu-0", "setup_key": "a", "app": "test/a"}
    under_way = LoadReport(id="load~x", **place, state=state)
    loading = resident("box-cpu-0", "a", ResidentState.LOADING)
    board.told(engine_info(), under_way, residents=[loading])
    found = board.mirror.fleet.workers["box-cpu-0"].residents["a"]
    assert (found.phase, found.unused) == (Phase.LOADING, True)
    assert board.status().state is PinState.LOADING
    board.ends(engine_info(), LoadState.FAILED, error="No such model.")
    assert board.status().state is PinState.FAILED


def test_a_pin_whose_secret_was_deleted_says_so_and_lets_the_instance_go():
    board = PinBoard().engine(engine_info(), [("box-cpu-0", "a")]).wants(pin())
    board.look()
    board.book.retired = frozenset({"a"})
    plan = board.look()
    assert not plan.pinned
    assert "stoker secrets set" in plan.states["pin-a"].reason


def unloaded(board, keep_alives, rules=Rules()):  # noqa: B008 - frozen
    m = board.mirror
    found = decide_unload(board.now_ms, m.queues, m.fleet, rules, frozenset(), keep_alives)
    return [(evict.setup_key, evict.reason) for evict in found]


def test_keep_alive_counts_from_the_end_of_the_last_task():
    board = PinBoard().engine(engine_info())
    task = board.submit("a")
    board.decide()
    board.run(task)
    board.later(100)
    assert unloaded(board, {"test/a": 0}) == []  # it runs
    board.finish(task, run_s=100.0)
    assert unloaded(board, {"test/a": 60}) == []
    board.later(61)
    assert unloaded(board, {"test/a": 60}) == [("a", "not used for 60 s")]
    assert unloaded(board, {"test/b": 60}) == []
    assert unloaded(board, {"test/a": 100}, Rules(idle_unload_s=10)) == []


def test_keep_alive_of_nothing_ends_an_instance_with_its_last_task():
    board = PinBoard().engine(engine_info())
    task = board.submit("a")
    board.decide()
    board.run(task)
    board.finish(task, run_s=1.0)
    board.later(0.001)
    assert unloaded(board, {"test/a": 0}) == [("a", "its app is not kept after a task")]
    board.submit("a")
    assert unloaded(board, {"test/a": 0}) == []  # a task waits for it


def test_keep_alive_ends_neither_a_pinned_instance_nor_one_that_waits_for_its_first_task():
    board = PinBoard().engine(engine_info(), [("box-cpu-0", "a")]).wants(pin())
    board.look()
    board.later(1000)
    assert unloaded(board, {"test/a": 0}) == []
    board = PinBoard().engine(engine_info()).wants(pin(once=True, until_ms=9_000_000))
    board.look()
    board.ends(engine_info())
    board.later(1000)
    assert unloaded(board, {"test/a": 0}) == []
    task = board.submit("a")
    board.decide()
    board.run(task)
    board.mirror.on_finished(task, TaskState.COMPLETED, Measures(run_s=1.0), board.now_ms)
    board.later(1)
    assert [key for key, _ in unloaded(board, {"test/a": 0})] == ["a"]


def test_a_status_is_equal_to_itself():
    """What has not changed is not written again."""
    board = PinBoard().engine(BOX, [("box-cpu-0", "a")]).wants(pin())
    assert board.status() == board.status() == PinStatus(state=PinState.LOADED, workers=("box-cpu-0",))
