"""What nodes compute that are no apps. Each gives an object, whose keys other nodes connect to."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from stoker.flows.cel import ExpressionFailed
from stoker.flows.expressions import evaluate
from stoker.flows.paths import MISSING, dig
from stoker.flows.plan import Kind, PlanNode, Rule

OUTPUT: Final = "output"
PASSED: Final = "passed"
MODES: Final = ("first", "last", "index", "random")


class RuleFailed(ValueError):
    """A node cannot compute its output from what it got; says why."""


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(have: Any, want: Any) -> bool:
        try:
            return test(have, want)
        except TypeError as error:
            raise RuleFailed(f"{have!r:.100} and {want!r:.100} cannot be compared") from error

    return compare


def _contains(have: Any, want: Any) -> bool:
    if not isinstance(have, (str, list, dict)):
        raise RuleFailed(f"{have!r:.100} can contain nothing")
    try:
        return (str(want) if isinstance(have, str) else want) in have
    except TypeError as error:  # a list or an object is no key of an object
        raise RuleFailed(f"{want!r:.100} cannot be in {have!r:.100}") from error


def _empty(have: Any, _: Any) -> bool:
    return have in (None, "", [], {})


OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": lambda have, want: bool(have == want),
    "!=": lambda have, want: bool(have != want),
    ">": _ordered(lambda have, want: have > want),
    ">=": _ordered(lambda have, want: have >= want),
    "<": _ordered(lambda have, want: have < want),
    "<=": _ordered(lambda have, want: have <= want),
    "contains": _contains,
    "not_contains": lambda have, want: not _contains(have, want),
    "in": lambda have, want: _contains(want, have),
    "empty": _empty,
    "not_empty": lambda have, want: not _empty(have, want),
    "true": lambda have, _: bool(have),
    "false": lambda have, _: not have,
}
ALIASES: Final = {
    "eq": "==",
    "equals": "==",
    "=": "==",
    "ne": "!=",
    "neq": "!=",
    "not_equals": "!=",
    "gt": ">",
    "gte": ">=",
    "ge": ">=",
    "lt": "<",
    "lte": "<=",
    "le": "<=",
    "exists": "not_empty",
    "not_exists": "empty",
    "is_true": "true",
    "is_false": "false",
}


def outputs_of(kind: Kind, inputs: Mapping[str, object]) -> frozenset[str]:
    """The keys that a node of a kind gives."""
    match kind:
        case Kind.GATE:
            return frozenset({*inputs, OUTPUT, PASSED})
        case Kind.MERGE:
            return frozenset({*inputs, OUTPUT, "values"})
        case Kind.SELECTOR:
            return frozenset({OUTPUT, "index"})
        case _:
            return frozenset({OUTPUT})


def compute(node: PlanNode, given: dict[str, Any], seed: str) -> dict[str, Any]:
    """The output of a node that is no app.

    Args:
        node: of any kind but `app`.
        given: its inputs; what leads nowhere is left out.
        seed: makes what is random the same when it is computed again.

    Raises:
        RuleFailed: says why.
    """
    rule = node.rule or Rule()
    try:
        match node.kind:
            case Kind.GATE:
                return _gate(rule, given)
            case Kind.SELECTOR:
                return _selected(rule, given, seed)
            case Kind.MERGE:
                values = list(given.values())
                return given | {OUTPUT: values[0] if values else None, "values": values}
            case Kind.CONSTANT:
                return {OUTPUT: rule.value if rule.random is None else _random(rule.random, seed)}
            case _:
                return {OUTPUT: evaluate(rule.expression, given)}
    except (ExpressionFailed, RecursionError) as error:  # the latter by values that are nested without end
        raise RuleFailed(str(error)) from error


def _gate(rule: Rule, given: dict[str, Any]) -> dict[str, Any]:
    shown = dig(given, rule.field) if rule.field else next(iter(given.values()), None)
    value = None if shown is MISSING else shown
    if rule.expression:
        passed = evaluate(rule.expression, given)
        if not isinstance(passed, bool):
            raise RuleFailed(f"{rule.expression!r} gives {passed!r:.100}, and a gate wants true or false")
    else:
        passed = OPERATORS[rule.operator](value, rule.value)
    return given | {OUTPUT: value, PASSED: passed}


def _selected(rule: Rule, given: dict[str, Any], seed: str) -> dict[str, Any]:
    items = dig(given, rule.field) if rule.field else next(iter(given.values()), None)
    if not isinstance(items, list):
        raise RuleFailed(
            f"a selector wants an array, and got {'nothing' if items is MISSING else items!r:.100}"
        )
    place = {
        "first": 0,
        "last": len(items) - 1,
        "index": rule.index if rule.index >= 0 else len(items) + rule.index,
        "random": int(_fraction(seed) * len(items)),
    }[rule.mode]
    if not 0 <= place < len(items):
        raise RuleFailed(
            f"there is no element {rule.index if rule.mode == 'index' else rule.mode} of {len(items)}"
        )
    return {OUTPUT: items[place], "index": place}


def _random(bounds: tuple[float, float], seed: str) -> float:
    low, high = bounds
    if low == int(low) and high == int(high):
        return int(low) + int(_fraction(seed) * (int(high) - int(low) + 1))
    return low + _fraction(seed) * (high - low)


def _fraction(seed: str) -> float:
    """A number from 0 up to 1 that a seed always gives."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6], "big") / 2**48
