"""Whether a task can run, decided from what is known of each part. No I/O, no clock."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from stoker.protocol.pulses import Told

DEAF_S: Final = 5.0
"""Every loop reads at least once a second, and is back within this time after an outage."""
TOLD_DEAF_S: Final = DEAF_S + 4.0
"""For other processes, who tell of themselves every few seconds."""


class Engine(Struct, frozen=True, kw_only=True):
    """A registered engine, as far as it matters here.

    `leased`: its lease is not over by the server's clock. `silent_s`: of its loops, at its last renewal.
    """

    id: str
    workers: int
    leased: bool
    silent_s: Mapping[str, float] = {}


class Facts(Struct, frozen=True, kw_only=True):
    """What Redis knows. `leader` is ``epoch:holder``, or ''."""

    leader: str
    engines: Sequence[Engine]
    told: Sequence[Told]


def deaf(own: Mapping[str, float]) -> str:
    """Why this gateway hears nothing, or ''.

    Args:
        own: seconds since the last useful read of each of its loops.
    """
    for loop, silent_s in own.items():
        if silent_s > DEAF_S:
            return (
                f"This gateway has heard nothing of its {loop} for {silent_s:.0f} s. It reconnects by itself "
                "as soon as Redis answers."
            )
    return ""


def missing(facts: Facts) -> str:
    """What a task would wait for in vain, or ''."""
    if not facts.leader:
        return "No scheduler leads yet. Start one (stoker scheduler) or wait a few seconds."
    holder = facts.leader.partition(":")[2]
    for told in facts.told:
        if told.process == holder and told.silent_s.get("wake", 0.0) > TOLD_DEAF_S:
            return (
                f"The scheduler that leads ({holder}) has read nothing for {told.silent_s['wake']:.0f} s. "
                "Another one takes over in a few seconds; if none does, restart it."
            )
    usable = [engine for engine in facts.engines if engine.workers and engine.leased]
    if not usable:
        return "No worker is registered yet. Start one (stoker worker) or wait a few seconds."
    if all(engine.silent_s.get("inbox", 0.0) > TOLD_DEAF_S for engine in usable):
        names = ", ".join(engine.id for engine in usable)
        return f"No worker reads its inbox ({names}). They reconnect by themselves; if not, restart them."
    return ""
