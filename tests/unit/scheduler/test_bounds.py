"""What no policy can beat: the exact solver against every policy and against all plans, and what the report says."""

from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import CLAIRVOYANT, EXACT, UNLIMITED, clairvoyant, least_loads
from stoker_scheduler.simulation.compare import OURS, POLICIES, ModelTooLarge, distances, limitless, play
from stoker_scheduler.simulation.engine import workers_of
from stoker_scheduler.simulation.exact import TASKS_MAX, WORKERS_MAX, optimum
from stoker_scheduler.simulation.fleet_file import GB, FleetFile, Loads, Machine, Sizes
from stoker_scheduler.simulation.trace import Request

LOAD_S = 10.0


def fleet_of(workers, models=1, gb=12.0):
    return FleetFile(
        machines=(Machine(count=workers, vram_gb=24, models=models),),
        loads=Loads(base_s=LOAD_S, lora_s=0),
        sizes=Sizes(gb=gb),
    )


def ask(*what):
    return [Request(at_s=at, setup=setup, run_s=run) for at, setup, run in what]


def best(trace, fleet, size=lambda _setup: 12 * GB):
    return optimum(trace, workers_of(fleet), lambda _number, _setup: LOAD_S, size)


def mean_s(outcome):
    return sum(job.overhead_s for job in outcome.jobs) / len(outcome.jobs)


# Small plans with known numbers.


def test_the_optimum_turns_the_order_when_that_saves_a_load():
    trace = ask((0, "a", 1), (1, "b", 1), (2, "a", 1))
    found = best(trace, fleet_of(1))
    assert (found.loads, found.loading_s) == (2, 20)
    assert found.mean_s == pytest.approx((10 + (11 - 2) + (12 + 10 - 1)) / 3)


def test_the_optimum_keeps_what_is_wanted_again():
    trace = ask((0, "a", 1), (100, "b", 1), (200, "c", 1), (300, "a", 1), (400, "b", 1))
    assert best(trace, fleet_of(1, models=2)).loads == 4
    assert best(trace, fleet_of(1, models=3, gb=8), lambda _: 8 * GB).loads == 3


def test_the_optimum_minds_memory():
    trace = ask((0, "a", 1), (100, "b", 1), (200, "a", 1))
    sizes = {"a": 14 * GB, "b": 9 * GB}
    assert best(trace, fleet_of(1, models=2), sizes.__getitem__).loads == 2
    assert best(trace, fleet_of(1, models=2), {"a": 14 * GB, "b": 11 * GB}.__getitem__).loads == 3


def test_what_is_too_large_is_not_solved():
    trace = ask(*((n, "a", 1) for n in range(TASKS_MAX + 1)))
    assert best(trace, fleet_of(1)) is None
    assert best(trace[:2], fleet_of(WORKERS_MAX + 1)) is None
    assert best(trace[:2], fleet_of(1), lambda _: 25 * GB) is None
    assert best([], fleet_of(1)) is None


def every_plan_s(trace, workers, places):
    """The least sum of overheads over all plans, with nothing clever: all orders, all workers, all evictions."""
    least = float("inf")
    for order in permutations(range(len(trace))):
        for where in product(range(workers), repeat=len(trace)):
            for choices in product(range(places), repeat=len(trace)):
                least = min(least, played_s(trace, order, where, choices, workers, places))
    return least


def played_s(trace, order, where, choices, workers, places):
    free, loaded, spent_s = [0.0] * workers, [[] for _ in range(workers)], 0.0
    for number, choice in zip(order, choices, strict=True):
        request, at = trace[number], where[number]
        begin_s = max(free[at], request.at_s)
        if request.setup not in loaded[at]:
            if len(loaded[at]) == places:
                del loaded[at][choice]
            loaded[at].append(request.setup)
            begin_s += LOAD_S
        spent_s += begin_s - request.at_s
        free[at] = begin_s + request.run_s
    return spent_s


small = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(0, 20)), min_size=1, max_size=4
)
traces = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from("abcd"), st.integers(0, 30)), min_size=1, max_size=7
)


@settings(max_examples=15)
@given(small, st.integers(1, 2), st.integers(1, 2))
def test_the_optimum_is_that_of_all_plans(found, workers, places):
    trace = ask(*sorted(found))
    expected = every_plan_s(trace, workers, places) / len(trace)
    assert best(trace, fleet_of(workers, places)).mean_s == pytest.approx(expected)


@settings(max_examples=40)
@given(traces, st.integers(1, 3), st.integers(1, 3))
def test_no_policy_is_below_the_optimum_and_it_is_not_below_that_without_a_memory_limit(
    found, workers, models
):
    trace = ask(*sorted(found))
    fleet = fleet_of(workers, models, gb=24 / models / 1.1)
    size = int(24 / models / 1.1 * GB)
    least = best(trace, fleet, lambda _: size)
    assert best(trace, limitless(fleet), lambda _: size).mean_s <= least.mean_s + 1e-6
    for policy in POLICIES:
        assert mean_s(play(trace, fleet, policy, Rules())) >= least.mean_s - 1e-6, policy


