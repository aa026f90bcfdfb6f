"""What a run of a flow is given: the flow's own input, and values that replace inputs of single nodes."""

from typing import Any

from msgspec import structs

from stoker.core.errors import InvalidRequest
from stoker.core.setup_key import fill_defaults
from stoker.flows.plan import Plan, Source
from stoker.flows.schema import INPUT

_FORM = frozenset({"Connection", "Value"})


def take_input(plan: Plan, given: Any) -> tuple[Plan, dict[str, Any]]:
    """The plan and the own input of a run.

    Args:
        plan: of the flow.
        given: `{field: value}`, or `{node: {key: {"Value": ...}}}` as runs show it; the flow's own input is the node
            `input` there.

    Raises:
        InvalidRequest: it is neither.
    """
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise InvalidRequest(
            f"Input validation failed: input: it is a {type(given).__name__}; it should be an object"
        )
    if not _is_by_node(plan, given):
        return plan, fill_defaults(plan.input_schema, given)
    own = {key: value.get("Value") for key, value in given.get(INPUT, {}).items()}
    values = {
        node_id: {key: value["Value"] for key, value in inputs.items() if value.get("Value") is not None}
        for node_id, inputs in given.items()
        if node_id != INPUT
    }
    own = {key: value for key, value in own.items() if value is not None}
    return _replaced(plan, values), fill_defaults(plan.input_schema, own)


def by_node(own: dict[str, Any]) -> dict[str, Any]:
    """A run's own input in the form in which runs show it."""
    return {INPUT: {key: {"Connection": None, "Value": value} for key, value in own.items()}}


def _is_by_node(plan: Plan, given: dict[str, Any]) -> bool:
    known = {INPUT, *(node.id for node in plan.nodes)}
    return bool(given) and all(
        name in known
        and isinstance(inputs, dict)
        and all(isinstance(value, dict) and set(value) <= _FORM for value in inputs.values())
        for name, inputs in given.items()
    )


def _replaced(plan: Plan, values: dict[str, dict[str, Any]]) -> Plan:
    nodes = tuple(
        structs.replace(
            node,
            inputs={
                **node.inputs,
                **{key: Source(value=value) for key, value in values.get(node.id, {}).items()},
            },
        )
        for node in plan.nodes
    )
    return structs.replace(plan, nodes=nodes)
