"""Flows and their runs as clients read them."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import to_builtins

from stoker.core.ids import short_id
from stoker.core.messages import TaskView
from stoker.core.states import RunState
from stoker.flows import records
from stoker.flows.inputs import by_node
from stoker.flows.records import VersionEntry
from stoker.flows.run import Run
from stoker.protocol.documents import Document
from stoker_gateway.dialect import Dialect
from stoker_gateway.dto import iso, task_dto
from stoker_gateway.flow_edits import Acted
from stoker_gateway.flows import Flow

_EMPTY: dict[str, Any] = {
    "input_schema": {},
    "input": {},
    "output_schema": {},
    "output_mappings": {},
    "node_data": {},
    "nodes": [],
    "edges": [],
    "viewport": None,
    "fail_on_error": True,
}


def graph_dto(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a graph, each there."""
    return {name: empty if graph.get(name) is None else graph[name] for name, empty in _EMPTY.items()}


def version_dto(flow: Flow, entry: VersionEntry, graph: Mapping[str, Any]) -> dict[str, Any]:
    """A version of a flow."""
    return {
        "id": entry.id,
        "short_id": short_id(entry.id),
        "created_at": iso(entry.created_ms),
        "updated_at": iso(entry.created_ms),
        "flow_id": flow.document.id,
        "graph_version": entry.graph_version,
        **graph_dto(graph),
    }


def acted_dto(acted: Acted) -> dict[str, Any]:
    """What became of edits. `errors` is there when there are some: then nothing was done."""
    done = {"version": acted.version, "actions": [to_builtins(action) for action in acted.actions]}
    return done | ({"errors": [to_builtins(error) for error in acted.errors]} if acted.errors else {})


def flow_dto(flow: Flow, published: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A flow with its draft, and with the graph of its published version where that is given."""
    document, body = flow.document, flow.body
    draft = VersionEntry(
        id=body.draft_version_id, created_ms=document.updated_ms, graph_version=body.history.version
    )
    entry = next((one for one in body.versions if one.id == body.published_version_id), None)
    return {
        "id": document.id,
        "short_id": short_id(document.id),
        "created_at": iso(document.created_ms),
        "updated_at": iso(document.updated_ms),
        "user_id": document.owner_id,
        "team_id": document.owner_id,
        "visibility": body.visibility,
        "namespace": body.namespace,
        "name": body.name,
        "title": body.title,
        "description": body.description,
        "card_image": body.card_image,
        "thumbnail": body.thumbnail,
        "banner_image": body.banner_image,
        "app_id": body.app_id or None,
        "draft_version_id": body.draft_version_id,
        "draft_version": version_dto(flow, draft, body.graph),
        "published_version_id": body.published_version_id or None,
        "published_version": version_dto(flow, entry, published) if entry and published is not None else None,
        **graph_dto(body.graph),
    }


def run_dto(
    document: Document,
    parts: Mapping[str, str],
    dialect: Dialect,
    tasks: Mapping[str, TaskView] | None = None,
) -> dict[str, Any]:
    """A flow run.

    Args:
        document: of the run.
        parts: its parts; none in lists.
        dialect: of the reader: how states of tasks are numbered.
        tasks: by id, to be shown with their nodes.
    """
    run = records.run_of(document.body)
    own = msgspec.json.decode(parts.get(records.INPUT_PART, "{}"))
    outputs = records.outputs_of(dict(parts))
    cancelled = run.state is RunState.CANCELLED
    return {
        "id": document.id,
        "short_id": short_id(document.id),
        "created_at": iso(document.created_ms),
        "updated_at": iso(document.updated_ms),
        "user_id": document.owner_id,
        "team_id": document.owner_id,
        "visibility": run.visibility,
        "flow_id": run.flow_id,
        "flow_name": run.name,
        "flow_version_id": run.flow_version_id,
        "task_id": document.id if run.carried else None,
        "status": int(run.state),
        "status_text": run.state.wire_name,
        "error": run.error or None,
        "flow_run_started": iso(run.started_ms) if run.started_ms else None,
        "flow_run_finished": iso(run.ended_ms) if run.ended and not cancelled else None,
        "flow_run_cancelled": iso(run.ended_ms) if cancelled else None,
        "input": by_node(own) if isinstance(own, dict) else {},
        "fail_on_error": run.fail_on_error,
        "output": msgspec.json.decode(parts.get(records.OUTPUT_PART, "null")),
        "node_tasks": {
            name: {"task_id": node.task_id, **_task(node.task_id, tasks or {}, dialect, document.owner_id)}
            for name, node in run.nodes.items()
            if node.task_id
        },
        "node_statuses": {name: str(node.state) for name, node in run.nodes.items()},
        "node_errors": {name: node.error for name, node in run.nodes.items() if node.error},
        "node_outputs": outputs,
    }


def _task(task_id: str, tasks: Mapping[str, TaskView], dialect: Dialect, user_id: str) -> dict[str, Any]:
    view = tasks.get(task_id)
    return {} if view is None else {"task": task_dto(view, dialect, user_id)}


def task_ids(run: Run) -> list[str]:
    """The tasks of a run's nodes."""
    return [node.task_id for node in run.nodes.values() if node.task_id]
