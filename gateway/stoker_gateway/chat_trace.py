"""The steps of a chat as a graph: what was said, each answer of the model, each question to people, each call of a tool. Pure.

Steps of one run follow each other (`execution`); calls of one answer lie beside each other, and all of them come before
the next answer. The last steps of a run lead to the message that began the next one (`flow`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

from stoker.agents.chat import (
    CALL_OVER,
    CHAT_PREFIX,
    CallStatus,
    Chat,
    Message,
    MessageStatus,
    ToolCall,
    interrupt_id,
)
from stoker.agents.step import MAX_NAME
from stoker.agents.tools import ToolType
from stoker.core.ids import short_id
from stoker.core.states import TERMINAL, TaskState
from stoker_gateway.dto import LAST_MS, iso

Moves = Sequence[tuple[int, int, int]]
"""(attempt, state, time) of a task."""
MAX_ERROR: Final = 1000
"""Characters of an error that a node shows; the chat has all of it."""
COUNTED: Final = ("completed", "running", "failed")
_OF_MESSAGE: Final = {
    MessageStatus.PENDING: "running",
    MessageStatus.QUEUED: "pending",
    MessageStatus.READY: "completed",
    MessageStatus.FAILED: "failed",
    MessageStatus.CANCELLED: "cancelled",
}
_OF_CALL: Final = {
    CallStatus.PENDING: "pending",
    CallStatus.IN_PROGRESS: "running",
    CallStatus.AWAITING_INPUT: "running",
    CallStatus.AWAITING_APPROVAL: "pending",
    CallStatus.COMPLETED: "completed",
    CallStatus.FAILED: "failed",
    CallStatus.CANCELLED: "cancelled",
}


class Times(Struct, frozen=True, kw_only=True):
    """Of a step, in milliseconds since 1970; 0 = not yet, or not known any more."""

    ready: int = 0  # it could begin
    started: int = 0
    completed: int = 0


def task_ids(chat: Chat) -> list[str]:
    """The tasks of a chat's steps."""
    calls = [call for message in chat.messages for call in message.calls]
    named = [*(message.task_id for message in chat.messages), *(_task_of(call) for call in calls)]
    return [name for name in named if name]


def trace_dto(chat: Chat, moves: Mapping[str, Moves]) -> dict[str, Any]:
    """The graph of a chat.

    Args:
        chat: with its messages.
        moves: of its tasks, by id, as far as these are kept: without them a step has the times that the chat knows.
    """
    nodes, edges = _Graph(chat, moves).whole()
    counts = {f"{name}_steps": sum(node["status"] == name for node in nodes) for name in COUNTED}
    return {"graph_id": chat.id, "nodes": nodes, "edges": edges, "total_steps": len(nodes)} | counts


