"""The parts that a decision stands on: queue index, fleet, matching, knowledge, deadlines."""

import msgspec
import pytest
from scheduling import engine_info, engine_view, gpu_needs, request, resident, slot, spec

from stoker.core.messages import EngineInfo, GpuType, Needs, SetupKey, TaskView
from stoker.core.states import ResidentState, TaskState
from stoker_scheduler.actions import Reason, Rules, Why
from stoker_scheduler.deadlines import (
    COMPACT_AT,
    Deadlines,
    Limits,
    deadline_of,
    overdue_unmatched,
)
from stoker_scheduler.durations import RECENT, Durations
from stoker_scheduler.eviction import decide_unload
from stoker_scheduler.fleet import Fleet, Held
from stoker_scheduler.knowledge import LOAD_PRIOR_S, MAX_KEYS, Knowledge
from stoker_scheduler.matching import explain, fits
from stoker_scheduler.mirror import AUDIT_MS, Mirror
from stoker_scheduler.queues import WINDOW, WINDOW_LOWER, Queues, Shape
from stoker_scheduler.residents import Phase

ANY = Shape(Needs(), ())
FETCH_S = 7_200


def fleet_of(*infos, **view):
    fleet = Fleet()
    for info in infos:
        fleet.update(engine_view(info, **view), 0)
    return fleet


def held(task="t", key="a", *, load_s=0.0, run_s=1.0, at_ms=0):
    return Held(task, SetupKey(key), "k1", "env", "test/a", 1, at_ms, load_s, run_s, Durations((run_s,)))


# Queues.


def test_tasks_alike_form_one_group_in_their_order():
    queues = Queues()
    first, second = spec("a"), spec("a")
    assert queues.add(first) == queues.add(second)
    assert list(queues.group_of(first.id).tasks) == [first.id, second.id]
    assert queues.backlog("a") == 2


@pytest.mark.parametrize(
    "field", [{"priority": 1}, {"key_id": "k2"}, {"workers": ("x",)}, {"needs": gpu_needs(1)}]
)
def test_tasks_that_differ_for_placement_form_two_groups(field):
    queues = Queues()
    assert queues.add(spec("a")) != queues.add(spec("a", **field))


def test_a_task_is_queued_once():
    queues, task = Queues(), spec("a")
    assert queues.add(task) == queues.add(task, front=True)
    assert len(queues) == 1


def test_a_requeued_task_is_first_again():
    queues, task = Queues(), spec("a")
    queues.add(spec("a"))
    queues.add(task, front=True)
    assert queues.group_of(task.id).head is task


def test_nothing_is_left_of_a_task_that_was_removed():
    queues = Queues()
    tasks = [spec("a", workers=("x", "x")), spec("b", priority=3), spec("c", needs=gpu_needs(1))]
    for task in tasks:
        queues.waits(queues.add(task), Reason(why=Why.NO_MATCH, worker_id="w"), 5)
    for task in tasks:
        assert queues.remove(task.id) is task
    assert queues.remove(tasks[0].id) is None
    left = [value for name, value in vars(queues).items() if name != "shares"]
    assert all(not value for value in left)


def test_a_window_is_bounded_and_rotates():
    queues = Queues()
    groups = [queues.add(spec(f"k{n}")) for n in range(WINDOW + 5)]
    first = [g.id for g in queues.window(ANY, set().__contains__)]
    assert first == groups[:WINDOW]
    for group_id in first:
        queues.waits(group_id, Reason(why=Why.ALL_BUSY), 0)
    assert next(iter(queues.window(ANY, set().__contains__))).id == groups[WINDOW]


def test_a_window_shows_lower_priorities_too():
    queues = Queues()
    for n in range(WINDOW + 5):
        queues.add(spec(f"high{n}", priority=1))
        queues.add(spec(f"low{n}"))
    seen = [g.priority for g in queues.window(ANY, set().__contains__)]
    assert (seen.count(1), seen.count(0)) == (WINDOW, WINDOW_LOWER)


