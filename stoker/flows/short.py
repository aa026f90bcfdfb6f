"""The short form of a flow, for people and YAML, made into the stored one. docs/flows.md shows it.

`{{input.image}}` is a field of the flow's input, `{{words.text}}` one of the output of the node `words`. A template is
a whole value; texts that are put together are an expression's work.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from stoker.core.errors import InvalidRequest
from stoker.flows.plan import Kind
from stoker.flows.schema import INPUT

_TEMPLATE: Final = re.compile(r"^\{\{\s*([A-Za-z0-9_-]+)(?:\.([^{}]*?))?\s*\}\}$")
_ANY_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_FLOW_KEYS: Final = frozenset(
    [
        "name",
        "title",
        "description",
        "input",
        "input_schema",
        "nodes",
        "output",
        "output_schema",
        "fail_on_error",
    ]
)
_NODE_KEYS: Final = frozenset({"input", "after"})
_APP_KEYS: Final = frozenset({"app", "function", "setup", "infra", "workers"})
_RULES: Final = tuple(kind.value for kind in Kind if kind is not Kind.APP)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_COLUMN, _ROW = 280, 140
"""Pixels between nodes, for editors that draw the graph."""


class Expanded(Struct, frozen=True, kw_only=True):
    """A flow as it is stored, and its names."""

    namespace: str
    name: str
    title: str
    description: str
    graph: dict[str, Any]


def expand(short: Any) -> Expanded:
    """The stored form of a short one.

    Raises:
        InvalidRequest: names the place that is not understood, and what may be there.
    """
    flow = _mapping("the flow", short)
    _check_keys("the flow", flow, _FLOW_KEYS)
    namespace, _, name = str(flow.get("name") or "").rpartition("/")
    if not name:
        raise InvalidRequest("name: say what the flow is called, for instance name: read-sign")
    nodes = _mapping("nodes", flow.get("nodes"))
    data: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    edges = []
    for node_id, said in nodes.items():
        node = _mapping(f"node {node_id!r}", said)
        data[node_id] = _node_data(str(node_id), node)
        given = _mapping(f"node {node_id!r}, input", node.get("input"))
        inputs[node_id] = {
            str(key): _input(f"node {node_id!r}, input {key!r}", v) for key, v in given.items()
        }
        sources = [v["Connection"]["nodeId"] for v in inputs[node_id].values() if "Connection" in v]
        edges += [_edge(source, str(node_id)) for source in dict.fromkeys([*sources, *_after(node)])]
    graph = {
        "input_schema": flow.get("input_schema") or _input_schema(_mapping("input", flow.get("input"))),
        "input": inputs,
        "output_schema": _mapping("output_schema", flow.get("output_schema")),
        "output_mappings": _outputs(_mapping("output", flow.get("output"))),
        "node_data": data,
        "nodes": _places(list(map(str, nodes)), edges),
        "edges": edges,
        "fail_on_error": flow.get("fail_on_error", True),
    }
    title, about = str(flow.get("title") or ""), str(flow.get("description") or "")
    return Expanded(namespace=namespace, name=name, title=title, description=about, graph=graph)


def _mapping(where: str, value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"{where}: it is a {type(value).__name__}; it should be a map of names and values"
        )
    return value


def _check_keys(where: str, given: Mapping[Any, Any], known: frozenset[str]) -> None:
    if unknown := [str(key) for key in given if key not in known]:
        raise InvalidRequest(f"{where}: {', '.join(unknown)} unknown; it may have {', '.join(sorted(known))}")


def _node_data(node_id: str, node: dict[str, Any]) -> dict[str, Any]:
    where = f"node {node_id!r}"
    if not _ID.fullmatch(node_id) or node_id == INPUT:
        raise InvalidRequest(f"{where}: a node's name has letters, digits, - and _, and is not {INPUT!r}")
    kinds = [kind for kind in ("app", *_RULES) if kind in node]
    if len(kinds) != 1:
        raise InvalidRequest(f"{where}: it should have one of app, {', '.join(_RULES)}; it has {len(kinds)}")
    [kind] = kinds
    if kind == "app":
        _check_keys(where, node, _NODE_KEYS | _APP_KEYS)
        ref, _, function = str(node["app"]).partition(":")
        said = {key: node[key] for key in ("setup", "infra", "workers") if node.get(key)}
        return {"app": ref, "function": node.get("function") or function or None, **said}
    _check_keys(where, node, _NODE_KEYS | {kind})
    return {"utility": {"preset": kind, **_rule(where, kind, node[kind])}}


def _rule(where: str, kind: str, said: Any) -> dict[str, Any]:
    if kind == Kind.EXPRESSION or (kind == Kind.GATE and isinstance(said, str)):
        return {"expression": str(said)}
    if kind == Kind.CONSTANT:
        if isinstance(said, dict) and set(said) == {"random"} and isinstance(said["random"], list):
            low, high = [*said["random"], 0.0, 1.0][:2]
            return {"random": True, "random_min": low, "random_max": high}
        return {"constant": said}
    options = _mapping(f"{where}, {kind}", said)
    known = {Kind.GATE: {"field", "operator", "value"}, Kind.SELECTOR: {"field", "mode", "index"}}
    _check_keys(f"{where}, {kind}", options, frozenset(known.get(Kind(kind), set())))
    return {kind: options} if kind != Kind.MERGE else {}


def _input(where: str, value: Any) -> dict[str, Any]:
    found = _template(where, value)
    return {"Value": value} if found is None else {"Connection": {"nodeId": found[0], "key": found[1]}}


def _template(where: str, value: Any) -> tuple[str, str] | None:
    """The node and the path that a value names; None for one that is no template."""
    if not isinstance(value, str):
        return None
    match = _TEMPLATE.match(value.strip())
    if match:
        return match[1], match[2] or ""
    if _ANY_TEMPLATE.search(value):
        raise InvalidRequest(
            f"{where}: {value[:100]!r} is more than one template. Put texts together in a node: "
            'expression: "\'Hello \' + name" with input: {name: "{{input.name}}"}'
        )
    return None


def _after(node: dict[str, Any]) -> list[str]:
    said = node.get("after") or []
    return [str(one) for one in ([said] if isinstance(said, str) else said)]


def _edge(source: str, target: str) -> dict[str, Any]:
    return {"id": f"{source}-{target}", "type": "default", "source": source, "target": target}


def _input_schema(fields: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of `name: {type: string, default: ...}`; what has no default and is not optional is required."""
    properties, required = {}, []
    for name, said in fields.items():
        schema = {"type": said} if isinstance(said, str) else dict(_mapping(f"input {name!r}", said))
        if schema.get("type") == "file":
            schema |= {"type": "string", "format": "file"}
        optional = schema.pop("optional", False)
        properties[str(name)] = schema
        if "default" not in schema and not optional:
            required.append(str(name))
    return {"type": "object", "properties": properties, "required": required}


def _outputs(said: dict[str, Any]) -> dict[str, Any]:
    mappings = {}
    for name, value in said.items():
        found = _template(f"output {name!r}", value)
        if found is None:
            raise InvalidRequest(f"output {name!r}: {value!r:.100} is no template; write {{{{node.field}}}}")
        node_id, path = found
        mappings[str(name)] = {"sourceNodeId": node_id, "sourceFieldPath": path, "outputFieldName": str(name)}
    return mappings


def _places(names: list[str], edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nodes in columns by what they wait for, the flow's input first. A circle is told by who compiles."""
    before = {name: [e["source"] for e in edges if e["target"] == name] for name in names}
    column: dict[str, int] = {INPUT: 0}
    for _ in names:
        for name in names:
            column[name] = 1 + max((column.get(one, 0) for one in before[name] if one != name), default=0)
            column[name] = min(column[name], len(names))
    rows: dict[int, int] = {}
    placed = [{"id": INPUT, "type": INPUT, "position": {"x": 0, "y": 0}}]
    for name in names:
        at = column[name]
        rows[at] = rows.get(at, -1) + 1
        placed.append({"id": name, "type": "node", "position": {"x": at * _COLUMN, "y": rows[at] * _ROW}})
    return placed
