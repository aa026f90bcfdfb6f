"""CEL: the expressions of flows. Why this library, and why in a process of its own: docs/decisions/0040-expressions-in-cel.md.

An expression cannot loop for ever, but what it does grows with its data to the power of its comprehensions, and
with what it makes on its way. What is plainly too much is not begun; the rest has a time, a memory and a size.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from stoker.core.errors import InvalidRequest
from stoker.flows.cel import ExpressionFailed, compiled, first_line
from stoker.flows.evaluator import shared

MAX_CHARS: Final = 4000
MAX_STEPS: Final = 100_000
"""Elements of the inputs that may be visited; what would visit more need not wait for the end of its time."""
_MACRO: Final = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(")


def check(expression: str) -> None:
    """Whether a text is an expression. It is compiled in this process, which is quick for any text.

    Raises:
        InvalidRequest: it is none; says where.
    """
    if not expression:
        raise InvalidRequest("it has no expression")
    if len(expression) > MAX_CHARS:
        raise InvalidRequest(f"the expression has {len(expression)} characters; it may have {MAX_CHARS}")
    try:
        compiled(expression)
    except ValueError as error:
        raise InvalidRequest(f"{expression!r} is no CEL expression: {first_line(error)}") from error


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression as JSON, computed in a helper process. Blocks until it is there; any thread may call.

    Args:
        expression: in CEL.
        values: JSON values by the names that it may use; all of them together are also `inputs`.

    Raises:
        ExpressionFailed: it cannot be computed with these values, or takes too long, too much memory, or gives too much.
        StokerError: the helper did not start.
    """
    macros = len(_MACRO.findall(expression))
    elements = _size(values) + expression.count(",") + 1
    if macros and elements**macros > MAX_STEPS:
        raise ExpressionFailed(
            f"{expression!r} would visit {elements} elements in {macros} comprehensions; "
            f"{MAX_STEPS} steps are allowed. Let an app compute it."
        )
    return shared.evaluate(expression, values)


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(_size(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(_size(item) for item in value)
    return 1