@settings(max_examples=25)
@given(traces, st.integers(1, 3), st.integers(1, 3))
def test_clairvoyant_eviction_does_not_wait_longer_than_the_run_that_it_repeats(found, workers, models):
    outcome = play(ask(*sorted(found)), fleet_of(workers, models, gb=24 / models), "random", Rules())
    found_s, loads, loading_s = clairvoyant(outcome, lambda _number, _setup: LOAD_S)
    assert found_s <= mean_s(outcome) + 1e-6
    assert least_loads(outcome) <= min(loads, outcome.loads)
    assert loading_s == pytest.approx(loads * LOAD_S)


def test_models_of_different_sizes_count_as_the_smallest_for_the_least_loads():
    trace = [
        Request(at_s=at, setup=setup, run_s=1, vram_bytes=gb * GB)
        for at, setup, gb in ((0, "a", 4), (100, "b", 20), (200, "a", 4), (300, "b", 20), (400, "c", 20))
    ]
    outcome = play(trace, fleet_of(1, models=0), "least-loaded", Rules())
    assert least_loads(outcome) == 3
    assert clairvoyant(outcome, lambda _number, _setup: LOAD_S)[1] == outcome.loads == 3


sized = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from(["a4", "b8", "c12", "d16", "e20"]), st.integers(0, 30)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40)
@given(sized, st.integers(1, 2), st.sampled_from(["random", "warm-first", OURS]))
def test_clairvoyant_eviction_is_not_above_the_run_where_sizes_differ(found, workers, policy):
    trace = [
        Request(at_s=at, setup=setup, run_s=run, vram_bytes=int(setup[1:]) * GB)
        for at, setup, run in sorted(found)
    ]
    fleet = FleetFile(
        machines=(Machine(count=workers, vram_gb=24),),
        loads=Loads(base_s=LOAD_S, lora_s=0),
        sizes=Sizes(gb=4),
    )
    outcome = play(trace, fleet, policy, Rules())
    found_s, loads, _ = clairvoyant(outcome, lambda _number, _setup: LOAD_S)
    assert found_s <= mean_s(outcome) + 1e-6
    assert least_loads(outcome) <= loads


# What the report says.


def test_the_report_tells_the_distance_to_each_bound():
    trace = ask((0, "a", 5), (20, "b", 5), (40, "a", 5))
    fleet = fleet_of(1)
    ours = play(trace, fleet, OURS, Rules())
    found = {b.name: b for b in distances(ours, play(trace, limitless(fleet), OURS, Rules()), fleet)}
    assert list(found) == [UNLIMITED, CLAIRVOYANT, EXACT]
    assert all(bound.what and not bound.note for bound in found.values())
    assert found[CLAIRVOYANT].what.endswith("without 3 loads none can do")
    assert (found[UNLIMITED].loads, found[CLAIRVOYANT].loads) == (2, 3)
    assert found[EXACT].above_s == pytest.approx(mean_s(ours) - found[EXACT].mean_s)
    assert found[EXACT].above_s >= 0
    assert found[UNLIMITED].above_h == pytest.approx(10 / 3600)


def test_the_report_says_when_an_instance_is_too_large_for_the_exact_solver():
    trace = ask(*((n, "a", 1) for n in range(TASKS_MAX + 1)))
    fleet = fleet_of(2)
    ours = play(trace, fleet, OURS, Rules())
    exact = distances(ours, play(trace, limitless(fleet), OURS, Rules()), fleet)[-1]
    assert (exact.name, exact.mean_s) == (EXACT, 0)
    assert exact.note.startswith(f"too large for the exact solver: {TASKS_MAX + 1} tasks on 2 workers")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_model_goes_only_to_workers_that_can_hold_it(policy):
    fleet = FleetFile(machines=(Machine(count=2, vram_gb=24), Machine(count=1, vram_gb=80)))
    trace = [Request(at_s=n, setup="large", run_s=9, vram_bytes=40 * GB) for n in range(3)]
    outcome = play(
        [*trace, Request(at_s=4, setup="small", run_s=1, vram_bytes=4 * GB)], fleet, policy, Rules()
    )
    assert [job.worker for job in outcome.jobs[:3]] == ["gpu-2"] * 3
    assert outcome.jobs[3].began_s < outcome.jobs[2].began_s


def test_a_model_that_fits_nowhere_is_refused_with_the_sizes():
    with pytest.raises(
        ModelTooLarge, match=r"'a' takes 30 GB, and the largest worker of the fleet has 24 GB"
    ):
        play(ask((0, "a", 1)), fleet_of(1, gb=30), OURS, Rules())
