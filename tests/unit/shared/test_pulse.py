"""How long each loop has heard nothing."""

import asyncio

from virtual_time import in_virtual_time, pass_time

from stoker.core.errors import StoreUnavailable
from stoker.pulse import TELL_S, Pulse, tell_loop


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_loop_counts_from_its_first_mention_and_from_each_beat():
    clock = Clock()
    pulse = Pulse("a", "b", clock=clock)
    clock.now += 3
    pulse.beat("b")
    clock.now += 1
    assert pulse.silent_s() == {"a": 4.0, "b": 1.0}


def test_a_beat_may_lie_in_the_past():
    pulse = Pulse(clock=Clock())
    pulse.beat("rq", ago_s=7.0)
    assert pulse.silent_s() == {"rq": 7.0}


def test_a_loop_that_does_not_run_is_not_deaf():
    pulse = Pulse("a", clock=Clock())
    pulse.forget("a")
    pulse.forget("a")
    assert pulse.silent_s() == {}


@in_virtual_time
async def test_silences_are_told_again_and_again_also_after_an_outage():
    told = []

    class Store:
        async def tell(self, process, part, silent_s, counts):
            told.append((process, part, silent_s))
            if len(told) == 2:
                raise StoreUnavailable

    telling = asyncio.ensure_future(tell_loop(Store(), "p1", "jobs", lambda: {"outbox": 0.0}))
    await pass_time(3.5 * TELL_S)
    telling.cancel()
    assert told == [("p1", "jobs", {"outbox": 0.0})] * 4
