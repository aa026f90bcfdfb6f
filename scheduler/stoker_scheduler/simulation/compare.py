"""Several policies on one trace and one fleet."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from stoker.core.errors import CallerError
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import UNLIMITED, Bound, bounds_of
from stoker_scheduler.simulation.engine import Outcome, Policy, Simulation, SimWorker, workers_of
from stoker_scheduler.simulation.fleet_file import GB, FleetFile, instance_sizes, load_times
from stoker_scheduler.simulation.live import Live
from stoker_scheduler.simulation.rules import LeastLoaded, Random, WaitOrLoad, WarmFirst
from stoker_scheduler.simulation.summary import Summary, summary_of
from stoker_scheduler.simulation.trace import Request

OURS: Final = "stoker"
_LIMITLESS_GB: Final = 10**6


class UnknownPolicy(CallerError):
    """There is no such policy."""

    code = "unknown_policy"


class ModelTooLarge(CallerError):
    """A model of the trace fits on no worker of the fleet."""

    code = "model_too_large"


POLICIES: Final[dict[str, Callable[[Sequence[SimWorker], Rules, int], Policy]]] = {
    "random": lambda workers, _, seed: Random(workers, seed),
    "least-loaded": lambda workers, _, seed: LeastLoaded(workers, seed),
    "warm-first": lambda workers, _, seed: WarmFirst(workers, seed),
    "wait-or-load": lambda workers, _, seed: WaitOrLoad(workers, seed),
    OURS: lambda workers, rules, _: Live(workers, rules),
}


def check_policies(names: Iterable[str]) -> None:
    """That there are policies of these names.

    Raises:
        UnknownPolicy: names those that there are.
    """
    for name in names:
        if name not in POLICIES:
            raise UnknownPolicy(f"'{name}' is no policy; there are: {', '.join(POLICIES)}")


def play(requests: Sequence[Request], fleet: FleetFile, policy: str, rules: Rules, seed: int = 0) -> Outcome:
    """One run.

    Raises:
        UnknownPolicy: names those that there are.
        ModelTooLarge: names the model, what it takes, and what the largest worker has.
    """
    check_policies([policy])
    workers = workers_of(fleet)
    simulation = Simulation(
        requests, workers, load_times(fleet.loads, seed), instance_sizes(fleet.sizes, seed), fleet.loads
    )
    largest = max(simulation.jobs, key=lambda job: job.size)
    capacity = max(worker.capacity for worker in workers)
    if largest.size > capacity:
        raise ModelTooLarge(
            f"'{largest.request.setup}' takes {largest.size / GB:g} GB, and the largest worker of the fleet has "
            f"{capacity / GB:g} GB; give the fleet a larger one, or the models other sizes"
        )
    return simulation.run(POLICIES[policy](workers, rules, seed))


def compare(
    requests: Sequence[Request],
    fleet: FleetFile,
    policies: Iterable[str],
    rules: Rules,
    seed: int = 0,
    on_done: Callable[[Summary, Outcome], None] = lambda _summary, _outcome: None,
) -> list[Summary]:
    """Some policies, and the bound; `on_done` gets each as it is ready."""
    found = []
    for name in policies:
        outcome = play(requests, fleet, name, rules, seed)
        found.append(summary_of(name, outcome))
        on_done(found[-1], outcome)
    outcome = play(requests, limitless(fleet), OURS, rules, seed)
    found.append(summary_of(UNLIMITED, outcome))
    on_done(found[-1], outcome)
    return found


def distances(ours: Outcome, unlimited: Outcome, fleet: FleetFile, seed: int = 0) -> list[Bound]:
    """The bounds of a run of the scheduler's policy, and how far it is from them."""
    loads, sizes = load_times(fleet.loads, seed), instance_sizes(fleet.sizes, seed)
    return bounds_of(ours, unlimited, workers_of(fleet), loads, sizes)


def limitless(fleet: FleetFile) -> FleetFile:
    """The same workers, with memory for everything."""
    replace = msgspec.structs.replace
    return replace(
        fleet, machines=tuple(replace(each, vram_gb=_LIMITLESS_GB, models=0) for each in fleet.machines)
    )


def sweep(
    requests: Sequence[Request], fleet: FleetFile, counts: Iterable[int], rules: Rules, seed: int = 0
) -> list[Summary]:
    """The scheduler's policy with other numbers of workers: what one more would give."""
    return [
        summary_of(OURS, play(requests, fleet.with_workers(count), OURS, rules, seed)) for count in counts
    ]
