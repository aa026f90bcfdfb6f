"""The measuring scripts that use the simulator: what they play is what they were asked for."""

import importlib
from argparse import Namespace
from pathlib import Path

import pytest

from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import EXACT
from stoker_scheduler.simulation.fleet_file import FleetFile, Loads, Machine
from stoker_scheduler.simulation.trace import Request

pytestmark = pytest.mark.unit


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "bench"))
    return importlib.import_module


def test_bounds_are_of_the_loads_that_were_drawn(script):
    fleet = FleetFile(machines=(Machine(),), loads=Loads(quantiles_s=tuple(range(1, 1000))))
    trace = [Request(at_s=0, setup="a", run_s=1)]
    found = {seed: script("policies").bounds(trace, fleet, Rules(), seed) for seed in (1, 2)}
    exact = {seed: next(each for each in bounds if each.name == EXACT) for seed, bounds in found.items()}
    assert exact[1].mean_s != exact[2].mean_s
    assert [each.above_s for each in exact.values()] == [0, 0]


def trace_of(script, path, rows, tasks, seed=0):
    path.write_text("at_s,setup,run_s\n" + "".join(f"{at_s},a,{run_s}\n" for at_s, run_s in rows))
    return script("live_and_simulated").trace_of(Namespace(trace=path, tasks=tasks, seeds=2, busy=0.5), seed)


def test_tasks_keep_the_workers_busy_for_the_share_that_was_asked_for(script, tmp_path):
    found = trace_of(script, tmp_path / "t.csv", [(n * 7, 60) for n in range(10)], tasks=8, seed=1)
    assert len(found) == 8
    assert sum(each.run_s for each in found) / 4 / found[-1].at_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(n, 1) for n in range(3)], "has 3 tasks; --tasks 4"),
        ([(5, 1)] * 4, "all at once"),
        ([(n, 0) for n in range(4)], "take no time"),
    ],
)
def test_tasks_without_a_pace_are_refused(script, tmp_path, rows, told):
    with pytest.raises(SystemExit, match=told):
        trace_of(script, tmp_path / "t.csv", rows, tasks=4, seed=1)
