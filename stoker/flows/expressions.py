"""CEL: the expressions of flows. Why this library: docs/decisions/0040-expressions-in-cel.md.

An expression cannot loop for ever, but what it does grows with its data to the power of its comprehensions, and
nothing can stop it on its way; so what it may cost is bounded before it starts.
"""

import base64
import datetime as dt
import importlib
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from stoker.core.errors import InvalidRequest

MAX_CHARS: Final = 4000
MAX_STEPS: Final = 100_000
"""Elements visited at most: about a second."""
_MACRO: Final = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(")


class ExpressionFailed(ValueError):
    """An expression cannot be computed with these values; says why."""


def check(expression: str) -> None:
    """Whether a text is an expression.

    Raises:
        InvalidRequest: it is none; says where.
    """
    if not expression:
        raise InvalidRequest("it has no expression")
    if len(expression) > MAX_CHARS:
        raise InvalidRequest(f"the expression has {len(expression)} characters; it may have {MAX_CHARS}")
    try:
        _compiled(expression)
    except ValueError as error:
        raise InvalidRequest(f"{expression!r} is no CEL expression: {_first_line(error)}") from error


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression as JSON.

    Args:
        expression: in CEL.
        values: JSON values by the names that it may use; all of them together are also `inputs`.

    Raises:
        ExpressionFailed: it cannot be computed with these values, or would take too long.
    """
    macros = len(_MACRO.findall(expression))
    elements = _size(values) + expression.count(",") + 1
    if macros and elements**macros > MAX_STEPS:
        raise ExpressionFailed(
            f"{expression!r} would visit {elements} elements in {macros} comprehensions; "
            f"{MAX_STEPS} steps are allowed. Let an app compute it."
        )
    names = {name: value for name, value in values.items() if name.isidentifier()}
    try:
        return _json(_compiled(expression).execute({"inputs": dict(values)} | names))
    except (ValueError, TypeError, RuntimeError, ArithmeticError, KeyError, IndexError) as error:
        raise ExpressionFailed(f"{expression!r}: {_first_line(error)}") from error


@lru_cache(maxsize=1000)
def _compiled(expression: str) -> Any:
    cel = importlib.import_module("cel")  # half a second that a process without flows need not spend
    return cel.compile(expression)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(_size(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(_size(item) for item in value)
    return 1


def _json(value: Any) -> Any:
    """A result of CEL as JSON: times as text, durations as seconds, bytes as base64."""
    match value:
        case dict():
            return {str(key): _json(item) for key, item in value.items()}
        case list() | tuple():
            return [_json(item) for item in value]
        case dt.datetime():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            raise ExpressionFailed("the result is no number that JSON has")
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise ExpressionFailed(f"the result is a {type(value).__name__}, which JSON does not have")
