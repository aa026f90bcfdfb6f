"""What a chat keeps by the tool `memory`. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

MAX_BYTES: Final = 64 * 1024
"""Of all of it as JSON: it goes with each question to the model, and with each write of the chat."""
FULL: Final = f"The memory would be larger than {MAX_BYTES // 1024} KiB, and stays as it is. Forget something, or keep less."

_encode = msgspec.json.Encoder().encode


def remember(memory: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The memory after a call of the tool, and what the model is told; None = it would be too large."""
    after = {**memory, **(wanted.get("set") or {})}
    for name in wanted.get("forget") or ():
        after.pop(name, None)
    told = _encode(after)
    return (after, told.decode()) if len(told) <= MAX_BYTES else (None, FULL)