def test_shapes_are_found_by_the_names_of_a_worker():
    queues = Queues()
    queues.add(spec("a"))
    queues.add(spec("b", workers=("box",)))
    queues.add(spec("c", workers=("other",)))
    assert [shape.workers for shape in queues.shapes(("box-cpu-0", "box"))] == [(), ("box",)]


def test_the_claim_on_a_worker_is_the_highest_priority_then_the_oldest():
    queues = Queues()
    young = queues.add(spec("a", created_ms=9))
    old = queues.add(spec("b", created_ms=5))
    high = queues.add(spec("c", created_ms=9, priority=1))
    for group_id, expected in ((young, young), (old, old), (high, high), (young, high)):
        queues.waits(group_id, Reason(why=Why.ALL_BUSY, worker_id="w"), 0)
        assert queues.claimant("w").id == expected
    queues.waits(high, Reason(why=Why.ALL_BUSY, worker_id="other"), 0)
    assert queues.claimant("w") is None


# Fleet.


def test_a_reported_resident_is_ready_and_found_by_its_setup():
    fleet = fleet_of(engine_info(), residents=[resident("box-cpu-0", "a")])
    assert list(fleet.idle_with.at("a")) == ["box-cpu-0"]


def test_a_draining_engine_is_in_no_index():
    fleet = fleet_of(engine_info(), residents=[resident("box-cpu-0", "a")], draining=True)
    assert not fleet.idle_with.at("a")
    assert not list(fleet.of_kind)


def test_a_load_that_was_ordered_survives_a_report_that_does_not_know_it():
    fleet = fleet_of(engine_info())
    worker = fleet.workers["box-cpu-0"]
    fleet.start(worker, held(load_s=10))
    fleet.update(engine_view(engine_info()), 1)
    assert worker.residents["a"].phase is Phase.LOADING
    assert list(fleet.holders.at("a")) == ["box-cpu-0"]


def test_an_eviction_that_was_ordered_is_believed_until_it_is_reported_or_old():
    fleet = fleet_of(engine_info(), residents=[resident("box-cpu-0", "b")])
    worker = fleet.workers["box-cpu-0"]
    fleet.start(worker, held(load_s=10, at_ms=1000), evict=["b"])
    still = engine_view(engine_info(), residents=[resident("box-cpu-0", "b")])
    fleet.update(still, 2000)
    assert worker.residents["b"].phase is Phase.STOPPING
    fleet.update(still, 1000 + 60_000)
    assert worker.residents["b"].phase is Phase.READY
    fleet.update(engine_view(engine_info()), 2000)
    assert "b" not in worker.residents


def test_a_late_report_of_a_load_that_has_ended_does_not_block_the_worker():
    fleet = fleet_of(engine_info())
    worker = fleet.workers["box-cpu-0"]
    fleet.start(worker, held(load_s=10))
    fleet.end("t", 5, warm=True)
    fleet.update(engine_view(engine_info(), residents=[resident("box-cpu-0", "a", ResidentState.LOADING)]), 6)
    assert list(fleet.idle_with.at("a")) == ["box-cpu-0"]


def test_a_lost_engine_holds_nothing():
    fleet = fleet_of(engine_info())
    fleet.start(fleet.workers["box-cpu-0"], held())
    assert fleet.lose("box") == ["box-cpu-0"]
    assert fleet.worker_of("t") is None
    assert not list(fleet.of_kind)
    assert fleet.lose("nobody") == []


def test_a_worker_that_is_no_longer_registered_is_forgotten():
    fleet = fleet_of(engine_info(workers=2))
    fleet.update(engine_view(engine_info(workers=1)), 0)
    assert list(fleet.workers) == ["box-cpu-0"]
    fleet.drop("box")
    assert not fleet.workers
    assert not list(fleet.named)


@pytest.mark.parametrize(
    ("load_s", "running_ms", "now_ms", "expected"),
    [
        (0, 0, 0, 4.0),
        (0, 0, 1000, 3.0),
        (0, 0, 100_000, 50.0),
        (10, 0, 2000, 12.0),
        (10, 0, 40_000, 24.0),
        (10, 9000, 10_000, 3.0),
    ],
    ids=["warm", "warm, later", "overrun", "loading", "load overrun", "runs after its load"],
)
def test_the_time_left_of_a_task(load_s, running_ms, now_ms, expected):
    task = held(load_s=load_s, run_s=4)
    task.running_ms = running_ms
    assert task.remaining_s(now_ms) == expected


