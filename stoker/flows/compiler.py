"""Checks a flow and makes the plan that its runs follow. All that is wrong is told at once, each with its node."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from msgspec import Struct

from stoker.core.errors import InvalidRequest
from stoker.core.refs import parse_ref
from stoker.core.setup_key import resolve
from stoker.flows import expressions
from stoker.flows.paths import fits, schema_at, type_of, types_at
from stoker.flows.plan import AppCall, Kind, Plan, PlanNode, Rule, Source
from stoker.flows.rules import ALIASES, MODES, OPERATORS, outputs_of
from stoker.flows.schema import INPUT, MAX_NODES, Gate, Graph, InputValue, Node, NodeData, Selector, Utility

SHOWN: Final = 10
"""Problems that one refusal tells."""
_TYPED: Final = {kind.value: kind for kind in Kind if kind is not Kind.APP} | {"utility": Kind.EXPRESSION}


class AppFacts(Struct, frozen=True, kw_only=True):
    """What is known of the app of a node."""

    app_id: str
    ref: str
    function: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class AppWanted(Struct, frozen=True, kw_only=True):
    """Which app a node names."""

    ref: str = ""  # namespace/name@version:function
    app_id: str = ""
    version_id: str = ""
    function: str = ""


def kind_of(node: Node, data: NodeData) -> Kind | None:
    """What a node is; None for one that is nothing yet."""
    utility = data.utility
    if utility is not None and utility.preset in _TYPED:
        return _TYPED[utility.preset]
    if data.app_id or data.ref:
        return Kind.APP
    if data.gate_condition is not None:
        return Kind.GATE
    if data.selector_config is not None:
        return Kind.SELECTOR
    if utility is not None and utility.expression:
        return Kind.EXPRESSION
    return _TYPED.get(node.type)


def apps_wanted(graph: Graph) -> dict[str, AppWanted]:
    """Node -> the app to look up before `compile_graph`."""
    found = {}
    for node in graph.nodes:
        data = graph.node_data.get(node.id, NodeData())
        if node.type != INPUT and kind_of(node, data) is Kind.APP:
            found[node.id] = AppWanted(
                ref=data.ref if not data.app_id else "",
                app_id=data.app_id or "",
                version_id=data.app_version_id or "",
                function=data.function or "",
            )
    return found


def compile_graph(graph: Graph, apps: Mapping[str, AppFacts | str]) -> Plan:
    """The plan of a flow.

    Args:
        graph: as stored.
        apps: node -> its app, or why it cannot be had.

    Raises:
        InvalidRequest: the flow cannot run; says why, with the node of each reason.
    """
    return _Compiler(graph, apps).plan()


class _Compiler:
    def __init__(self, graph: Graph, apps: Mapping[str, AppFacts | str]) -> None:
        self._graph = graph
        self._apps = apps
        self._problems: list[str] = []
        self._inputs = {node.id for node in graph.nodes if node.type == INPUT} | {INPUT}
        self._nodes = [node for node in graph.nodes if node.id not in self._inputs]
        self._data = {node.id: graph.node_data.get(node.id, NodeData()) for node in self._nodes}
        self._kinds = {node.id: kind_of(node, self._data[node.id]) for node in self._nodes}

    def plan(self) -> Plan:
        self._check_nodes()
        self._stop_if_wrong()
        order = self._order()
        planned = {node_id: self._planned(node_id, after) for node_id, after in order.items()}
        outputs = {
            name: self._source(f"output {name!r}", mapping.source_node_id, mapping.source_field_path)
            for name, mapping in self._graph.output_mappings.items()
        }
        self._stop_if_wrong()
        return Plan(
            nodes=tuple(planned.values()),
            outputs=outputs,
            input_schema=self._graph.input_schema,
            output_schema=self._graph.output_schema or self._output_schema(outputs),
            fail_on_error=self._graph.fail_on_error,
        )

    def _wrong(self, where: str, what: str) -> None:
        self._problems.append(f"{where}: {what}")

    def _stop_if_wrong(self) -> None:
        if self._problems:
            more = f" (and {len(self._problems) - SHOWN} more)" if len(self._problems) > SHOWN else ""
            raise InvalidRequest(f"The flow cannot run: {'; '.join(self._problems[:SHOWN])}{more}")

    def _check_nodes(self) -> None:
        if not self._nodes:
            self._wrong("nodes", "there is none; a flow has at least one node beside its input")
        if len(self._nodes) > MAX_NODES:
            self._wrong("nodes", f"{len(self._nodes)} are more than the {MAX_NODES} that a flow may have")
        seen: set[str] = set()
        for node in self._nodes:
            if node.id in seen:
                self._wrong(_node(node.id), "there are several of this id")
            seen.add(node.id)
            if self._kinds[node.id] is None:
                self._wrong(_node(node.id), f"it names no app and is none of {', '.join(sorted(_TYPED))}")
            if isinstance(found := self._apps.get(node.id), str):
                self._wrong(_node(node.id), found)

    def _order(self) -> dict[str, tuple[str, ...]]:
        """Node -> those that it waits for, in an order in which they come first."""
        before: dict[str, dict[str, None]] = {node.id: {} for node in self._nodes}
        for node_id, source in self._arrows():
            if node_id in before and source in before:
                before[node_id][source] = None
        try:
            order = TopologicalSorter(before).static_order()
            return {node_id: tuple(before[node_id]) for node_id in order}
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            self._wrong(_node(circle[0]), f"it waits for itself: {' -> '.join(circle)}")
            self._stop_if_wrong()
            raise

    def _arrows(self) -> Iterator[tuple[str, str]]:
        """(node, one that it waits for)."""
        known = {*self._data, *self._inputs}
        for node in self._nodes:
            for key, value in self._graph.input.get(node.id, {}).items():
                if value.connection is not None:
                    source = value.connection.node_id
                    if source not in known:
                        self._wrong(f"{_node(node.id)}, input {key!r}", f"there is no node {source!r}")
                    yield node.id, source
        for edge in self._graph.edges:
            for end in (edge.source, edge.target):
                if end not in known:
                    self._wrong(f"edge {edge.source!r} -> {edge.target!r}", f"there is no node {end!r}")
            yield edge.target, edge.source

    def _planned(self, node_id: str, after: tuple[str, ...]) -> PlanNode:
        kind = self._kinds[node_id]
        assert kind is not None  # noqa: S101 - `_check_nodes` has refused the others
        inputs = {
            key: source
            for key, value in self._graph.input.get(node_id, {}).items()
            if (source := self._input(node_id, key, value)) is not None
        }
        if kind is not Kind.APP:
            rule = self._rule(node_id, kind, inputs)
            return PlanNode(id=node_id, kind=kind, inputs=inputs, after=after, rule=rule)
        facts, data = self._facts(node_id), self._data[node_id]
        self._check_inputs(node_id, facts, inputs)
        call = AppCall(
            app_id=facts.app_id,
            ref=facts.ref,
            version_id=data.app_version_id or _version_in(data.ref),
            function=facts.function,
            setup=data.setup or None,
            infra=data.infra or "",
            workers=tuple(data.workers or ()),
        )
        return PlanNode(id=node_id, kind=kind, inputs=inputs, after=after, app=call)

    def _facts(self, node_id: str) -> AppFacts:
        facts = self._apps[node_id]
        assert isinstance(facts, AppFacts)  # noqa: S101 - `_check_nodes` has refused the others
        return facts

    def _input(self, node_id: str, key: str, value: InputValue) -> Source | None:
        if value.connection is None:
            return None if value.value is None else Source(value=value.value)
        connection = value.connection
        return self._source(f"{_node(node_id)}, input {key!r}", connection.node_id, connection.key)

    def _source(self, where: str, node_id: str, path: str) -> Source:
        """Where a value comes from; a path that leads nowhere is told."""
        if node_id in self._inputs:
            self._check_path(where, "the flow's input", self._graph.input_schema, path)
            return Source(node=INPUT, path=path)
        if node_id not in self._data:
            if where.startswith("output"):  # those of inputs were told
                self._wrong(where, f"there is no node {node_id!r}")
            return Source(node=node_id, path=path)
        if self._kinds[node_id] is Kind.APP:
            path = _without_prefix(path, self._facts(node_id).output_schema)
            self._check_path(where, _node(node_id), self._facts(node_id).output_schema, path)
        else:
            self._check_key(where, node_id, path)
        return Source(node=node_id, path=path)

    def _check_path(self, where: str, giver: str, schema: Mapping[str, Any], path: str) -> None:
        if schema_at(schema, path) is None:
            known = ", ".join(schema_at(schema, "").get("properties", {})) if schema else ""  # type: ignore[union-attr]
            self._wrong(where, f"{giver} has no {path!r}; it has {known or 'nothing'}")

    def _check_key(self, where: str, node_id: str, path: str) -> None:
        kind = self._kinds[node_id]
        assert kind is not None  # noqa: S101 - as above
        keys = outputs_of(kind, self._graph.input.get(node_id, {}))
        if path and path not in keys and path.split(".", maxsplit=1)[0] not in keys:
            self._wrong(where, f"{_node(node_id)} has no {path!r}; it has {', '.join(sorted(keys))}")

    def _schema_of(self, source: Source) -> Mapping[str, Any]:
        """What is known of a value before it is there; {} = nothing."""
        if source.node == INPUT:
            return schema_at(self._graph.input_schema, source.path) or {}
        if source.node and self._kinds.get(source.node) is Kind.APP:
            return schema_at(self._facts(source.node).output_schema, source.path) or {}
        return {}

    def _check_inputs(self, node_id: str, facts: AppFacts, inputs: Mapping[str, Source]) -> None:
        """Whether an app's inputs are there, are known to it, and are of a type that it takes."""
        schema = facts.input_schema
        for key in schema.get("required", ()):
            if key not in inputs:
                self._wrong(
                    _node(node_id), f"input {key!r} of {facts.ref} is missing; connect it or give a value"
                )
        for key, source in inputs.items():
            where = f"{_node(node_id)}, input {key!r}"
            wanted_schema = schema_at(schema, key)
            if wanted_schema is None:
                known = ", ".join(schema.get("properties", {}))
                self._wrong(where, f"{facts.ref} has no such input; it has {known or 'none'}")
                continue
            wanted = types_at(wanted_schema)
            given = types_at(self._schema_of(source)) if source.node else frozenset({type_of(source.value)})
            if not fits(given - {"null"} if source.node else given, wanted):
                giver = f"{source.node}.{source.path}".rstrip(".") if source.node else "the value"
                self._wrong(where, f"it takes {_listed(wanted)}, and {giver} is {_listed(given)}")

    def _rule(self, node_id: str, kind: Kind, inputs: Mapping[str, Source]) -> Rule | None:
        data = self._data[node_id]
        utility = data.utility or Utility()
        match kind:
            case Kind.GATE:
                return self._gate(node_id, utility, data.gate_condition or utility.gate or Gate(), inputs)
            case Kind.SELECTOR:
                return self._selector(node_id, data.selector_config or utility.selector or Selector(), inputs)
            case Kind.CONSTANT:
                return self._constant(node_id, utility)
            case Kind.EXPRESSION:
                self._check_expression(node_id, utility.expression or "")
                return Rule(expression=utility.expression or "")
            case _:
                return None

    def _gate(self, node_id: str, utility: Utility, gate: Gate, inputs: Mapping[str, Source]) -> Rule:
        if utility.expression:
            self._check_expression(node_id, utility.expression)
            return Rule(expression=utility.expression)
        named = (gate.operator or ("==" if gate.value is not None else "true")).lower()
        operator = ALIASES.get(named, named)
        if operator not in OPERATORS:
            self._wrong(
                _node(node_id), f"operator {gate.operator!r} is unknown; it may be {', '.join(OPERATORS)}"
            )
        self._check_field(node_id, gate.field, inputs)
        return Rule(field=gate.field, operator=operator, value=gate.value)

    def _selector(self, node_id: str, selector: Selector, inputs: Mapping[str, Source]) -> Rule:
        mode = (selector.mode or ("first" if selector.index is None else "index")).lower()
        if mode not in MODES:
            self._wrong(_node(node_id), f"mode {selector.mode!r} is unknown; it may be {', '.join(MODES)}")
        self._check_field(node_id, selector.field, inputs)
        return Rule(field=selector.field, mode=mode, index=selector.index or 0)

    def _constant(self, node_id: str, utility: Utility) -> Rule:
        if not utility.random:
            return Rule(value=utility.constant)
        low = 0.0 if utility.random_min is None else utility.random_min
        high = 1.0 if utility.random_max is None else utility.random_max
        if low > high:
            self._wrong(_node(node_id), f"random_min {low:g} is above random_max {high:g}")
        return Rule(random=(low, high))

    def _check_field(self, node_id: str, field: str, inputs: Mapping[str, Source]) -> None:
        if not inputs:
            self._wrong(_node(node_id), "it has no input; connect one")
        elif field and field not in inputs and field.split(".", maxsplit=1)[0] not in inputs:
            self._wrong(_node(node_id), f"field {field!r} is none of its inputs: {', '.join(inputs)}")

    def _check_expression(self, node_id: str, expression: str) -> None:
        try:
            expressions.check(expression)
        except InvalidRequest as error:
            self._wrong(_node(node_id), error.message)

    def _output_schema(self, outputs: Mapping[str, Source]) -> dict[str, Any]:
        """The schema of the run's output, as far as the schemas of its apps tell."""
        properties = {name: dict(self._schema_of(source)) for name, source in outputs.items()}
        definitions: dict[str, Any] = {}
        for schema in properties.values():
            for word in ("$defs", "definitions"):
                definitions.setdefault(word, {}).update(schema.pop(word, {}))
        return {
            "type": "object",
            "properties": properties,
            **{word: found for word, found in definitions.items() if found},
        }


def _node(node_id: str) -> str:
    return f"node {node_id!r}"


def _listed(types: frozenset[str]) -> str:
    return " or ".join(sorted(types)) or "anything"


def _version_in(ref: str) -> str:
    return parse_ref(ref).version if ref else ""


def _without_prefix(path: str, schema: Mapping[str, Any]) -> str:
    """A path as editors write it: `output.text` of a node is its field `text`, unless it has a field `output`."""
    rest = path.removeprefix("output.")
    return path if "output" in resolve(schema, schema).get("properties", {}) else rest
