"""What was changed in a flow's draft, so that it can be taken back. Pure.

A step is what one request changed. It is kept as the difference in both directions, in a ring of parts beside the
flow, so a change writes its own step and no other.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from stoker.core.errors import Conflict
from stoker.flows.records import FlowBody, dumps, loads
from stoker.flows.schema import GRAPH_FIELDS

MAX_STEPS: Final = 50
"""That can be taken back; an editor's user seldom goes back further, and each may be as large as the graph."""
_DEPTH: Final = 6
"""Levels within a graph that are compared by key; what lies deeper is kept whole."""
_SHOWN_ONLY: Final = "viewport"
"""Where an editor looks at is no change of the flow."""


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one JSON value is made of another one.

    Of objects it holds what is set, gone, and changed inside; of lists of things with ids the same by id, with their
    order; else the value.
    """

    set: dict[str, Any] = {}
    gone: tuple[str, ...] = ()
    inside: dict[str, "Difference"] = {}
    order: tuple[str, ...] | None = None
    value: Any = msgspec.UNSET


class Step(Struct, frozen=True, kw_only=True):
    """A change and its inverse."""

    back: Difference
    forth: Difference


def step_part(number: int) -> str:
    """Where a step lies."""
    return f"step:{number % MAX_STEPS}"


def changed(body: FlowBody, graph: dict[str, Any]) -> tuple[FlowBody, dict[str, str]]:
    """A flow with another graph, and the parts to write with it; what was taken back before is gone."""
    before, after = _steady(body.graph), _steady(graph)
    if before == after:
        return structs.replace(body, graph=graph), {}
    step = Step(back=difference(after, before), forth=difference(before, after))
    history = structs.replace(
        body.history,
        version=body.history.version + 1,
        step=body.history.step + 1,
        undo=min(body.history.undo + 1, MAX_STEPS),
        redo=0,
    )
    return structs.replace(body, graph=graph, history=history), {step_part(body.history.step): dumps(step)}


def step_wanted(body: FlowBody, *, back: bool) -> str:
    """The part that is needed to take a step back, or to do it again.

    Raises:
        Conflict: there is none.
    """
    history = body.history
    if back and not history.undo:
        raise Conflict("There is nothing to undo.")
    if not back and not history.redo:
        raise Conflict("There is nothing to redo.")
    return step_part(history.step - 1 if back else history.step)


def moved(body: FlowBody, part: str, *, back: bool) -> FlowBody:
    """A flow with its last step taken back, or done again. `part` is the text of the part that is wanted."""
    step, history, way = loads(part, Step), body.history, -1 if back else 1
    graph = applied(_steady(body.graph), step.back if back else step.forth)
    if _SHOWN_ONLY in body.graph:
        graph[_SHOWN_ONLY] = body.graph[_SHOWN_ONLY]
    history = structs.replace(
        history,
        version=history.version + 1,
        step=history.step + way,
        undo=history.undo + way,
        redo=history.redo - way,
    )
    return structs.replace(body, graph=graph, history=history)


def difference(old: Any, new: Any, depth: int = _DEPTH) -> Difference:
    """How `new` is made of `old`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return _between(old, new, depth - 1)
    old_ids, new_ids = _ids(old), _ids(new)
    if old_ids is None or new_ids is None:
        return Difference(value=new)
    between = _between(dict(zip(old_ids, old, strict=True)), dict(zip(new_ids, new, strict=True)), depth - 1)
    # Without an order of its own the list is the old one without what is gone.
    kept = [one for one in old_ids if one not in between.gone]
    return between if kept == new_ids else structs.replace(between, order=tuple(new_ids))


def applied(old: Any, change: Difference) -> Any:
    """What a difference makes of a value."""
    if change.value is not msgspec.UNSET:
        return change.value
    if isinstance(old, dict):
        return _put(old, change)
    found = _put({one["id"]: one for one in old}, change)
    return [found[one] for one in change.order] if change.order is not None else list(found.values())


def _between(old: dict[str, Any], new: dict[str, Any], depth: int) -> Difference:
    differ = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    inside = {key for key in differ if depth and _divisible(old[key]) and _divisible(new[key])}
    return Difference(
        set={key: value for key, value in new.items() if key not in old or key in differ - inside},
        gone=tuple(key for key in old if key not in new),
        inside={key: difference(old[key], new[key], depth) for key in new if key in inside},
    )


def _put(old: dict[str, Any], change: Difference) -> dict[str, Any]:
    kept = {key: value for key, value in old.items() if key not in change.gone}
    within = {key: applied(old[key], inner) for key, inner in change.inside.items()}
    return kept | within | change.set


def _divisible(value: Any) -> bool:
    return isinstance(value, dict) or _ids(value) is not None


def _ids(value: Any) -> list[str] | None:
    """The ids of a list of things that all have one of their own; None = it is no such list."""
    if not isinstance(value, list):
        return None
    ids = [one.get("id") for one in value if isinstance(one, dict)]
    named = [one for one in ids if isinstance(one, str)]
    return named if len(set(named)) == len(value) else None


def _steady(graph: dict[str, Any]) -> dict[str, Any]:
    return {name: graph[name] for name in GRAPH_FIELDS if name != _SHOWN_ONLY and graph.get(name) is not None}
