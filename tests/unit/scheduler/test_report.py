"""The report of a simulation: what was loaded when, its charts, and the comparison over shifts with its intervals."""

import json
import math
import re
from pathlib import Path

import msgspec
import pytest

from stoker.core.errors import InvalidRequest
from stoker_cli.simulate import LoadsFrom, compare_shifts, simulate, sizes_of
from stoker_cli.simulation_view import ranged
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.charts import (
    COLOURS,
    LANES_MAX,
    OTHERS,
    Palette,
    Window,
    copies,
    lanes_of,
    residents,
)
from stoker_scheduler.simulation.compare import OURS, POLICIES, UnknownPolicy, play
from stoker_scheduler.simulation.engine import Job, Outcome, Simulation, SimWorker, Stay, workers_of
from stoker_scheduler.simulation.fleet_file import (
    FleetFile,
    Loads,
    LoadsUnreadable,
    Machine,
    Sizes,
    load_times,
    measured_loads,
    read_fleet,
)
from stoker_scheduler.simulation.shifts import Interval, interval, rows_of, run, shifts_of, student_t
from stoker_scheduler.simulation.summary import copies_over_time, waiting_over_time
from stoker_scheduler.simulation.synthetic import synthetic
from stoker_scheduler.simulation.trace import Request

FLEETS = Path(__file__).parents[3] / "examples" / "fleets"
ONE = FleetFile(
    machines=(Machine(count=1, vram_gb=24, models=1),), loads=Loads(base_s=10), sizes=Sizes(gb=12)
)
WINDOW = Window(0, 100)


def ask(*what):
    return [Request(at_s=at, setup=setup, run_s=run) for at, setup, run in what]


# What was loaded when.


def test_an_instance_stays_from_its_load_to_its_eviction_or_the_end():
    outcome = play(ask((0, "a", 5), (100, "b", 5), (200, "b", 5)), ONE, OURS, Rules())
    assert outcome.stays == [Stay("gpu-0", "a", 0, 100), Stay("gpu-0", "b", 100, 205)]


def test_what_was_loaded_before_the_trace_began_stays_from_its_begin():
    workers = workers_of(ONE)
    workers[0].residents["a"] = 12 * 10**9
    policy = POLICIES[OURS](workers, Rules(), 0)
    trace = ask((0, "a", 5), (100, "b", 5))
    outcome = Simulation(trace, workers, lambda *_: 10.0, lambda _: 12 * 10**9).run(policy)
    assert outcome.stays == [Stay("gpu-0", "a", 0, 100), Stay("gpu-0", "b", 100, 115)]
    assert [job.warm for job in outcome.jobs] == [True, False]


def test_copies_are_counted_as_long_as_they_were_there():
    stays = [Stay("w", "a", 0, 10), Stay("v", "a", 5, 10), Stay("v", "b", 0, 5), Stay("w", "b", 10, 20)]
    assert copies_over_time(stays, 20, 2, str) == [{"a": 1.5, "b": 0.5}, {"a": 0, "b": 1}]
    assert copies_over_time(stays, 20, 1, lambda _: "all") == [{"all": 1.5}]


def waited(*from_to):
    return [
        Job(number, Request(at_s=at_s, setup="a", run_s=1), 1, assigned_s=until_s)
        for number, (at_s, until_s) in enumerate(from_to)
    ]


def test_tasks_that_wait_are_counted_also_where_nothing_happens():
    jobs = waited((0, 100), (10, 70), (10, 10))
    assert waiting_over_time(jobs, 10) == list(
        zip(range(0, 101, 10), [1, 2, 2, 2, 2, 2, 2, 1, 1, 1, 0], strict=True)
    )
    assert [count for _, count in waiting_over_time(waited((0, 35), (35, 100), (40, 42)), 5)] == [
        1,
        1,
        2,
        1,
        1,
        0,
    ]
    assert waiting_over_time(waited((0, 0)), 2) == [(0, 0), (0.5, 0), (1, 0)]


def test_bands_share_a_lane_when_one_follows_the_other():
    first, second, third = Stay("w", "a", 0, 10), Stay("w", "b", 0, 30), Stay("w", "c", 10, 20)
    assert lanes_of([third, second, first]) == [[first, third], [second]]
    assert lanes_of([]) == []


# Charts.


def outcome_of(stays, workers):
    return Outcome([], [SimWorker(name, 1, 1) for name in workers], stays=stays)