class _Graph:
    def __init__(self, chat: Chat, moves: Mapping[str, Moves]) -> None:
        self._chat = chat
        self._moves = moves
        self._nodes: list[dict[str, Any]] = []
        self._edges: list[dict[str, Any]] = []
        self._ends: dict[str, list[str]] = {}  # run -> its steps that nothing follows yet
        self._begins: dict[str, str] = {}  # run -> the message that began it; in the order of the runs

    def whole(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        for message in self._chat.messages:
            if message.role == "user":
                self._said(message)
            elif message.role == "assistant":
                self._answer(message)
        runs = sorted((run for run in self._begins if run), key=_number)
        for before, after in pairwise(runs):
            for end in self._ends[before]:
                self._edge(end, self._begins[after], "flow")
        return self._nodes, self._edges

    def _said(self, message: Message) -> None:
        times = Times(ready=message.created_ms, started=message.created_ms, completed=message.created_ms)
        waits = message.status is MessageStatus.QUEUED
        label = " ".join(message.text.split())[:MAX_NAME] or "message"
        self._node(
            *(message.id, "trigger", label, "chat_message", message.id, _OF_MESSAGE[message.status]),
            Times(ready=message.created_ms) if waits else times,
            {"agent_run_id": message.run_id},
        )
        if message.run_id:
            self._begins[message.run_id] = message.id
            self._ends[message.run_id] = [message.id]

    def _answer(self, message: Message) -> None:
        status = _OF_MESSAGE[message.status]
        if message.status is MessageStatus.PENDING and not message.task_id:
            status = "ready"
        known = Times(ready=message.created_ms, started=message.created_ms, completed=message.ended_ms)
        kind, resource = ("task", message.task_id) if message.task_id else ("chat_message", message.id)
        self._node(
            *(message.id, "execution", "answer", kind, resource, status),
            self._times(message.task_id, known),
            {
                "chat_message_id": message.id,
                "agent_run_id": message.run_id,
                "task_id": message.task_id,
                "usage": message.usage,
                "error": message.error[:MAX_ERROR],
            },
        )
        for end in self._ends.get(message.run_id, ()):
            self._edge(end, message.id)
        self._ends[message.run_id] = [self._call(message, call) for call in message.calls] or [message.id]

    def _call(self, message: Message, call: ToolCall) -> str:
        waits = call.status is CallStatus.AWAITING_APPROVAL
        before = self._approval(message, call) if waits or call.approval else message.id
        child = call.execution_id.removeprefix(CHAT_PREFIX) if call.type is ToolType.AGENT else ""
        task = _task_of(call)
        over = call.status in CALL_OVER
        asked = 0 if waits or call.approval == "deny" else call.asked_ms
        known = Times(ready=asked, started=asked, completed=call.ended_ms if over else 0)
        kind, resource = next(
            (kind, name)
            for kind, name in (("task", task), ("chat", child), ("tool_invocation", call.id))
            if name
        )
        failed = call.status is CallStatus.FAILED
        self._node(
            *(call.id, "execution", call.display_name or call.name, kind, resource, _OF_CALL[call.status]),
            self._times(task, known),
            {
                "chat_message_id": message.id,
                "agent_run_id": message.run_id,
                "tool_invocation_id": call.id,
                "tool_call_id": call.call_id,
                "tool_name": call.name,
                "tool_type": str(call.type),
                "task_id": task,
                "chat_id": child,
                "error": (call.result or "")[:MAX_ERROR] if failed else "",
            },
        )
        self._edge(before, call.id, "execution" if before == message.id else "conditional")
        return call.id

    def _approval(self, message: Message, call: ToolCall) -> str:
        """The question whether a call may be made."""
        own_id, decided = interrupt_id(call.id), bool(call.approval)
        asked = message.ended_ms or message.created_ms
        # A call that was allowed is asked of its tool at that moment; one that was refused is over then.
        at = call.asked_ms if call.approval == "allow" else call.ended_ms
        self._node(
            *(own_id, "approval", call.display_name or call.name, "interrupt", own_id),
            "completed" if decided else "running",
            Times(ready=asked, started=asked, completed=at if decided else 0),
            {"chat_message_id": message.id, "tool_invocation_id": call.id, "resolution": call.approval},
        )
        self._edge(message.id, own_id)
        return own_id

    def _times(self, task_id: str, known: Times) -> Times:
        """Of a step that is a task: when its function began, and when it ended, as the task tells."""
        # An engine may have written what is no time.
        moves = [move for move in self._moves.get(task_id, ()) if move[2] <= LAST_MS]
        if not moves:
            return known
        running = [at for _, state, at in moves if state == TaskState.RUNNING]
        ended = [at for _, state, at in moves if state in TERMINAL]
        return Times(
            ready=moves[0][2],
            started=running[-1] if running else 0,
            completed=ended[-1] if ended else known.completed,
        )

    def _node(
        self,
        own_id: str,
        kind: str,
        label: str,
        resource_type: str,
        resource_id: str,
        status: str,
        times: Times,
        metadata: dict[str, Any],
    ) -> None:
        known = [at for at in (times.completed, times.started, times.ready) if at]
        begun = times.started or times.ready
        node = {
            "id": own_id,
            "short_id": short_id(own_id),
            "created_at": iso(times.ready or self._chat.created_ms),
            "updated_at": iso(known[0] if known else self._chat.created_ms),
            "graph_id": self._chat.id,
            "type": kind,
            "label": label,
            "resource_type": resource_type,
            "resource_id": resource_id,
            "status": status,
            "metadata": {name: value for name, value in metadata.items() if value},
            "ready_at": iso(times.ready) if times.ready else None,
            "started_at": iso(times.started) if times.started else None,
            "completed_at": iso(times.completed) if times.completed else None,
            "duration_ms": max(0, times.completed - begun) if times.completed and begun else None,
        }
        self._nodes.append(node)

    def _edge(self, before: str, after: str, kind: str = "execution") -> None:
        own_id = f"{before}:{after}"
        self._edges.append({"id": own_id, "type": kind, "from_node": before, "to_node": after})


def _task_of(call: ToolCall) -> str:
    return call.execution_id if call.type is ToolType.APP else ""


def _number(run_id: str) -> int:
    """Which of a chat's runs it is, by its id."""
    digits = run_id.rpartition("-r")[2]
    return int(digits) if digits.isdecimal() else 0