def test_idle_workers_of_a_kind_come_emptiest_first():
    fleet = fleet_of(
        engine_info(workers=3), residents=[resident("box-cpu-0", "a"), resident("box-cpu-2", "b")]
    )
    [kind] = list(fleet.of_kind)
    assert [w.id for w in fleet.idle_of_kind(kind)] == ["box-cpu-1", "box-cpu-0", "box-cpu-2"]


# Matching.


@pytest.mark.parametrize(
    ("needs", "gpus", "ram_gb", "expected"),
    [
        (Needs(), (), 0, True),
        (Needs(gpu_type=GpuType.ANY), (), 0, True),
        (Needs(vram_bytes=1), (), 0, True),
        (gpu_needs(), (), 0, False),
        (gpu_needs(), (8,), 0, True),
        (gpu_needs(16), (8,), 0, False),
        (gpu_needs(16), (8, 8), 0, False),
        (gpu_needs(16, count=2), (8, 8), 0, True),
        (gpu_needs(1, gpu_type=GpuType.AMD), (8,), 0, False),
        (gpu_needs(1, gpu_type=GpuType.ANY), (8,), 0, True),
        (gpu_needs(ram_gb=16), (8,), 8, False),
        (gpu_needs(ram_gb=16), (8,), 0, True),
    ],
)
def test_what_fits(needs, gpus, ram_gb, expected):
    fleet = fleet_of(engine_info(gpus=gpus, ram_gb=ram_gb))
    [worker] = fleet.workers.values()
    assert fits(needs, worker.kind) is expected


def mixed():
    return fleet_of(engine_info("big", gpus=(16,), ram_gb=32), engine_info("small", 2, ram_gb=8))


@pytest.mark.parametrize(
    ("shape", "why", "text"),
    [
        (
            Shape(gpu_needs(24), ()),
            Why.NO_MATCH,
            "no worker has 24.0 GB of GPU memory; the largest is big-gpu-0 with 16.0 GB",
        ),
        (Shape(gpu_needs(1), ("small",)), Why.NO_MATCH, "no worker among ['small'] has a GPU"),
        (
            Shape(gpu_needs(1, count=2), ()),
            Why.NO_MATCH,
            "no worker has 2 nvidia GPUs; the largest is big-gpu-0 with 1",
        ),
        (
            Shape(gpu_needs(1, gpu_type=GpuType.AMD), ()),
            Why.NO_MATCH,
            "no worker has a GPU of type amd; there are: nvidia",
        ),
        (
            Shape(Needs(ram_bytes=64_000_000_000), ()),
            Why.NO_MATCH,
            "no worker has 64.0 GB of memory; the largest is big-gpu-0 with 32.0 GB",
        ),
        (
            Shape(Needs(), ("x", "y")),
            Why.NO_MATCH,
            "workers: ['x', 'y'] are unknown; known: big-gpu-0, small-cpu-0, small-cpu-1",
        ),
    ],
)
def test_what_is_missing_is_named(shape, why, text):
    reason = explain(shape, mixed())
    assert (reason.why, reason.text) == (why, text)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (Shape(Needs(), ("big-gpu-0",)), "workers: ['big-gpu-0'] is offline"),
        (Shape(gpu_needs(), ()), "the only worker that could run this, big-gpu-0, is offline"),
        (ANY, "all 3 workers that could run this are offline"),
    ],
)
def test_workers_that_are_away_are_named(shape, text):
    fleet = mixed()
    fleet.lose("big")
    fleet.lose("small")
    reason = explain(shape, fleet)
    assert (reason.why, reason.text) == (Why.UNAVAILABLE, text)


def test_an_engine_that_refused_is_not_answering():
    fleet = fleet_of(engine_info())
    fleet.suspect("box")
    assert explain(ANY, fleet).text == "the only worker that could run this, box-cpu-0, is not answering"
    assert fleet.suspects() == ["box"]


# Knowledge, shares, deadlines.


