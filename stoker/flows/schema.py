"""A flow as clients store it. Unknown fields are kept by whoever stores it, and ignored here."""

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from stoker.core.errors import InvalidRequest

INPUT: Final = "input"
"""Type and id of the node that stands for the flow's own input."""
MAX_NODES: Final = 200
"""A run is one document, which each step reads and writes."""
GRAPH_FIELDS: Final = (
    "input_schema",
    "input",
    "output_schema",
    "output_mappings",
    "node_data",
    "nodes",
    "edges",
    "viewport",
    "fail_on_error",
)
"""What of a flow is its graph: what a version has."""


class Connection(Struct, kw_only=True):
    """The output `key` of another node; dots lead into it."""

    node_id: str = field(name="nodeId")
    key: str = ""
    type: str = ""


class InputValue(Struct, kw_only=True):
    """Where one input of a node comes from: a connection, or a value."""

    connection: Connection | None = field(name="Connection", default=None)
    value: Any = field(name="Value", default=None)


class Node(Struct, kw_only=True):
    """A place in the graph."""

    id: str
    type: str = ""


class Edge(Struct, kw_only=True):
    """An order: `target` begins when `source` is done. Connections make the same order by themselves."""

    source: str
    target: str


class Gate(Struct, kw_only=True):
    """A condition on one input."""

    field: str = ""
    operator: str = ""
    value: Any = None


class Selector(Struct, kw_only=True):
    """Which element of an array."""

    field: str = ""
    mode: str = ""
    index: int | None = None


class Utility(Struct, kw_only=True):
    """What a node does that is no app."""

    preset: str = ""
    expression: str | None = None
    gate: Gate | None = None
    selector: Selector | None = None
    constant: Any = None
    random: bool | None = None
    random_min: float | None = None
    random_max: float | None = None


class NodeData(Struct, kw_only=True):
    """What a node is. `app` is a reference, or the app as the platform's editor stores it."""

    app: Any = None
    app_id: str | None = None
    app_version_id: str | None = None
    function: str | None = None
    infra: str | None = None
    workers: list[str] | None = None
    setup: dict[str, Any] | None = None
    gate_condition: Gate | None = None
    selector_config: Selector | None = None
    utility: Utility | None = None

    @property
    def ref(self) -> str:
        """The app's reference, or ''."""
        if isinstance(self.app, str):
            return self.app
        if isinstance(self.app, dict) and self.app.get("name"):
            return f"{self.app.get('namespace') or ''}/{self.app['name']}".lstrip("/")
        return ""


class OutputMapping(Struct, kw_only=True):
    """One key of the run's output."""

    source_node_id: str = field(name="sourceNodeId")
    source_field_path: str = field(name="sourceFieldPath", default="")


class Graph(Struct, kw_only=True):
    """A flow without its names."""

    input_schema: dict[str, Any] = {}
    input: dict[str, dict[str, InputValue]] = {}
    output_schema: dict[str, Any] = {}
    output_mappings: dict[str, OutputMapping] = {}
    node_data: dict[str, NodeData] = {}
    nodes: list[Node] = []
    edges: list[Edge] = []
    fail_on_error: bool = True


def parse_graph(stored: dict[str, Any]) -> Graph:
    """The graph of a stored flow; what is null counts as absent.

    Raises:
        InvalidRequest: names the field that is not what it should be.
    """
    given = {name: stored[name] for name in GRAPH_FIELDS if stored.get(name) is not None}
    try:
        return msgspec.convert(given, Graph)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Input validation failed: {error}") from error
