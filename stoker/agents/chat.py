"""A chat as it is stored: its head, its messages, the calls of tools in them, the run that is under way. Pure.

Ids are made of the chat's own: `<chat>-<order>` is a message, `<chat>-<order>-<number>` a call of a tool in it, so
whoever has the id of a call finds the chat, and a step that is taken twice makes the same ids.
"""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from stoker.agents.config import AgentConfig
from stoker.agents.hooks import HookCall
from stoker.agents.tools import ToolType
from stoker.core.messages import Owner

KIND: Final = "chat"
"""Of the document."""
CHAT_PREFIX: Final = "chat:"
"""Of what works for a call, when it is the chat of a sub-agent and no task."""


class ChatStatus(StrEnum):
    """What a chat is doing, in the platform's words."""

    BUSY = "busy"
    IDLE = "idle"
    AWAITING_INPUT = "awaiting_input"


class RunState(StrEnum):
    """Where a run stands, in the platform's words."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class MessageStatus(StrEnum):
    """Where a message stands."""

    PENDING = "pending"
    QUEUED = "queued"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CallStatus(StrEnum):
    """Where the call of a tool stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    AWAITING_INPUT = "awaiting_input"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUN_OVER: Final = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELED})
CALL_OVER: Final = frozenset({CallStatus.COMPLETED, CallStatus.FAILED, CallStatus.CANCELLED})
WAITS_FOR_PEOPLE: Final = frozenset({CallStatus.AWAITING_INPUT, CallStatus.AWAITING_APPROVAL})


class ToolCall(Struct, frozen=True, kw_only=True):
    """A tool invocation. `call_id` is the model's own id of it, `arguments` an object whatever the model wrote."""

    id: str
    call_id: str
    name: str
    type: ToolType
    status: CallStatus
    display_name: str = ""
    arguments: dict[str, Any] = {}
    written: str = "{}"  # the arguments as the model wrote them; it is shown them so again
    result: str | None = None
    execution_id: str = ""  # the task, or the chat of the sub-agent
    asked_ms: int = 0  # since when somebody is waited for
    approval: str = ""  # allow | deny, once somebody has decided
    ended_ms: int = 0  # since when it is over; 0 = it is not, or nobody noted it
    suspended: bool = False  # a hook wants people to decide


class Message(Struct, frozen=True, kw_only=True):
    """One message. Of an assistant's `task_id` is the answer's task."""

    id: str
    order: int
    role: str
    status: MessageStatus
    text: str = ""
    reasoning: str = ""
    reasoning_state: Any = None
    images: tuple[Any, ...] = ()
    files: tuple[Any, ...] = ()
    error: str = ""
    task_id: str = ""
    tool_call_id: str = ""
    run_id: str = ""
    calls: tuple[ToolCall, ...] = ()
    usage: dict[str, Any] = {}
    created_ms: int = 0
    updated_ms: int = 0
    ended_ms: int = 0  # since when an answer is whole, or is none


class Run(Struct, frozen=True, kw_only=True):
    """What one message of the user set going, up to the answer that calls no tool."""

    id: str
    state: RunState
    user_message_id: str
    error: str = ""
    output: Any = None
    turns: int = 0
    tool_calls: int = 0
    tokens: int = 0
    created_ms: int = 0
    updated_ms: int = 0

    @property
    def over(self) -> bool:
        return self.state in RUN_OVER


class Chat(Struct, frozen=True, kw_only=True):
    """A chat with its messages, oldest first."""

    id: str
    owner: Owner
    config: AgentConfig
    config_digest: str = ""  # of an agent that was described in the request; the next one may differ
    name: str = ""
    agent_id: str = ""
    agent_version_id: str = ""
    parent_id: str = ""
    parent_call: str = ""
    context: dict[str, str] = {}
    output: Any = None
    plan: tuple[dict[str, Any], ...] = ()
    memory: dict[str, str] = {}
    always_allowed: tuple[str, ...] = ()
    sessions: dict[str, str] = {}  # by the names of the tools whose calls share one
    run: Run | None = None
    runs: int = 0
    to_cancel: tuple[str, ...] = ()  # tasks and chats of sub-agents that nobody waits for any more
    parent_told: bool = False
    hooks: tuple[HookCall, ...] = ()  # that are to be told of something
    files_url: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    messages: tuple[Message, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self.run is not None and not self.run.over

    @property
    def status(self) -> ChatStatus:
        """As the chat itself tells it."""
        if self.run is None or self.run.over:
            return ChatStatus.IDLE
        asks = self.run.state is RunState.INPUT_REQUIRED
        return ChatStatus.AWAITING_INPUT if asks else ChatStatus.BUSY

    @property
    def polled_status(self) -> ChatStatus:
        """As who polls is told it: it differs from `status` while the caller's own tool waits, so that he looks."""
        if self.busy and any(call.status in WAITS_FOR_PEOPLE for call in self.open_calls):
            return ChatStatus.AWAITING_INPUT
        return self.status

    @property
    def turn(self) -> Message | None:
        """The last message of the assistant: the one that is being written, or whose tools work."""
        return next((message for message in reversed(self.messages) if message.role == "assistant"), None)

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that are not over."""
        turn = self.turn
        return (
            tuple(call for call in turn.calls if call.status not in CALL_OVER) if turn and self.busy else ()
        )

    def message(self, message_id: str) -> Message | None:
        return next((message for message in self.messages if message.id == message_id), None)

    def call(self, call_id: str) -> ToolCall | None:
        return next((call for message in self.messages for call in message.calls if call.id == call_id), None)


def message_id(chat_id: str, order: int) -> str:
    """The id of a chat's message."""
    return f"{chat_id}-{order}"


def chat_of(part_id: str) -> str:
    """The chat that a message, a call, a run or an interrupt belongs to, by its id."""
    return part_id.partition("-")[0]


def interrupt_id(call_id: str) -> str:
    """The id of the question whether a call may be made."""
    return f"{call_id}-ask"
