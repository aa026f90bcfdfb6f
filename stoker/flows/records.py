"""How flows and their runs lie in documents: kinds, bodies, names of parts."""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from stoker.flows.plan import Plan
from stoker.flows.run import Run
from stoker.flows.schema import GRAPH_FIELDS, INPUT

T = TypeVar("T")
FLOW: Final = "flow"
"""Kind of a flow: `FlowBody`, with a version and its plan as parts."""
RUN: Final = "flowrun"
"""Kind of a flow run: `Run`, with plan, input, output and the outputs of its nodes as parts."""
PLAN_PART: Final = "plan"
INPUT_PART: Final = "input"
OUTPUT_PART: Final = "output"
_NODE: Final = "node:"
MAX_DEPTH: Final = 8
"""Flows within flows."""
APP_FAILED: Final = "flow_failed"
"""The error code of a flow's task."""

_encode = msgspec.json.Encoder().encode


class VersionEntry(Struct, frozen=True, kw_only=True):
    """A version that was published."""

    id: str
    created_ms: int
    graph_version: int = 1  # of the draft that it was made of


class History(Struct, frozen=True, kw_only=True):
    """Where the draft stands among its changes (`history.py`)."""

    version: int = 1  # grows with each change, also with one that takes another back
    step: int = 0  # number of the next change
    undo: int = 0  # changes that can be taken back
    redo: int = 0  # changes that were taken back, and can be done again


class FlowBody(Struct, frozen=True, kw_only=True):
    """A flow: its names, and the graph that is being edited."""

    namespace: str
    name: str
    draft_version_id: str
    title: str = ""
    description: str = ""
    card_image: str = ""
    thumbnail: str = ""
    banner_image: str = ""
    visibility: str = "private"
    graph: dict[str, Any] = {}
    history: History = History()
    published_version_id: str = ""
    versions: tuple[VersionEntry, ...] = ()
    app_id: str = ""


def version_part(version_id: str) -> str:
    """Where the graph of a version lies."""
    return f"version:{version_id}"


def plan_part(version_id: str) -> str:
    """Where its plan lies."""
    return f"plan:{version_id}"


def node_part(node_id: str) -> str:
    """Where the output of a node lies."""
    return _NODE + node_id


def dumps(value: Any) -> str:
    """JSON as parts hold it."""
    return _encode(value).decode()


def loads(text: str | bytes, kind: type[T]) -> T:
    """A body or a part."""
    return msgspec.json.decode(text, type=kind)


def plan_of(parts: dict[str, str]) -> Plan:
    """The plan of a run."""
    return loads(parts[PLAN_PART], Plan)


def outputs_of(parts: dict[str, str]) -> dict[str, Any]:
    """What the nodes of a run gave."""
    return {
        name.removeprefix(_NODE): msgspec.json.decode(text)
        for name, text in parts.items()
        if name.startswith(_NODE)
    }


def sizes_of(parts: dict[str, str]) -> dict[str, int]:
    """How many bytes that has, and the input, which has its name among them."""
    named = {name.removeprefix(_NODE): text for name, text in parts.items() if name.startswith(_NODE)}
    return {name: len(text.encode()) for name, text in {**named, INPUT: parts[INPUT_PART]}.items()}


def graph_only(given: dict[str, Any]) -> dict[str, Any]:
    """What of a flow is its graph."""
    return {name: given[name] for name in GRAPH_FIELDS if name in given}


def run_parts(plan: Plan, given: Any) -> dict[str, str]:
    """The parts of a new run."""
    return {PLAN_PART: dumps(plan), INPUT_PART: dumps(given)}


def run_of(body: bytes) -> Run:
    """A run from its document."""
    return loads(body, Run)
