"""A draft while it is edited: the graph of a flow, with references kept whole. What editors ask for: `edits.py`.

The graph that it is made of is not changed: what is changed is a copy.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from stoker.core.errors import InvalidRequest
from stoker.flows.schema import INPUT, MAX_NODES

MAX_ID: Final = 128
"""Characters of a node's id."""
SHOWN: Final = 20
"""Nodes that a refusal names."""
_CONNECTION: Final = "Connection"
_VALUE: Final = "Value"
_OWN: Final = ("nodes", "edges", "node_data", "input", "output_mappings")


class Draft:
    """The parts of a graph that refer to each other, by name; `rest` is the others."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self.nodes: dict[str, dict[str, Any]] = {node["id"]: node for node in graph.get("nodes") or ()}
        self.edges: list[dict[str, Any]] = list(graph.get("edges") or ())
        self.node_data: dict[str, dict[str, Any]] = dict(graph.get("node_data") or {})
        self.input: dict[str, dict[str, Any]] = dict(graph.get("input") or {})
        self.output_mappings: dict[str, dict[str, Any]] = dict(graph.get("output_mappings") or {})
        self.rest: dict[str, Any] = {name: value for name, value in graph.items() if name not in _OWN}

    def graph(self) -> dict[str, Any]:
        """As it is stored."""
        return self.rest | {
            "nodes": list(self.nodes.values()),
            "edges": self.edges,
            "node_data": self.node_data,
            "input": self.input,
            "output_mappings": self.output_mappings,
        }

    def node(self, node_id: str) -> dict[str, Any]:
        """A node.

        Raises:
            InvalidRequest: there is none.
        """
        if node_id not in self.nodes:
            names = list(self.nodes)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            known = ", ".join(names[:SHOWN]) or "none"
            raise InvalidRequest(f"there is no node {node_id!r}; there are: {known}{more}")
        return self.nodes[node_id]

    def own_node(self, node_id: str) -> dict[str, Any]:
        """A node that does something.

        Raises:
            InvalidRequest: there is none, or it stands for the flow's own input.
        """
        node = self.node(node_id)
        if self._is_input(node_id):
            raise InvalidRequest(f"node {node_id!r} stands for the flow's own input; it can only be moved")
        return node

    def check_new_node(self, node_id: str, kind: str, *, one_more: bool = True) -> None:
        """Whether a node may have this id.

        Raises:
            InvalidRequest: it may not.
        """
        if not 0 < len(node_id) <= MAX_ID:
            raise InvalidRequest(f"the id of a node has 1 to {MAX_ID} characters; {node_id[:20]!r} has not")
        if (node_id == INPUT) != (kind == INPUT):
            raise InvalidRequest(f"the id {INPUT!r} is that of the flow's own input, whose type is {INPUT!r}")
        if node_id in self.nodes:
            raise InvalidRequest(f"there is a node {node_id!r} already")
        if one_more and kind == INPUT and any(self._is_input(name) for name in self.nodes):
            raise InvalidRequest("the flow has a node for its own input already")
        if one_more and len(self.nodes) >= MAX_NODES:
            raise InvalidRequest(f"a flow has at most {MAX_NODES} nodes")

    def add_node(self, node: dict[str, Any], data: dict[str, Any]) -> None:
        """Put a node in whose id is free."""
        self.nodes[node["id"]] = node
        if data:
            self.node_data[node["id"]] = data

    def change_node(self, node_id: str, **changes: Any) -> None:
        """Set fields of a node."""
        self.nodes[node_id] = {**self.node(node_id), **changes}

    def remove_node(self, node_id: str) -> None:
        """Take a node out with its edges and outputs. An input that it gave has the value of before again."""
        self.own_node(node_id)
        del self.nodes[node_id]
        self.node_data.pop(node_id, None)
        self.input.pop(node_id, None)
        self.edges = [e for e in self.edges if node_id not in {e.get("source"), e.get("target")}]
        self.output_mappings = {
            name: mapping
            for name, mapping in self.output_mappings.items()
            if mapping.get("sourceNodeId") != node_id
        }
        for name, inputs in list(self.input.items()):
            if any(_source(value) == node_id for value in inputs.values()):
                kept = {key: _without(value, node_id) for key, value in inputs.items()}
                self.input[name] = {key: value for key, value in kept.items() if value is not None}

    def rename_node(self, old: str, new: str) -> None:
        """Give a node another id, everywhere."""

        def named(name: Any) -> Any:
            return new if name == old else name

        self.nodes = {named(name): {**node, "id": named(name)} for name, node in self.nodes.items()}
        self.node_data = {named(name): data for name, data in self.node_data.items()}
        self.edges = [
            {**edge, "source": named(edge.get("source")), "target": named(edge.get("target"))}
            for edge in self.edges
        ]
        self.input = {
            named(name): {
                key: {**value, _CONNECTION: {**value[_CONNECTION], "nodeId": new}}
                if _source(value) == old
                else value
                for key, value in inputs.items()
            }
            for name, inputs in self.input.items()
        }
        self.output_mappings = {
            name: {**mapping, "sourceNodeId": named(mapping.get("sourceNodeId"))}
            for name, mapping in self.output_mappings.items()
        }

    def check_order(self, source: str, target: str) -> None:
        """Whether one node may come before another one.

        Raises:
            InvalidRequest: there is no such node, nothing comes before it, or it would wait for itself.
        """
        if source != INPUT:
            self.node(source)
        if self._is_input(target):
            raise InvalidRequest(
                f"node {target!r} stands for the flow's own input: nothing comes before it; who runs the flow gives it"
            )
        if circle := self._way(target, source):
            raise InvalidRequest(
                f"node {target!r} would wait for itself: {' -> '.join((*circle, circle[0]))}"
            )

    def _is_input(self, node_id: str) -> bool:
        return node_id == INPUT or self.nodes.get(node_id, {}).get("type") == INPUT

    def _way(self, begin: str, end: str) -> list[str]:
        """The nodes from one to another along what waits for what; [] when none leads there."""
        after: dict[str, list[str]] = {}
        for source, target in self._arrows():
            after.setdefault(source, []).append(target)
        came_from: dict[str, str] = {begin: ""}
        waiting = [begin]
        while waiting and end not in came_from:
            here = waiting.pop()
            for target in after.get(here, ()):
                if target not in came_from:
                    came_from[target] = here
                    waiting.append(target)
        way = [end] if end in came_from else []
        while way and came_from[way[-1]]:
            way.append(came_from[way[-1]])
        return way[::-1]

    def _arrows(self) -> Iterator[tuple[str, str]]:
        """(node, one that waits for it)."""
        for edge in self.edges:
            yield str(edge.get("source")), str(edge.get("target"))
        for node_id, inputs in self.input.items():
            for value in inputs.values():
                if source := _source(value):
                    yield source, node_id


def _source(value: Mapping[str, Any]) -> str:
    """The node that an input is connected to; '' = none."""
    connection = value.get(_CONNECTION)
    return str(connection.get("nodeId") or "") if isinstance(connection, Mapping) else ""


def _without(value: dict[str, Any], node_id: str) -> dict[str, Any] | None:
    """An input when that node is gone; None = it has no value then."""
    if _source(value) != node_id:
        return value
    before = value.get(_VALUE)
    if before is None:
        before = value[_CONNECTION].get("previousValue")
    return None if before is None else {_CONNECTION: None, _VALUE: before}
