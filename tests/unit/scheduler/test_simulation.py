"""The simulator: what it reads, that it keeps to what workers can do, and small stories with known numbers."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import Bug, InvalidRequest
from stoker_cli.simulate import counts
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import belady
from stoker_scheduler.simulation.compare import OURS, POLICIES, UNLIMITED, UnknownPolicy, compare, play, sweep
from stoker_scheduler.simulation.engine import Placement, Simulation, SimWorker, workers_of
from stoker_scheduler.simulation.fleet_file import (
    FleetFile,
    FleetUnreadable,
    Loads,
    Machine,
    Sizes,
    load_times,
    read_fleet,
)
from stoker_scheduler.simulation.page import page
from stoker_scheduler.simulation.summary import jain, summary_of, times
from stoker_scheduler.simulation.trace import Request, TraceUnreadable, faster, read_trace, shifted

ONE = FleetFile(
    machines=(Machine(count=1, vram_gb=24, models=1),), loads=Loads(base_s=10), sizes=Sizes(gb=12)
)
TWO = FleetFile(
    machines=(Machine(count=2, vram_gb=24, models=1),), loads=Loads(base_s=10), sizes=Sizes(gb=12)
)


def ask(*what):
    """Requests from (time, setup, seconds)."""
    return [Request(at_s=at, setup=setup, run_s=run, tenant="t") for at, setup, run in what]


def starts(outcome):
    return [(job.began_s, job.worker, job.load_s) for job in outcome.jobs]


# What it reads.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "at_s,setup,run_s,tenant,vram_gb\n5,a,1,x,2\n3,b,2,,\n"),
        (
            "t.jsonl",
            '{"at_s": 5, "setup": "a", "run_s": 1, "tenant": "x", "vram_gb": 2}\n\n{"at_s": 3, "setup": "b", "run_s": 2}\n',
        ),
    ],
)
def test_plain_traces_are_read_in_order_of_time(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    first, second = read_trace(tmp_path / name)
    assert (first.at_s, first.setup, first.run_s, first.tenant) == (0, "b", 2, "")
    assert (second.at_s, second.tenant, second.vram_bytes) == (2, "x", 2 * 10**9)


def test_a_published_trace_is_read_without_what_failed(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text(
        "gmt_create,predict_status,exec_time_seconds,groupId,checkpoint_model_version_id,num_lora\n"
        "2024-11-15 16:00:00,SUCCEED,32.0,G0,M0,0\n"
        "2024-11-15 16:00:10,FAILED,1.0,G0,M0,0\n"
        "2024-11-15 16:00:20,SUCCEED,43.0,G1,M0,2\n"
    )
    assert [(r.at_s, r.setup, r.run_s, r.tenant) for r in read_trace(path)] == [
        (0, "M0", 32, "G0"),
        (20, "M0/lora", 43, "G1"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.csv", "a,b\n1,2\n", "needs at_s, setup, run_s"),
        ("t.csv", "at_s,setup,run_s\n", "no request"),
        ("t.csv", "at_s,setup,run_s\n1,a,1\n2,b,-1\n", "line 3"),
        ("t.csv", "at_s,setup,run_s\n1,a,nan\n", "line 2"),
        ("t.jsonl", '{"at_s": 1}\n', "setup"),
        ("t.jsonl", "{\n", "line 1 .* no JSON"),
        ("t.jsonl", "[]\n", "no object"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_the_place(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(TraceUnreadable, match=told):
        read_trace(tmp_path / name)


def test_a_trace_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TraceUnreadable, match="cannot read"):
        read_trace(tmp_path / "none.csv")


def test_a_trace_can_be_made_faster_and_turned():
    requests = ask((0, "a", 1), (10, "b", 1), (19, "c", 1))
    assert [r.at_s for r in faster(requests, 2)] == [0, 5, 9.5]
    assert [(r.at_s, r.setup) for r in shifted(requests, 0.5)] == [(0, "b"), (9, "c"), (10, "a")]


def test_a_fleet_is_read_and_scaled(tmp_path):
    path = tmp_path / "fleet.yml"
    path.write_text(
        "machines:\n- {count: 6, vram_gb: 24}\n- {count: 2, vram_gb: 80, models: 4}\nloads: {base_s: 5}\n"
    )
    fleet = read_fleet(path)
    assert (fleet.workers, fleet.loads.base_s) == (8, 5)
    assert [machine.count for machine in fleet.with_workers(4).machines] == [3, 1]
    assert fleet.with_workers(5).workers == 5
    assert [machine.count for machine in fleet.with_workers(2).machines] == [1, 1]
    assert [machine.count for machine in fleet.with_workers(1).machines] == [1]
    for text in ("machines: []", "machines:\n- {cont: 1}", "machines:\n- {count: 0}", "- 1", ":"):
        path.write_text(text)
        with pytest.raises(FleetUnreadable):
            read_fleet(path)


def test_loads_are_drawn_alike_for_every_policy():
    drawn = load_times(Loads(quantiles_s=(1, 2, 3, 4), lora_s=10), seed=1)
    assert [drawn(n, "m") for n in range(50)] == [drawn(n, "m") for n in range(50)]
    assert {drawn(n, "m") for n in range(50)} == {1, 2, 3, 4}
    assert drawn(3, "m/lora") == drawn(3, "m") + 10


# Small stories.


@pytest.mark.parametrize("policy", POLICIES)
def test_the_second_task_of_a_setup_is_warm(policy):
    outcome = play(ask((0, "a", 5), (100, "a", 5)), ONE, policy, Rules())
    assert starts(outcome) == [(10, "gpu-0", 10), (100, "gpu-0", 0)]
    assert (outcome.loads, outcome.evictions) == (1, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_load_that_takes_no_time_is_a_load(policy):
    at_once = FleetFile(machines=ONE.machines, loads=Loads(base_s=0), sizes=ONE.sizes)
    outcome = play(ask((0, "a", 5), (100, "b", 5), (200, "b", 5)), at_once, policy, Rules())
    assert [job.warm for job in outcome.jobs] == [False, False, True]
    assert summary_of(policy, outcome).loads == 2


@pytest.mark.parametrize("policy", POLICIES)
def test_another_setup_takes_the_place_of_the_first(policy):
    outcome = play(ask((0, "a", 5), (100, "b", 5), (200, "a", 5)), ONE, policy, Rules())
    assert (outcome.loads, outcome.evictions, outcome.returns) == (3, 2, 1)


@pytest.mark.parametrize("policy", [OURS, "wait-or-load"])
def test_a_task_waits_for_a_worker_that_is_soon_free(policy):
    learned = [(0, "a", 2), (100, "a", 2), (200, "a", 2)]
    outcome = play(ask(*learned, (300, "a", 2), (300, "a", 2)), TWO, policy, Rules())
    assert outcome.loads == 1
    assert outcome.jobs[-1].began_s == 302


@pytest.mark.parametrize("policy", [OURS, "wait-or-load"])
def test_a_second_copy_is_loaded_where_waiting_is_longer(policy):
    learned = [(0, "a", 60), (100, "a", 60), (200, "a", 60)]
    outcome = play(ask(*learned, (300, "a", 60), (300, "a", 60)), TWO, policy, Rules())
    assert outcome.loads == 2
    assert outcome.jobs[-1].began_s == 310


def test_an_order_that_does_not_fit_ends_the_run():
    class Cheat:
        ticks = False

        def __init__(self, workers):
            self.worker, self.jobs = workers[0], []

        def arrived(self, job, now_s):
            self.jobs.append(job)

        def began(self, job, now_s):
            pass

        ended = began

        def decide(self, now_s):
            jobs, self.jobs = self.jobs, []
            return [Placement(job, self.worker) for job in jobs]

    workers = workers_of(ONE)
    simulation = Simulation(ask((0, "a", 1), (0, "b", 1)), workers, lambda *_: 1.0, lambda _: 12 * 10**9)
    with pytest.raises(Bug, match="b does not fit on gpu-0"):
        simulation.run(Cheat(workers))


requests = st.lists(
    st.tuples(st.integers(0, 600), st.sampled_from("abcd"), st.integers(0, 40), st.sampled_from("xy")),
    min_size=1,
    max_size=60,
)


@settings(max_examples=25)
@given(requests, st.sampled_from(list(POLICIES)), st.integers(1, 3), st.integers(1, 3))
def test_every_task_runs_once_and_a_worker_does_one_thing_at_a_time(found, policy, workers, models):
    trace = [Request(at_s=at, setup=setup, run_s=run, tenant=who) for at, setup, run, who in sorted(found)]
    fleet = FleetFile(
        machines=(Machine(count=workers, vram_gb=24, models=models),), sizes=Sizes(gb=24 / models)
    )
    outcome = play(trace, fleet, policy, Rules())
    assert all(job.request.at_s <= job.assigned_s <= job.began_s <= job.ended_s for job in outcome.jobs)
    for worker in outcome.workers:
        spans = sorted(
            (s for s in outcome.spans if s.worker == worker.id), key=lambda s: (s.begin_s, s.end_s)
        )
        assert all(before.end_s <= after.begin_s + 1e-6 for before, after in pairwise(spans))
        assert len(worker.residents) <= models
    assert starts(outcome) == starts(play(trace, fleet, policy, Rules()))
    assert outcome.loads >= summary_of(policy, outcome).belady_loads


def test_a_first_instance_counts_with_what_it_was_measured_to_take():
    """Half of the device, and not a tenth more: the other half is free for what is known to need no more."""
    fleet = FleetFile(machines=(Machine(count=1, vram_gb=24),), loads=Loads(base_s=10), sizes=Sizes(gb=12))
    outcome = play(ask((0, "a", 5), (100, "b", 5), (200, "a", 5), (300, "b", 5)), fleet, OURS, Rules())
    assert [job.warm for job in outcome.jobs] == [False, False, False, True]


# Numbers and pictures.


def test_belady_evicts_what_is_wanted_again_last():
    def loads(sequence, places, **sizes):
        worker = SimWorker("w", 10, places)
        return sum(belady(sequence, dict.fromkeys(sequence, 1) | sizes, worker))

    assert loads("abcab", 2) == 4
    assert loads("abcabc", 2) == 4
    assert loads("aaa", 1) == 1
    assert loads("", 1) == 0
    assert loads("abab", 2, a=5, b=5) == 2
    assert loads("abab", 2, a=5, b=6) == 4


def test_fairness_and_quantiles():
    assert jain([3, 3, 3]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 1
    found = times(range(1, 101))
    assert (found.mean, found.p50, found.p95, found.p99, found.max) == (50.5, 50, 95, 99, 100)
    found = times(range(1, 102))
    assert (found.p50, found.p95, found.p99) == (51, 96, 100)
    assert {times(range(1, 20 * n + 1)).p95 for n in (1, 3, 11)} == {19, 57, 209}
    assert times([7]).p99 == 7


def test_policies_are_compared_with_a_bound_and_drawn():
    trace = ask(*((n * 7, "abc"[n % 3], 10) for n in range(60)))
    drawn = {}
    found = compare(trace, TWO, ["random", OURS], Rules(), on_done=lambda s, o: drawn.update({s.policy: o}))
    assert [each.policy for each in found] == ["random", OURS, UNLIMITED]
    assert found[-1].loads <= 6
    assert found[1].overhead.mean <= found[0].overhead.mean
    html = page("a <title>", found, [], {OURS: drawn[OURS]}, OURS, UNLIMITED)
    assert "<title>a &lt;title&gt;</title>" in html
    assert html.count("<svg") == html.count("</svg>") == 4
    assert "gpu-1" in html
    assert "src=" not in html
    assert "href=" not in html


def test_more_workers_are_swept():
    trace = ask(*((n, "a", 10) for n in range(30)))
    found = sweep(trace, ONE, [1, 2, 4], Rules())
    assert [each.workers for each in found] == [1, 2, 4]
    assert found[0].overhead.mean > found[2].overhead.mean


def test_an_unknown_policy_is_told():
    with pytest.raises(UnknownPolicy, match="wait-or-load"):
        play(ask((0, "a", 1)), ONE, "best", Rules())


def test_what_to_sweep():
    assert list(counts("workers=4..6")) == [4, 5, 6]
    assert list(counts("workers=4..16:4")) == [4, 8, 12, 16]
    for text in ("4..6", "workers=6..4", "workers=0..4", "workers=1..9:0", "workers=1..1000"):
        with pytest.raises(InvalidRequest):
            counts(text)


def test_a_report_for_programs_is_json(tmp_path, capsys):
    from stoker_cli.simulate import simulate

    trace = tmp_path / "t.csv"
    trace.write_text("at_s,setup,run_s\n0,a,1\n50,a,1\n")
    simulate(
        trace,
        fleet=None,
        speed=1.0,
        policy=[OURS],
        sweep_over="",
        html=tmp_path / "r.html",
        seed=0,
        json=True,
    )
    ours, bound = json.loads(capsys.readouterr().out)["policies"]
    assert (ours["policy"], ours["loads"], bound["policy"]) == (OURS, 1, UNLIMITED)
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