def test_an_unknown_setup_is_judged_by_its_app_then_by_the_prior():
    knowledge = Knowledge()
    assert knowledge.load_s("a", "x/app") == LOAD_PRIOR_S
    knowledge.learn_load("b", "x/app", 3.0)
    assert knowledge.load_s("a", "x/app") == 3.0
    assert not knowledge.knows_load("a")


def test_estimates_follow_the_newest_measurements():
    knowledge = Knowledge()
    for seconds in (10.0, 10.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        knowledge.learn_load("a", "", seconds)
    assert 2.0 < knowledge.load_s("a") < 3.0


def test_the_latest_runs_count_alike_and_older_ones_not_at_all():
    knowledge = Knowledge()
    knowledge.learn_run("a", "", 100.0)
    for _ in range(RECENT // 2):
        knowledge.learn_run("a", "", 1.0)
        knowledge.learn_run("a", "", 3.0)
    assert knowledge.run_s("a") == 2.0


@pytest.mark.parametrize(
    ("elapsed_s", "left_s"),
    [(0, 14.0), (1, 19.5), (2, 18.5), (12, 17.0), (28, 1.0), (29, 14.5), (40, 20.0)],
)
def test_what_a_run_still_takes_is_judged_by_those_that_took_longer(elapsed_s, left_s):
    assert Durations((29.0, 1.0, 12.0)).left_s(elapsed_s) == left_s


def test_knowledge_is_bounded():
    knowledge = Knowledge()
    for number in range(MAX_KEYS + 10):
        knowledge.learn_prepare(f"env{number}", 1.0)
    assert knowledge.prepare_s("env0") != 1.0
    assert knowledge.prepare_s(f"env{MAX_KEYS}") == 1.0


def test_deadlines_are_told_once_and_compacted():
    deadlines, queues = Deadlines(Limits()), Queues()
    waiting = spec("a", queue_timeout_s=5)
    queues.add(waiting)
    deadlines.add(waiting)
    for _ in range(COMPACT_AT + 5):
        deadlines.add(spec("a"))
    deadlines.compact(queues)
    assert len(deadlines) == 1
    assert deadlines.due(4_000) == []
    assert deadlines.due(6_000) == [waiting.id]
    assert deadlines.due(6_000) == []


def test_only_tasks_past_their_own_no_match_timeout_are_late():
    queues = Queues()
    old, young = spec("a", created_ms=1000), spec("a", created_ms=9000)
    queues.add(old)
    group_id = queues.add(young)
    reason = Reason(why=Why.NO_MATCH, text="none")
    queues.waits(group_id, reason, 2000)
    assert overdue_unmatched(602_000, queues, Limits()) == []
    assert overdue_unmatched(602_001, queues, Limits()) == [old.id]
    queues.waits(group_id, Reason(why=Why.ALL_BUSY), 602_001)
    assert overdue_unmatched(9_999_999, queues, Limits()) == []


def test_instances_idle_for_long_are_unloaded_unless_tasks_wait_for_them():
    fleet = fleet_of(engine_info(), residents=[resident("box-cpu-0", "a"), resident("box-cpu-0", "b")])
    queues, rules = Queues(), Rules(idle_unload_s=60)
    for found in fleet.workers["box-cpu-0"].residents.values():
        found.used_ms = 1000
    queues.add(spec("b"))
    assert decide_unload(61_000, queues, fleet, rules) == ()
    [evict] = decide_unload(61_001, queues, fleet, rules)
    assert (evict.setup_key, evict.reason) == ("a", "not used for 60 s")
    assert decide_unload(61_001, queues, fleet, Rules()) == ()


def test_idle_instances_of_a_retired_setup_are_unloaded_at_once_unless_tasks_wait_for_them():
    fleet = fleet_of(
        engine_info(),
        residents=[resident("box-cpu-0", "a"), resident("box-cpu-0", "b"), resident("box-cpu-0", "c")],
    )
    queues = Queues()
    queues.add(spec("b"))
    retired = frozenset({"a", "b", "unknown"})
    [evict] = decide_unload(1, queues, fleet, Rules(), retired)
    assert (evict.setup_key, evict.reason) == ("a", "a secret that it holds was changed or deleted")


def test_a_slot_may_move_to_another_engine():
    fleet = fleet_of(engine_info("old"))
    moved = slot("old", 0)
    fleet.update(
        engine_view(EngineInfo(id="new", name="new", version="1", hostname="h", workers=(moved,))), 0
    )
    assert fleet.workers["old-cpu-0"].engine.id == "new"
    assert not fleet.engines["old"].workers


def running_since(state, at_ms, **fields):
    asked = msgspec.structs.replace(request(spec("a")), **fields)
    history = ((1, 3, 500), (1, int(TaskState.PREPARING), 1_000), (1, int(state), at_ms))
    return TaskView(
        request=asked, state=state, attempt=1, created_ms=0, updated_ms=at_ms, worker_id="w", history=history
    )


@pytest.mark.parametrize(
    ("state", "fields", "code", "at_s"),
    [  # a part begins at 2 s, loading at 1 s; the grace is 120 s, and its worker may fetch for 2 hours
        (TaskState.SETTING_UP, {"setup_timeout_s": 10}, "setup_timeout", 1 + 10 + 120),
        (
            TaskState.SETTING_UP,
            {"setup_timeout_s": 10, "input_files": ("/a",)},
            "setup_timeout",
            1 + 10 + 120 + 7200,
        ),
        (TaskState.RUNNING, {"run_timeout_s": 10}, "run_timeout", 2 + 10 + 120),
        (
            TaskState.RUNNING,
            {"run_timeout_s": 10, "input_files": ("/a",)},
            "run_timeout",
            2 + 10 + 120 + 7200,
        ),
        (TaskState.UPLOADING, {"upload_timeout_s": 10}, "upload_timeout", 2 + 10 + 120),
    ],
)
def test_each_part_of_an_attempt_has_a_deadline_of_its_own(state, fields, code, at_s):
    found = deadline_of(running_since(state, 2_000, **fields), Limits(), FETCH_S)
    assert (found.code, found.at_ms) == (code, at_s * 1000)
    assert "10 s" in found.text


@pytest.mark.parametrize("state", [TaskState.SETTING_UP, TaskState.RUNNING, TaskState.UPLOADING])
def test_what_a_task_does_not_say_is_its_workers_to_keep(state):
    assert deadline_of(running_since(state, 2_000), Limits(), FETCH_S) is None


@pytest.mark.parametrize(
    ("fields", "hold_timeout_s", "limit_s"),
    [  # the defaults of loading and storing are an hour each, the grace is 120 s
        ({"setup_timeout_s": 900}, 100, 100),
        ({"run_timeout_s": 10}, 100, 3600 + 10 + 3600 + 120),
        ({"run_timeout_s": 10, "setup_timeout_s": 900, "upload_timeout_s": 30}, 100, 900 + 10 + 30 + 120),
        ({"run_timeout_s": 10, "input_files": ("/a",)}, 100, 7200 + 3600 + 10 + 3600 + 120),
        ({"run_timeout_s": 10}, 86_400, 86_400),  # the settings of a worker may be longer than the defaults
    ],
)
def test_a_task_may_be_held_for_all_its_parts_together(fields, hold_timeout_s, limit_s):
    asked = msgspec.structs.replace(request(spec("a")), **fields)
    assert Limits(hold_timeout_s=hold_timeout_s).hold_s(asked, FETCH_S) == limit_s


def test_the_time_in_the_queue_counts_from_when_a_task_was_queued_last():
    again = spec("a", created_ms=1_000, queued_ms=5_000)
    assert Limits(queue_timeout_s=10).queue_deadline_ms(again) == 15_000


def test_a_task_that_each_new_leader_takes_over_is_looked_at_at_its_own_time():
    mirror = Mirror(Rules(), Limits())
    mirror.on_engine(engine_view(engine_info()), 0)
    task = msgspec.structs.replace(running_since(TaskState.RUNNING, 2_000), worker_id="box-cpu-0")
    mirror.restore(task, "test/a", 50_000)
    assert mirror.fleet.held(task.request.id).audit_ms == 2_000 + AUDIT_MS
