"""The simulator's clock and its rules: they do not look at what cannot change, and decide as if they did."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.engine import Simulation, workers_of
from stoker_scheduler.simulation.fleet_file import GB, FleetFile, Loads, Machine, Sizes
from stoker_scheduler.simulation.live import Live
from stoker_scheduler.simulation.rules import WaitOrLoad
from stoker_scheduler.simulation.synthetic import synthetic
from stoker_scheduler.simulation.trace import Request

pytestmark = pytest.mark.unit

ONE = FleetFile(machines=(Machine(count=1, vram_gb=24, models=1),))
MIXED = FleetFile(machines=(Machine(count=1, vram_gb=24), Machine(count=1, vram_gb=80)))
THREE = FleetFile(machines=(Machine(count=3, vram_gb=24, models=2),), sizes=Sizes(gb=10))


def ask(*what):
    return [Request(at_s=at, setup=setup, run_s=run, tenant="t") for at, setup, run in what]


def played(make, fleet, trace, size=10 * GB):
    """(what the policy is afterwards, when each job began where)."""
    workers = workers_of(fleet)
    policy = make(workers)
    outcome = Simulation(trace, workers, lambda *_: 10.0, lambda _: size).run(policy)
    return policy, [(job.began_s, job.worker, job.load_s) for job in outcome.jobs]


class Clocked(Live):
    """Counts its ticks."""

    def __init__(self, workers):
        super().__init__(workers, Rules())
        self.ticked = 0

    def tick(self, now_s):
        self.ticked += 1
        super().tick(now_s)


class Restless(Clocked):
    """Wants every tick."""

    def may_give(self, now_s):
        return True


@pytest.mark.parametrize(
    ("fleet", "size"), [(ONE, 10 * GB), (MIXED, 60 * GB)], ids=["all busy", "the idle one is too small"]
)
def test_no_second_is_counted_while_nothing_can_start(fleet, size):
    trace = ask(*((n, "ab"[n % 2], 1500) for n in range(4)))
    clocked, began = played(Clocked, fleet, trace, size)
    restless, same = played(Restless, fleet, trace, size)
    assert began == same
    assert clocked.ticked < 20
    assert restless.ticked > 4_000


@pytest.mark.parametrize("run_s", [23.0, 0.02])
@pytest.mark.parametrize("every_s", [3.0, 8.0])
def test_decisions_are_those_of_every_second(run_s, every_s):
    for seed in range(2):
        trace = synthetic(80, models=8, every_s=every_s, run_s=run_s, seed=seed)
        clocked, began = played(Clocked, THREE, trace)
        restless, same = played(Restless, THREE, trace)
        assert began == same
        assert clocked.ticked <= restless.ticked


class Walking(WaitOrLoad):
    """Looks at each job that waits, twice."""

    def decide(self, now_s):
        idle, claimed, found = self.idle(), {}, []
        for choose in (
            lambda job: self._warm(job, idle),
            lambda job: self._cold(job, idle, claimed, now_s),
        ):
            for job in list(self.waiting.values()):
                if idle and (worker := choose(job).worker) is not None:
                    idle.remove(worker)
                    self._busy[worker.id].append(job)
                    self._lines[job.request.setup].remove(job)
                    found.append(self.give(job, worker))
        return found


some = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from("abcd"), st.integers(0, 40)), min_size=1, max_size=60
)


@settings(max_examples=40)
@given(some, st.integers(1, 3), st.integers(1, 2))
def test_wait_or_load_decides_as_if_it_looked_at_every_job(found, workers, models):
    fleet = FleetFile(
        machines=(Machine(count=workers, models=models), Machine(vram_gb=9)), loads=Loads(base_s=10)
    )
    trace = ask(*sorted(found))
    assert played(WaitOrLoad, fleet, trace)[1] == played(Walking, fleet, trace)[1]


class Counted(WaitOrLoad):
    """Counts the jobs that it looks at."""

    looks = 0

    def _warm(self, *args):
        self.looks += 1
        return super()._warm(*args)

    def _cold(self, *args):
        self.looks += 1
        return super()._cold(*args)


def test_wait_or_load_looks_at_each_job_a_few_times():
    trace = ask((0, "a", 1), *((1, "b", 1) for _ in range(200)), *((2, "a", 1) for _ in range(200)))
    assert played(Counted, ONE, trace)[0].looks < 4 * len(trace)
