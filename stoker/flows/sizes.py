"""How large values of a run are as JSON, and how large they may be.

In memory they hold one another, so that twenty nodes can name more than any memory holds as text. So nothing is encoded that
is not known to be bounded: it comes from what is stored, and all that is stored was counted.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from stoker.flows.evaluator_child import MAX_REQUEST_BYTES, MAX_RESULT_BYTES
from stoker.flows.paths import MISSING
from stoker.flows.plan import Kind
from stoker.flows.rules import RuleFailed

MAX_OUTPUT_BYTES: Final = MAX_RESULT_BYTES
"""What a node that is no app gives, and what a run gives; an app's output is half of it at most."""
MAX_INPUT_BYTES: Final = MAX_REQUEST_BYTES
"""What a node gets. A frame of the runner takes no more either."""
MAX_COMPUTED_BYTES: Final = 64 * 1024**2
"""What the nodes of a run that are no apps give together: a step reads all of it, and may write all of it at once."""
_HELD: Final = frozenset({Kind.GATE, Kind.MERGE})
"""Their output holds their inputs."""

encode: Final = msgspec.json.Encoder().encode


class Sizes:
    """Sizes of a run's input and of what its nodes gave, by name, in bytes of JSON."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self._known = dict(known)

    def put(self, name: str, size: int) -> None:
        self._known[name] = size

    def of(self, name: str, value: Any) -> int:
        """The size of what has this name, which is `value`; counted if it is not known."""
        if name not in self._known:
            self._known[name] = len(encode(value))
        return self._known[name]


def most_of(kind: Kind) -> int:
    """What a node of a kind may get."""
    return MAX_OUTPUT_BYTES if kind in _HELD else MAX_INPUT_BYTES


def check_together(values: Iterable[Any], most: int) -> None:
    """Count values one by one, each of which is bounded.

    Raises:
        RuleFailed: they are more than `most` bytes.
    """
    size = 0
    for value in values:
        size += 0 if value is MISSING else len(encode(value))
        if size > most:
            raise RuleFailed(
                f"it gets more than the {most} bytes that are allowed. Connect only the fields that are needed, "
                "or let an app make a file of them."
            )


def encoded(output: Any, computed: int) -> bytes:
    """The output of a node that is no app. It holds what the node got three times at most.

    Args:
        computed: bytes that such nodes of the run have given before.

    Raises:
        RuleFailed: it is too large, or nested too deeply.
    """
    try:
        text = encode(output)
    except RecursionError as error:
        raise RuleFailed("what it gives is nested too deeply") from error
    if len(text) > MAX_OUTPUT_BYTES:
        raise RuleFailed(
            f"it gives {len(text)} bytes; {MAX_OUTPUT_BYTES} are allowed. Connect only the fields that are needed, "
            "or let an app make a file of them."
        )
    if computed + len(text) > MAX_COMPUTED_BYTES:
        raise RuleFailed(
            f"with it the nodes that are no apps give {computed + len(text)} bytes together; "
            f"{MAX_COMPUTED_BYTES} are allowed in a run. Let an app compute it."
        )
    return text
