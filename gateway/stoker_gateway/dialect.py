"""Who is answered how: the one module that knows generations of clients.

`decide` looks at a request's headers and picks a `Dialect`; the functions below it translate a task's state into
that dialect's numbers. Nothing behind the edge knows that there is more than one. The first row that fits wins:

| row | request | numbers | envelope | stream without a wish in Accept |
|---|---|---|---|---|
| A | X-API-Version: 2 | 10/11/12 | none | NDJSON for the Python SDK, else SSE |
| B, C | User-Agent inference-sdk-py/<v> | 10/11/12 | combined | NDJSON |
| JS | X-Client-Source inference-sdk-js/<v> | 10/11/12 | combined | NDJSON |
| D | Accept names NDJSON | 10/11/12 | combined | NDJSON |
| E | /compat/v2 in the base URL, or the key's setting | as chosen | combined | SSE |
| F | exactly the stream request of an SDK up to 0.6.21 | 9/10/11, double ending | combined | SSE |
| G | anything else | 9/10/11 | combined | SSE |
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from stoker.core.states import ON_ENGINE, TaskState

Status = int | str
_PY_SDK = re.compile(r"^inference-sdk-py/(\d+)\.(\d+)\.(\d+)")
_RECONCILES_FROM: Final = (0, 7, 7)
"""Python SDKs from here on read the task once more when a stream ends without an ending."""
_DELTAS_FROM: Final = (0, 13, 0)
"""Python SDKs from here on add increments of a chat's output up; older ones take them for tasks."""
_CANCELLING: Final = 8


class Numbering(StrEnum):
    """Which numbers stand for the last states."""

    OLD = "v1"
    """completed 9, failed 10, cancelled 11: the documented REST contract, SDKs up to 0.6.0."""
    NEW = "v2"
    """cancelling 8, uploading 9, completed 10, failed 11, cancelled 12: newer SDKs."""


class Deltas(StrEnum):
    """What a reader of a stream does with increments of the output."""

    NONE = "none"
    """Nothing: it gets whole outputs."""
    CHAT = "chat"
    """Adds up those of chat models, and lets the sum replace the final output: it must get all, or none."""
    BESIDE = "beside"
    """Hands them to its caller if that one asked for them, which cannot be seen: it gets whole outputs too."""
    ASKED = "asked"
    """Has asked for them, and adds them up itself."""


class Dialect(Struct, frozen=True, kw_only=True):
    """How one request is answered. Hashable: encoded lines are shared by readers of one dialect."""

    numbering: Numbering = Numbering.OLD
    bare: bool = False
    ndjson: bool = False
    double_ending: bool = False
    deltas: Deltas = Deltas.NONE
    reconciles: bool = False
    """A stream may close without an ending that is too long for one line; the client reads the task itself."""


_NEW_NUMBERS: Final = {
    TaskState.UPLOADING: 9,
    TaskState.COMPLETED: 10,
    TaskState.FAILED: 11,
    TaskState.CANCELLED: 12,
}
_DOUBLE_ENDINGS: Final[dict[TaskState, tuple[Status, ...]]] = {
    TaskState.COMPLETED: (9, 10),
    TaskState.CANCELLED: (12, 11),
    TaskState.FAILED: ("failed", 10),
}


def decide(headers: Mapping[str, str], *, prefix_v2: bool = False, key_numbering: str = "") -> Dialect:
    """The dialect of a request.

    Args:
        headers: by lower-case name.
        prefix_v2: the base URL ends in ``/compat/v2``.
        key_numbering: what the API key asks for: "v1", "v2", or "" for no wish.
    """
    accept = headers.get("accept", "")
    python = _PY_SDK.match(headers.get("user-agent", ""))
    version = tuple(int(part) for part in python.groups()) if python else ()
    wants_lines = "application/x-ndjson" in accept or "application/jsonl" in accept
    wants_events = "text/event-stream" in accept
    new = Numbering.NEW
    if headers.get("x-api-version") == "2":  # A
        lines = wants_lines or (bool(python) and not wants_events)
        return Dialect(numbering=new, bare=True, ndjson=lines, reconciles=bool(python))
    if python:  # B, C
        chat = not wants_events and version >= _DELTAS_FROM
        return Dialect(
            numbering=new,
            ndjson=not wants_events,
            reconciles=version >= _RECONCILES_FROM,
            deltas=Deltas.CHAT if chat else Deltas.NONE,
        )
    if headers.get("x-client-source", "").startswith("inference-sdk-js"):
        beside = Deltas.NONE if wants_events else Deltas.BESIDE
        return Dialect(numbering=new, ndjson=not wants_events, deltas=beside)
    if wants_lines:  # D
        return Dialect(numbering=new, ndjson=True)
    if prefix_v2 or key_numbering:  # E
        return Dialect(numbering=new if prefix_v2 else Numbering(key_numbering))
    return Dialect(double_ending=_is_old_sdk_stream(headers))  # F, G


def _is_old_sdk_stream(headers: Mapping[str, str]) -> bool:
    """The whole combination that an SDK up to 0.6.21 sends, and that no other client is known to send."""
    agent = headers.get("user-agent", "")
    return (
        (agent.startswith("python-requests/") or "aiohttp/" in agent)
        and headers.get("accept") == "text/event-stream"
        and headers.get("cache-control") == "no-cache"
        and headers.get("accept-encoding") == "identity"
        and headers.get("content-type") == "application/json"
    )


def status_number(state: TaskState, dialect: Dialect, *, cancel_requested: bool = False) -> int:
    """The number of a state. The older table has no cancelling: such a task keeps its state there."""
    if dialect.numbering is Numbering.OLD:
        return int(state)
    if cancel_requested and state in ON_ENGINE:
        return _CANCELLING
    return _NEW_NUMBERS.get(state, int(state))


def ending_statuses(state: TaskState, dialect: Dialect) -> tuple[Status, ...]:
    """The status of each of the last events of a stream: one, or two for readers of unknown generation."""
    if dialect.double_ending:
        return _DOUBLE_ENDINGS[state]
    return (status_number(state, dialect),)
