"""Single edits of a flow's draft, as editors send them. Pure: a graph and actions make a new graph, or say what is wrong.

A sound graph stays sound: each end of an edge, each connection and each output is of a node that is there, no id is
there twice, and nothing waits for itself. What may be unfinished in a draft (a node without an app, an input without
a value) may be so here; `compile_graph` refuses it when the flow is to run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from stoker.core.errors import InvalidRequest
from stoker.flows.draft import Draft
from stoker.flows.schema import INPUT, InputValue, NodeData, OutputMapping

P = TypeVar("P")
UNDO: Final = "undo"
REDO: Final = "redo"
MAX_ACTIONS: Final = 500
"""Of one request; an editor sends a few, a paste of a whole flow some hundreds."""
EDGE_TYPE: Final = "default"


class Action(Struct, frozen=True, kw_only=True):
    """One edit; which payload it has depends on its type."""

    type: str
    payload: dict[str, Any] | None = None


class ActionError(Struct, frozen=True, kw_only=True):
    """Why an action cannot be done. `index` counts from 0."""

    index: int
    type: str
    message: str


class Edited(Struct, frozen=True, kw_only=True):
    """What became of a graph: all actions were done, or none."""

    graph: dict[str, Any]
    errors: tuple[ActionError, ...] = ()


class Position(Struct, frozen=True, kw_only=True):
    """Where a node stands in the editor, or how far it moves."""

    x: float = 0
    y: float = 0


class AddNode(Struct, frozen=True, kw_only=True):
    id: str
    type: str = ""
    position: Position = Position()
    data: dict[str, Any] | None = None


class OneId(Struct, frozen=True, kw_only=True):
    id: str


class MoveNode(Struct, frozen=True, kw_only=True):
    id: str
    position: Position


class MoveNodes(Struct, frozen=True, kw_only=True):
    positions: dict[str, Position]


class DuplicateNode(Struct, frozen=True, kw_only=True):
    source_id: str
    new_id: str
    offset: Position = Position()


class RenameNode(Struct, frozen=True, kw_only=True):
    old_id: str
    new_id: str


class SetApp(Struct, frozen=True, kw_only=True):
    node_id: str
    app_id: str
    app_version_id: str = ""
    function: str = ""


class UpdateNode(Struct, frozen=True, kw_only=True):
    node_id: str
    patch: dict[str, Any]


class OneInput(Struct, frozen=True, kw_only=True):
    node_id: str
    input_key: str


class SetInput(OneInput, frozen=True, kw_only=True):
    input: dict[str, Any]


class AddEdge(Struct, frozen=True, kw_only=True):
    id: str
    source: str
    target: str
    source_handle: str | None = None
    target_handle: str | None = None


class SetSchema(Struct, frozen=True, kw_only=True):
    schema: dict[str, Any] | None


class OneField(Struct, frozen=True, kw_only=True):
    field: str


class SetOutput(OneField, frozen=True, kw_only=True):
    mapping: dict[str, Any]


class RenameField(Struct, frozen=True, kw_only=True):
    old_field: str
    new_field: str


def edit(graph: Mapping[str, Any], actions: Sequence[Action]) -> Edited:
    """Do the actions, one after the other.

    Args:
        graph: of a draft, as stored.
        actions: all of them are done, or none. Each that cannot be done says why; one that needs a node which
            another one failed to make cannot be done either.
    """
    draft, errors = Draft(graph), []
    for index, action in enumerate(actions):
        try:
            _do(draft, action)
        except InvalidRequest as error:
            errors.append(ActionError(index=index, type=action.type, message=error.message))
    return Edited(graph=dict(graph) if errors else draft.graph(), errors=tuple(errors))


def _do(draft: Draft, action: Action) -> None:
    do = _ACTIONS.get(action.type)
    if do is None:
        raise InvalidRequest(f"the action is unknown; there are: {', '.join((*_ACTIONS, UNDO, REDO))}")
    do(draft, action.payload or {})


def _add_node(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, AddNode)
    draft.check_new_node(given.id, given.type)
    data = dict(given.data or {})
    _check(data, NodeData, "data")
    node = {"id": given.id, "type": given.type, "position": _position(given.position)}
    draft.add_node(node, data)


def _remove_node(draft: Draft, payload: dict[str, Any]) -> None:
    draft.remove_node(_read(payload, OneId).id)


def _move_node(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, MoveNode)
    draft.change_node(given.id, position=_position(given.position))


def _move_nodes(draft: Draft, payload: dict[str, Any]) -> None:
    for node_id, position in _read(payload, MoveNodes).positions.items():
        draft.change_node(node_id, position=_position(position))


def _duplicate_node(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, DuplicateNode)
    source = draft.own_node(given.source_id)
    draft.check_new_node(given.new_id, str(source.get("type", "")))
    at = _check(source.get("position") or {}, Position, "source_id: its position")
    moved = {"x": at.x + given.offset.x, "y": at.y + given.offset.y}
    draft.add_node(
        {**source, "id": given.new_id, "position": moved}, dict(draft.node_data.get(given.source_id, {}))
    )
    if given.source_id in draft.input:
        draft.input[given.new_id] = dict(draft.input[given.source_id])


def _rename_node(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, RenameNode)
    node = draft.own_node(given.old_id)
    if given.new_id != given.old_id:
        draft.check_new_node(given.new_id, str(node.get("type", "")), one_more=False)
        draft.rename_node(given.old_id, given.new_id)


def _set_app(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, SetApp)
    draft.own_node(given.node_id)
    named = {
        "app_id": given.app_id,
        "app_version_id": given.app_version_id,
        "function": given.function or None,
    }
    # `app` is the former one: a reference to it, or a copy of its record.
    kept = {name: value for name, value in draft.node_data.get(given.node_id, {}).items() if name != "app"}
    draft.node_data[given.node_id] = kept | named


def _update_node(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, UpdateNode)
    draft.node(given.node_id)
    data = {**draft.node_data.get(given.node_id, {}), **given.patch}
    data = {name: value for name, value in data.items() if value is not None or name not in given.patch}
    _check(data, NodeData, "patch")
    draft.node_data[given.node_id] = data


def _set_input(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, SetInput)
    draft.node(given.node_id)
    value = _check(given.input, InputValue, "input")
    if value.connection is not None:
        draft.check_order(value.connection.node_id, given.node_id)
    draft.input[given.node_id] = {**draft.input.get(given.node_id, {}), given.input_key: given.input}


def _clear_input(draft: Draft, payload: dict[str, Any]) -> None:
    """What is not set is as wanted."""
    given = _read(payload, OneInput)
    draft.node(given.node_id)
    kept = {key: one for key, one in draft.input.get(given.node_id, {}).items() if key != given.input_key}
    draft.input.pop(given.node_id, None)
    if kept:
        draft.input[given.node_id] = kept


def _add_edge(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, AddEdge)
    if not given.id or any(edge.get("id") == given.id for edge in draft.edges):
        raise InvalidRequest(f"an edge needs an id that no other one has; {given.id!r} is taken or empty")
    draft.node(given.target)
    draft.check_order(given.source, given.target)
    handles = {"source_handle": given.source_handle, "target_handle": given.target_handle}
    draft.edges.append(
        {"id": given.id, "type": EDGE_TYPE, "source": given.source, "target": given.target}
        | {name: handle for name, handle in handles.items() if handle is not None}
    )


def _remove_edge(draft: Draft, payload: dict[str, Any]) -> None:
    edge_id = _read(payload, OneId).id
    kept = [edge for edge in draft.edges if edge.get("id") != edge_id]
    if len(kept) == len(draft.edges):
        raise InvalidRequest(
            f"there is no edge {edge_id!r}; there are: {_names(e.get('id') for e in draft.edges)}"
        )
    draft.edges = kept


def _set_input_schema(draft: Draft, payload: dict[str, Any]) -> None:
    draft.rest["input_schema"] = _read(payload, SetSchema).schema or {}


def _set_output_schema(draft: Draft, payload: dict[str, Any]) -> None:
    draft.rest["output_schema"] = _read(payload, SetSchema).schema or {}


def _set_output(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, SetOutput)
    _check_field(given.field)
    mapping = _check(given.mapping, OutputMapping, "mapping")
    if mapping.source_node_id != INPUT:
        draft.node(mapping.source_node_id)
    draft.output_mappings[given.field] = {**given.mapping, "outputFieldName": given.field}


def _remove_output(draft: Draft, payload: dict[str, Any]) -> None:
    field = _read(payload, OneField).field
    _known_output(draft, field)
    del draft.output_mappings[field]


def _rename_output(draft: Draft, payload: dict[str, Any]) -> None:
    given = _read(payload, RenameField)
    _known_output(draft, given.old_field)
    _check_field(given.new_field)
    if given.new_field == given.old_field:
        return
    if given.new_field in draft.output_mappings:
        raise InvalidRequest(f"there is an output {given.new_field!r} already; remove it first")
    draft.output_mappings = {
        given.new_field if name == given.old_field else name: mapping | {"outputFieldName": given.new_field}
        if name == given.old_field
        else mapping
        for name, mapping in draft.output_mappings.items()
    }


def _known_output(draft: Draft, field: str) -> None:
    if field not in draft.output_mappings:
        raise InvalidRequest(f"there is no output {field!r}; there are: {_names(draft.output_mappings)}")


def _check_field(field: str) -> None:
    if not field:
        raise InvalidRequest("an output needs a name")


def _read(payload: dict[str, Any], kind: type[P]) -> P:
    return _check(payload, kind, "")


def _check(given: Any, kind: type[P], name: str) -> P:
    """`given` as that kind, which the stored form has to be.

    Raises:
        InvalidRequest: names the field that is not what it should be.
    """
    where = f"payload.{name}" if name else "payload"
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{where}: {error}") from error


def _position(position: Position) -> dict[str, float]:
    return {"x": position.x, "y": position.y}


def _names(names: Any) -> str:
    return ", ".join(str(name) for name in names) or "none"


_ACTIONS: Final[dict[str, Callable[[Draft, dict[str, Any]], None]]] = {
    "node.add": _add_node,
    "node.remove": _remove_node,
    "node.move": _move_node,
    "node.move_many": _move_nodes,
    "node.duplicate": _duplicate_node,
    "node.rename": _rename_node,
    "node.set_app": _set_app,
    "node.update": _update_node,
    "node.set_input": _set_input,
    "node.clear_input": _clear_input,
    "edge.add": _add_edge,
    "edge.remove": _remove_edge,
    "flow.set_input_schema": _set_input_schema,
    "flow.set_output_schema": _set_output_schema,
    "flow.set_output_mapping": _set_output,
    "flow.remove_output_mapping": _remove_output,
    "flow.rename_output_field": _rename_output,
}
TYPES: Final = (*_ACTIONS, UNDO, REDO)