def test_the_models_with_most_tasks_have_a_colour_each():
    tasks = [(number, f"m{setup:02}", 0) for setup in range(COLOURS + 2) for number in range(20 - setup)]
    palette = Palette([play(ask(*sorted(tasks)), ONE, "random", Rules())])
    assert [palette.css(f"m{n:02}") for n in (0, COLOURS - 1, COLOURS, COLOURS + 1)] == [
        "m0",
        "m9",
        "m10",
        "m10",
    ]
    assert palette.layers()[0] == ("m0", "m00")
    assert palette.layers()[-1] == ("m10", OTHERS)
    assert palette.legend().count("<i ") == COLOURS + 1
    assert f"2 {OTHERS}" in palette.legend()


def test_a_model_that_is_called_others_is_drawn_once():
    tasks = [(number, setup, 1) for number, setup in enumerate([OTHERS] * 3 + list("abcdefghijk") * 2)]
    outcome = play(ask(*tasks), ONE, "random", Rules())
    chart = copies(outcome, Palette([outcome]))
    assert re.findall(r'class="(m\d+) piece"', chart) == [f"m{number}" for number in range(COLOURS + 1)]


def test_a_band_has_its_name_where_there_is_room():
    stays = [Stay("w", "<a>", 0, 60), Stay("w", "a-name-of-many-letters", 60, 61)]
    chart = residents(outcome_of(stays, ["w"]), WINDOW, Palette([]))
    assert re.findall(r'class="name"[^>]*>([^<]*)<', chart) == ["&lt;a&gt;"]
    assert chart.count("<rect") == 2
    assert "a-name-of-many-letters: loaded for 1 s" in chart


def test_what_has_no_room_on_a_screen_is_told():
    names = [f"w{number}" for number in range(LANES_MAX + 3)]
    chart = residents(outcome_of([Stay(name, "a", 0, 9) for name in names], names), WINDOW, Palette([]))
    assert chart.endswith('<p class="note">and 3 more workers</p>')


def test_time_outside_the_window_is_not_drawn():
    stays = [Stay("w", "gone", -50, 0), Stay("w", "a", -50, 50), Stay("w", "later", 100, 110)]
    chart = residents(outcome_of(stays, ["w"]), WINDOW, Palette([]))
    assert chart.count("<rect") == 1
    assert WINDOW.x(-50) == WINDOW.x(0)


# Shifts.


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (9, 2.262), (11, 2.201), (19, 2.093), (30, 2.042), (99, 1.984)]
)
def test_the_quantiles_of_student(degrees, expected):
    assert student_t(degrees) == pytest.approx(expected, abs=5e-4)


def test_an_interval_of_pairs():
    found = interval([1.0, 2.0, 3.0])
    half = 4.3027 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert interval([0.5, 0.5]) == Interval(mean=0.5, low=0.5, high=0.5)
    assert ranged(Interval(mean=-1, low=-2.5, high=0.5), 1) == "-1.0 [-2.5, +0.5]"


def test_policies_are_compared_shift_by_shift():
    trace = synthetic(200, models=6, every_s=20, seed=1)
    runs = shifts_of(trace, ONE.with_workers(3), ["random"], Rules(), 4)
    assert [(each.policy, each.share) for each in runs[:3]] == [("random", 0), (OURS, 0), ("random", 0.25)]
    found = [run(each) for each in runs]
    random, ours = rows_of(found)
    assert (random.policy, ours.policy, random.shifts) == ("random", OURS, 4)
    pairs = [(found[n].overhead.mean, found[n + 1].overhead.mean) for n in range(0, 8, 2)]
    assert random.mean_diff == interval([his - our for his, our in pairs])
    assert random.ours_lower == interval([1 - our / his for his, our in pairs])
    assert ours.mean_diff == Interval(mean=0, low=0, high=0)
    assert ours.better_in == ()
    assert random.mean_s == pytest.approx(sum(his for his, _ in pairs) / 4)


def test_a_policy_that_is_better_is_told():
    trace = ask((0, "a", 1), (1, "a", 1))
    found = [
        msgspec.structs.replace(each, loading_h=9.0) if each.policy == OURS else each
        for each in map(run, shifts_of(trace, ONE, ["random"], Rules(), 2))
    ]
    assert rows_of(found)[0].better_in == ("loading",)


def test_processes_give_what_one_gives():
    trace = synthetic(60, models=4, seed=2)
    assert compare_shifts(trace, ONE, ["random"], 2, processes=2) == compare_shifts(
        trace, ONE, ["random"], 2, processes=1
    )


