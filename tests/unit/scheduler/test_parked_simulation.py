"""Parking in the simulator: what made room comes back sooner than it loads, as far as the memory of the machine goes."""

import msgspec
import pytest

from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import CLAIRVOYANT, EXACT, UNLIMITED
from stoker_scheduler.simulation.compare import OURS, POLICIES, distances, limitless, play
from stoker_scheduler.simulation.engine import Simulation, workers_of
from stoker_scheduler.simulation.fleet_file import (
    FleetFile,
    Loads,
    Machine,
    Sizes,
    instance_sizes,
    load_times,
    read_fleet,
)
from stoker_scheduler.simulation.parked import HostMemory
from stoker_scheduler.simulation.summary import summary_of
from stoker_scheduler.simulation.trace import Request

pytestmark = pytest.mark.unit

GIB = 1024**3
FLEET = FleetFile(
    machines=(Machine(count=1, vram_gb=24, models=1, host_gb=100),),
    loads=Loads(base_s=20, unpark_s=3, park_s=1),
    sizes=Sizes(gb=12),
)
TURNS = [Request(at_s=100.0 * n, setup="ab"[n % 2], run_s=1, tenant="t") for n in range(6)]


def with_host(gb):
    return msgspec.structs.replace(FLEET, machines=(msgspec.structs.replace(FLEET.machines[0], host_gb=gb),))


@pytest.mark.parametrize("policy", [OURS, "wait-or-load"])
def test_two_models_by_turns_are_loaded_once_each(policy):
    outcome = play(TURNS, FLEET, policy, Rules())
    assert [job.load_s for job in outcome.jobs] == [20, 21, 4, 4, 4, 4]
    assert [job.unparked for job in outcome.jobs] == [False, False, True, True, True, True]
    summary = summary_of(policy, outcome)
    assert (summary.loads, summary.unparks, summary.warm) == (2, 4, 0.0)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_memory_of_the_machine_nothing_is_parked(policy):
    outcome = play(TURNS, with_host(0), policy, Rules())
    assert [job.load_s for job in outcome.jobs] == [20] * 6
    assert outcome.unparks == 0


def test_bounds_that_know_nothing_of_parked_instances_are_not_printed_as_if_they_held():
    def known(fleet):
        ours, unlimited = (play(TURNS, each, OURS, Rules()) for each in (fleet, limitless(fleet)))
        return [bound.name for bound in distances(ours, unlimited, fleet) if not bound.note]

    assert known(FLEET) == [UNLIMITED]
    assert known(with_host(0)) == [UNLIMITED, CLAIRVOYANT, EXACT]


def test_what_does_not_fit_into_the_machines_memory_is_unloaded():
    outcome = play(TURNS, with_host(11), OURS, Rules())
    assert (outcome.loads, outcome.unparks) == (6, 0)


def test_what_a_trace_says_of_a_load_is_what_parking_the_instance_is_worth():
    """There is room for one: the dear one stays, though the fleet's file has one time for all."""
    loads = {"cheap": 2.0, "dear": 60.0, "third": 2.0}
    order = ("cheap", "dear", "third", "dear")
    trace = [
        Request(at_s=100.0 * n, setup=setup, run_s=1, load_s=loads[setup]) for n, setup in enumerate(order)
    ]
    outcome = play(trace, with_host(12), "warm-first", Rules())
    assert [job.unparked for job in outcome.jobs] == [False, False, False, True]


def test_the_scheduler_learns_the_way_back_apart_from_the_load():
    workers = workers_of(FLEET)
    live = POLICIES[OURS](workers, Rules(), 0)
    Simulation(TURNS, workers, load_times(FLEET.loads, 0), instance_sizes(FLEET.sizes, 0), FLEET.loads).run(
        live
    )
    knowledge = live.mirror.knowledge
    assert knowledge.unpark_s("a") == 4.0
    assert knowledge.load_s("a") == 20.0


def test_the_memory_of_a_machine_keeps_what_is_worth_most():
    host = HostMemory(capacity=20 * GIB)
    for _ in range(5):
        host.used("busy")
    assert host.put("busy", 10 * GIB, load_s=20)
    assert host.put("idle", 10 * GIB, load_s=20)
    assert host.put("dear", 10 * GIB, load_s=90)
    assert host.setups() == ("busy", "dear")
    assert not host.put("cheap", 10 * GIB, load_s=1)
    assert (host.take("busy"), host.take("busy")) == (True, False)
    assert host.setups() == ("dear",)


def test_old_worth_ages():
    """What was used much, and long ago, goes for what comes after many others."""
    host = HostMemory(capacity=10 * GIB)
    for _ in range(4):
        host.used("old")
    host.put("old", 10 * GIB, load_s=20)
    new = 0
    while "old" in host.setups():
        host.used("new")
        host.put("new", 10 * GIB, load_s=20)
        new += 1
    assert new > 1


def test_a_fleet_file_says_how_much_memory_its_machines_have(tmp_path):
    path = tmp_path / "fleet.yml"
    path.write_text("machines: [{count: 2, host_gb: 64}]\nloads: {unpark_s: 2, park_s: 1}\n")
    fleet = read_fleet(path)
    assert (fleet.machines[0].host_gb, fleet.loads.unpark_s, fleet.loads.park_s) == (64, 2, 1)
