"""What CEL gives, in this process. Nothing can stop it on its way: `stoker.flows.evaluator` is for what users write."""

import base64
import datetime as dt
import importlib
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

PROGRAMS: Final = 100
"""Compiled expressions that are kept; one of 4000 characters takes half a megabyte."""


class ExpressionFailed(ValueError):
    """An expression cannot be computed with these values; says why."""


def compiled(expression: str) -> Any:
    """The program of an expression.

    Its parser refuses deep nesting, and 4000 characters take it milliseconds and a megabyte of stack at most.

    Raises:
        ValueError: it is no expression; the first line says where.
    """
    cel = importlib.import_module("cel")  # half a second that a process without flows need not spend
    return cel.compile(expression)


_kept = lru_cache(maxsize=PROGRAMS)(compiled)


def value_of(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression as JSON, see `stoker.flows.expressions.evaluate`.

    Raises:
        ExpressionFailed: it cannot be computed with these values.
    """
    names = {name: value for name, value in values.items() if name.isidentifier()}
    try:
        return _json(_kept(expression).execute({"inputs": dict(values)} | names))
    except (ValueError, TypeError, RuntimeError, ArithmeticError, KeyError, IndexError) as error:
        raise ExpressionFailed(f"{expression!r}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The line of an error that says what is wrong; CEL's go on with a drawing of the place."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