def test_a_synthetic_trace_is_repeatable_and_in_order():
    trace = synthetic(300, models=5, tenants=3, seed=4)
    assert trace == synthetic(300, models=5, tenants=3, seed=4) != synthetic(300, models=5, tenants=3, seed=5)
    assert (len(trace), trace[0].at_s) == (300, 0)
    assert trace == sorted(trace, key=lambda request: request.at_s)
    assert len({request.setup for request in trace}) <= 5
    assert len({request.tenant for request in trace}) <= 3


# Loads and sizes.


def test_measured_loads_are_drawn_from_the_table_beside_the_trace(tmp_path):
    table = tmp_path / "load_latency_quantiles.csv"
    table.write_text("quantile,base_model_ms,lora_ms\n0.01,1000,100\n0.02,2000,200\n")
    loads = measured_loads(tmp_path / "requests.csv")
    assert loads == Loads(quantiles_s=(1.0, 2.0), lora_quantiles_s=(0.1, 0.2))
    drawn = load_times(loads, seed=0)
    assert {drawn(number, "m") for number in range(50)} == {1.0, 2.0}
    assert {round(drawn(number, "m/lora"), 1) for number in range(80)} == {1.1, 1.2, 2.1, 2.2}
    assert [drawn(number, "m/lora") for number in range(9)] == [
        drawn(number, "m/lora") for number in range(9)
    ]


@pytest.mark.parametrize(
    "text", [None, "quantile\n0.1\n", "base_model_ms,lora_ms\n1,x\n", "base_model_ms,lora_ms\n"]
)
def test_a_table_of_loads_that_is_none_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "load_latency_quantiles.csv").write_text(text)
    with pytest.raises(LoadsUnreadable, match=r"load_latency_quantiles\.csv"):
        measured_loads(tmp_path / "requests.csv")


@pytest.mark.parametrize("path", sorted(FLEETS.glob("*.yml")), ids=lambda path: path.stem)
def test_the_fleets_of_the_examples_can_be_read(path):
    fleet = read_fleet(path)
    assert path.stem.startswith(f"{fleet.workers}-")


def test_sizes_are_one_or_a_range():
    assert sizes_of("12") == Sizes(gb=12)
    assert sizes_of("4..24") == Sizes(gb=4, to_gb=24)
    assert sizes_of("4.5..24") == Sizes(gb=4.5, to_gb=24)
    for text in ("", "24..4", "0..4", "4-24", "4..", "x"):
        with pytest.raises(InvalidRequest, match="--sizes"):
            sizes_of(text)


# The command.


@pytest.fixture
def trace_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("at_s,setup,run_s\n0,a,1\n50,a,1\n90,b,1\n")
    (tmp_path / "load_latency_quantiles.csv").write_text("base_model_ms,lora_ms\n7000,1\n")
    return path


def test_the_command_prints_the_comparison_over_shifts(trace_file, capsys):
    simulate(trace_file, shifts=2, policy=["random"], loads=LoadsFrom.MEASURED, processes=1, json=True)
    random, ours = json.loads(capsys.readouterr().out)
    assert (random["policy"], ours["policy"], ours["shifts"]) == ("random", OURS, 2)
    assert ours["loading_h"] == pytest.approx(14 / 3600)
    simulate(trace_file, shifts=2, policy=["random"], processes=1)
    assert "means of 2 shifts" in capsys.readouterr().out


def test_the_command_prints_the_bounds(trace_file, capsys):
    simulate(trace_file, policy=[OURS], sizes="4..6", json=True)
    answer = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in answer["bounds"]] == [
        "no memory limit",
        "clairvoyant eviction",
        "exact optimum",
    ]
    simulate(trace_file, policy=[OURS])
    printed = capsys.readouterr().out
    assert "clairvoyant eviction" in printed
    assert "a task's total time" in printed


def test_what_does_not_go_together_is_refused(trace_file, tmp_path):
    with pytest.raises(InvalidRequest, match="one of them"):
        simulate(trace_file, shifts=2, html=tmp_path / "r.html")
    with pytest.raises(InvalidRequest, match="no interval of one"):
        simulate(trace_file, shifts=1)
    with pytest.raises(InvalidRequest, match="--sweep plays 'stoker' alone"):
        simulate(trace_file, sweep_over="workers=1..2", policy=["random"])


def test_the_scheduler_may_be_named_in_a_sweep(trace_file, capsys):
    simulate(trace_file, sweep_over="workers=1..2", policy=[OURS], json=True)
    assert [each["workers"] for each in json.loads(capsys.readouterr().out)] == [1, 2]


def test_an_unknown_policy_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UnknownPolicy, match="'best' is no policy"):
        simulate(tmp_path / "none.csv", policy=["random", "best"])
