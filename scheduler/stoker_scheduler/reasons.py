"""Sentences for people: why a task waits, why a task was given to a worker, why an instance went."""

from typing import Final

from stoker.core.explanations import WAIT, Candidate
from stoker_scheduler.actions import Assign, Reason, Start, Why

MINUTE_S = 60
HOUR_S = 3600


_TEXTS: Final = {
    Why.WARM_BUSY: "waiting ~{wait} for {worker}, which has this model loaded{elsewhere}",
    Why.LOADING: "waiting ~{wait} for {worker}, which is loading this model{elsewhere}",
    Why.ALL_BUSY: "all {count} workers that can run this are busy; {worker} should be free in ~{wait}",
    Why.FREEING: "waiting for {worker}, which is freeing GPU memory",
    Why.CROWDED: "{worker} has too little GPU memory: {text} of it are in use there by other programs, or not freed yet",
    Why.KEPT: "{worker} is full and keeps models that are pinned, or were loaded just now and have tasks waiting",
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
    """Why a task was given to its worker; goes into the log, and is kept with the task."""
    match assign.start:
        case Start.WARM:
            return f"{assign.worker_id} was idle and had this model loaded"
        case Start.AHEAD:
            return f"queued at {assign.worker_id} behind a short task of the same model"
        case Start.COLD:
            return _loaded(*assign.candidates)


def _loaded(chosen: Candidate, *others: Candidate) -> str:
    text = f"loading on {chosen.worker_id} (~{span(chosen.ready_s)})"
    if chosen.parked:
        text = f"comes back from being parked on {chosen.worker_id} (~{span(chosen.ready_s)})"
    busy = next((other for other in others if other.start == WAIT), None)
    if busy is not None:
        text += ", which" if chosen.parked else ""
        text += f" is sooner than {busy.worker_id}, which has this model loaded, is through with those before it (~{span(busy.ready_s)})"
    else:
        text += ": no worker has this model loaded"
    if chosen.evict:
        later_s = chosen.cost_s - chosen.ready_s
        text += (
            f"; evicts {', '.join(chosen.evict)}, which is expected to cost ~{span(later_s)} of loading later"
        )
    return text


def span(seconds: float) -> str:
    """A duration, rounded to what matters."""
    if seconds < 1:
        return "1 s"
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    return f"{seconds / HOUR_S:.1f} h"
