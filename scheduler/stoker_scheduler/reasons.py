"""Sentences for people: why a task waits, why a task was given to a worker, why an instance went."""

from typing import Final

from stoker_scheduler.actions import Assign, Reason, Start, Why

MINUTE_S = 60
HOUR_S = 3600


_TEXTS: Final = {
    Why.WARM_BUSY: "waiting ~{wait} for {worker}, which has this model loaded{elsewhere}",
    Why.LOADING: "waiting ~{wait} for {worker}, which is loading this model{elsewhere}",
    Why.ALL_BUSY: "all {count} workers that can run this are busy; {worker} should be free in ~{wait}",
    Why.FREEING: "waiting for {worker}, which is freeing GPU memory",
    Why.CROWDED: "{worker} has too little GPU memory: {text} of it are in use there by other programs, or not freed yet",
    Why.KEPT: "{worker} is full and keeps models that were loaded just now and have tasks waiting",
    Why.REFUSED: "{worker} handed it back; it is tried there again in ~{wait}",
    Why.NO_MATCH: "{text}",
    Why.UNAVAILABLE: "{text}",
    Why.LEASED: "all {count} workers that can run this are leased to sessions",
    Why.SESSION_BUSY: "waiting ~{wait} for the task before it in its session, on {worker}",
    Why.SESSION_STARTS: "waiting for the first task of its session to start",
}
_TEXTS_OF_ONE: Final = {
    Why.ALL_BUSY: "{worker}, the only worker that can run this, is busy for ~{wait}",
    Why.LEASED: "{worker}, the only worker that can run this, is leased to a session",
}


def sentence(reason: Reason) -> str:
    """Why a group of tasks waits."""
    text = _TEXTS_OF_ONE.get(reason.why) if reason.workers == 1 else None
    return (text or _TEXTS[reason.why]).format(
        worker=reason.worker_id,
        wait=span(reason.wait_s),
        count=reason.workers,
        text=reason.text,
        elsewhere=f"; loading elsewhere would take ~{span(reason.load_s)}" if reason.load_s else "",
    )


def assigned(assign: Assign) -> str:
    """Why a task was given to its worker; goes into the log."""
    match assign.start:
        case Start.WARM:
            return "warm: the worker is idle and has the instance"
        case Start.AHEAD:
            return "warm: queued behind a short task of the same setup"
        case Start.COLD:
            gone = f"; evicts {len(assign.evict)}" if assign.evict else ""
            if assign.parked:
                return f"parked: back in ~{span(assign.estimate_s)} at the least cost{gone}"
            return f"cold: ready in ~{span(assign.estimate_s)} at the least cost{gone}"


def span(seconds: float) -> str:
    """A duration, rounded to what matters."""
    if seconds < 1:
        return "1 s"
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds / HOUR_S:.1f} h"
