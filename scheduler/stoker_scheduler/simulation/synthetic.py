"""A made-up trace of the shape that traces of such services have: a few hot models, a long tail, bursts and days. Pure."""

import math
import random
from typing import Final

from stoker_scheduler.simulation.trace import Request

DAY_S: Final = 86_400.0
BURST: Final = 4
"""Tasks that follow each other on average: a person asks for a picture several times."""
BETWEEN_S: Final = 40.0
"""Pause in a burst, on average."""
SPREAD: Final = 0.7
"""Sigma of the run times, which are log-normal."""


def synthetic(
    tasks: int,
    *,
    models: int = 40,
    tenants: int = 50,
    every_s: float = 30.0,
    run_s: float = 23.0,
    seed: int = 0,
) -> list[Request]:
    """So many requests, by time; the first one is at 0.

    Args:
        models: how many there are; their popularity falls as in Zipf's law.
        tenants: who asks; each mostly for a model of its own taste.
        every_s: mean time between requests, over a day; afternoons have three times as many as nights.
        run_s: median time of a task.
        seed: the same one gives the same trace.
    """
    drawn = random.Random(f"synthetic/{seed}")  # noqa: S311 - no secret
    weights = [1 / (rank + 1) ** 1.1 for rank in range(models)]
    tastes = [drawn.choices(range(models), weights)[0] for _ in range(tenants)]
    found: list[Request] = []
    at_s = 0.0
    while len(found) < tasks:
        busy = 1 - 0.5 * math.cos(at_s / DAY_S * 2 * math.pi)
        at_s += drawn.expovariate(busy / (every_s * BURST))
        tenant = drawn.randrange(tenants)
        model = tastes[tenant] if drawn.random() < 0.8 else drawn.choices(range(models), weights)[0]
        asked_s = at_s
        for _ in range(1 + int(drawn.expovariate(1 / (BURST - 1)))):
            seconds = run_s * math.exp(drawn.gauss(0, SPREAD))
            setup, who = f"model-{model:02}", f"tenant-{tenant:02}"
            found.append(Request(at_s=asked_s, setup=setup, run_s=round(seconds, 1), tenant=who))
            asked_s += drawn.expovariate(1 / BETWEEN_S)
    found.sort(key=lambda request: request.at_s)
    begin_s = found[0].at_s
    return [_later(request, -begin_s) for request in found[:tasks]]


def _later(request: Request, seconds: float) -> Request:
    at_s = round(request.at_s + seconds, 1)
    return Request(at_s=at_s, setup=request.setup, run_s=request.run_s, tenant=request.tenant)
