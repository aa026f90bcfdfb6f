"""What is wrong with a value by its JSON schema, in words, at a bounded cost."""

from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

SHOWN: Final = 5
MAX_VALUES: Final = 1_000
"""Of a value whose errors are all looked for. The library makes all at once, some 15 µs each, and nothing else runs."""


def schema_errors(validator: jsonschema_rs.Validator, value: Any, whole: str, root: str = "") -> str:
    """The fields that do not fit, and what is wrong with each; empty when all do.

    Args:
        whole: what the value is called where a field has no name.
        root: where the value lies; empty = fields are named from the value on.
    """
    if validator.is_valid(value):
        return ""
    if is_larger(value, MAX_VALUES):
        try:
            validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return f"{_said(error, whole, root)} (of more than {MAX_VALUES} values, only the first error is shown)"
    errors = [_said(error, whole, root) for error in validator.iter_errors(value)]
    more = f" (and {len(errors) - SHOWN} more)" if len(errors) > SHOWN else ""
    return f"{'; '.join(errors[:SHOWN])}{more}"


def is_larger(value: Any, most: int) -> bool:
    """Whether a JSON value holds more than so many others, at any depth."""
    waiting, count = [value], 0
    while waiting:
        one = waiting.pop()
        inner = one.values() if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else ()
        count += len(inner)
        if count > most:
            return True
        waiting.extend(inner)
    return False


def _said(error: jsonschema_rs.ValidationError, whole: str, root: str) -> str:
    place = ".".join(str(part) for part in (root, *error.instance_path) if part != "")
    return f"{place or whole}: {error.message}"
