"""How a chat goes on: each event makes a new chat of an old one. Pure (but for `steps_now`), and safe to repeat.

What must be done for a chat is never kept as a list of orders: `stoker.agents.orders` reads it off the chat. So a
crash between a step and its orders loses nothing, and an event that comes twice finds that it has had its effect.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from stoker.agent_settings import AgentFields
from stoker.agents.chat import (
    CALL_OVER,
    WAITS_FOR_PEOPLE,
    CallStatus,
    Chat,
    Message,
    MessageStatus,
    Run,
    RunState,
    ToolCall,
    message_id,
)
from stoker.agents.config import Limits
from stoker.agents.hooks import Decision, HookEvent, Verdict
from stoker.agents.memory import remember
from stoker.agents.skills import skills_tool
from stoker.agents.telling import hold_call, told, without
from stoker.agents.tools import (
    INTERNAL_TOOLS,
    Internal,
    Tool,
    ToolType,
    argument_errors,
    finish_tool,
    read_arguments,
)
from stoker.core.errors import Conflict, NotFound
from stoker.core.waiting import UNBORN_S
from stoker.llm.contract import LlmOutput

MAX_NAME: Final = 60
"""Of a chat's name, which is the beginning of its first message."""
DENIED: Final = "The user did not allow this call"
_ENDINGS: Final = {RunState.FAILED: HookEvent.ERROR, RunState.COMPLETED: HookEvent.COMPLETE}
_encode = msgspec.json.Encoder().encode


class Said(Struct, frozen=True, kw_only=True):
    """What a user says."""

    text: str = ""
    images: tuple[Any, ...] = ()
    files: tuple[Any, ...] = ()


class Steps(Struct, frozen=True, kw_only=True):
    """The steps of one moment, within bounds."""

    now_ms: int
    bounds: Limits = Limits(turns=50, tool_calls=200)

    def say(self, chat: Chat, said: Said) -> Chat:
        """The user says something. It waits while the model or a tool works; what waits for people is given up."""
        waits = {call.status for call in chat.open_calls}
        if waits and waits <= WAITS_FOR_PEOPLE:
            chat = self._end(chat, RunState.CANCELED)
        chat = self._append(chat, role="user", status=MessageStatus.QUEUED, **asdict(said))
        name = chat.name or " ".join(said.text.split())[:MAX_NAME]
        chat = replace(chat, name=name, updated_ms=self.now_ms)
        return chat if chat.busy else self._next(chat)

    def asked(self, chat: Chat, part_id: str, execution_id: str) -> Chat:
        """The task of an answer, or what works for a call, was started."""
        message, call = chat.message(part_id), chat.call(part_id)
        if message is not None and message.status is MessageStatus.PENDING:
            chat = self._put(chat, message, task_id=execution_id)
            return self._state(chat, RunState.WORKING)
        if call is not None and call.status is CallStatus.IN_PROGRESS:
            return self._put_call(chat, call, execution_id=execution_id)
        return chat

    def answered(self, chat: Chat, answer_id: str, output: LlmOutput) -> Chat:
        """The model's answer is whole."""
        message = self._awaited(chat, answer_id)
        if message is None or chat.run is None:
            return chat
        run = replace(
            chat.run,
            tokens=chat.run.tokens + output.tokens,
            tool_calls=chat.run.tool_calls + len(output.tool_calls),
        )
        room = self._bound(chat, "tool_calls")
        calls = tuple(
            self._call(
                chat, message, number, asked, beyond=bool(room) and chat.run.tool_calls + number >= room
            )
            for number, asked in enumerate(output.tool_calls)
        )
        chat = self._put(
            replace(chat, run=run),
            message,
            status=MessageStatus.READY,
            text=output.response,
            reasoning=output.reasoning,
            reasoning_state=output.reasoning_state,
            images=output.images,
            usage=output.usage,
            calls=calls,
        )
        for call in calls:
            if call.status not in CALL_OVER:
                chat = self._told(chat, HookEvent.TOOL_CALL, call.id)
                chat = self._let(chat, call)
        return self._go_on(chat)

    def failed(self, chat: Chat, answer_id: str, why: str, *, cancelled: bool = False) -> Chat:
        """The model gave no answer."""
        message = self._awaited(chat, answer_id)
        if message is None:
            return chat
        status = MessageStatus.CANCELLED if cancelled else MessageStatus.FAILED
        chat = self._put(chat, message, status=status, error=why)
        return self._next(self._end(chat, RunState.CANCELED if cancelled else RunState.FAILED, why))

    def worked(self, chat: Chat, call_id: str, result: str, *, failed: bool = False) -> Chat:
        """A tool is done, or has failed: the model is told either way."""
        call = self._open(chat, call_id)
        if call is None or call.status is not CallStatus.IN_PROGRESS:
            return chat
        status = CallStatus.FAILED if failed else CallStatus.COMPLETED
        return self._go_on(self._put_call(chat, call, status=status, result=result))

    def in_session(self, chat: Chat, tool: Tool, session_id: str) -> Chat:
        """A call of a tool has opened a session, which the next ones join."""
        return replace(chat, sessions=chat.sessions | {tool.name: session_id})

    def out_of_session(self, chat: Chat, refused: Mapping[str, str]) -> Chat:
        """The sessions are over in which these calls (id -> tool) were to be made: they have not begun, one opens another."""
        gone = refused.values()
        chat = replace(chat, sessions={name: of for name, of in chat.sessions.items() if name not in gone})
        for call_id in refused:
            chat = self.asked(chat, call_id, "")
        return chat

    def give(self, chat: Chat, call_id: str, result: str) -> Chat:
        """The caller's own tool is done. The first result wins.

        Raises:
            NotFound: there is no such call.
            Conflict: it does not wait for a result.
        """
        call = self._waiting(chat, call_id, CallStatus.AWAITING_INPUT, "wait for a result")
        return self._go_on(self._put_call(chat, call, status=CallStatus.COMPLETED, result=result))

    def decide(self, chat: Chat, call_id: str, *, allow: bool, reason: str = "") -> Chat:
        """Somebody says whether a call may be made.

        Raises:
            NotFound: there is no such call.
            Conflict: it does not wait for a decision.
        """
        call = self._waiting(chat, call_id, CallStatus.AWAITING_APPROVAL, "wait for approval")
        if not allow:
            text = f"{DENIED}: {reason}" if reason else f"{DENIED}."
            changed = self._put_call(chat, call, status=CallStatus.CANCELLED, result=text, approval="deny")
            return self._go_on(changed)
        client = call.type is ToolType.CLIENT
        status = CallStatus.AWAITING_INPUT if client else CallStatus.IN_PROGRESS
        chat = self._put_call(chat, call, status=status, approval="allow", asked_ms=self.now_ms)
        allowed = chat.call(call_id)
        return self._go_on(self._inside(chat, allowed) if allowed else chat)

    def allow_always(self, chat: Chat, call_id: str) -> Chat:
        """Allow a call, and those of the same tool from now on.

        Raises:
            NotFound: there is no such call.
            Conflict: it does not wait for a decision.
        """
        call = self._waiting(chat, call_id, CallStatus.AWAITING_APPROVAL, "wait for approval")
        names = tuple(dict.fromkeys((*chat.always_allowed, call.name)))
        return self.decide(replace(chat, always_allowed=names), call_id, allow=True)

    def stop(self, chat: Chat) -> Chat:
        """End the run that is under way; what was said meanwhile is given up with it."""
        if not chat.busy:
            return chat
        for message in chat.messages:
            if message.status is MessageStatus.QUEUED:
                chat = self._put(chat, message, status=MessageStatus.CANCELLED)
        return self._idle(self._end(chat, RunState.CANCELED))

    def hooked(self, chat: Chat, hook_id: str, said: Verdict) -> Chat:
        """A hook that is waited for has answered."""
        asked = next((one for one in chat.hooks if one.id == hook_id), None)
        if asked is None:
            return chat
        chat = without(chat, hook_id)
        if not chat.busy or chat.run is None or chat.run.id != asked.run_id:
            return chat
        did = "stopped the run" if said.decision is Decision.STOP else "did not allow it"
        why = f"The hook of {asked.event} {did}" + (f": {said.reason}" if said.reason else ".")
        if said.decision is Decision.STOP:
            return self._next(self._end(chat, RunState.CANCELED, why))
        if asked.event is HookEvent.TOOL_CALL:
            call = self._open(chat, asked.part)
            return self._go_on(self._let(chat, call, said.decision, why)) if call is not None else chat
        if said.decision is Decision.DENY and asked.event in {HookEvent.START, HookEvent.TURN_START}:
            return self.failed(chat, chat.turn.id if chat.turn else "", why)
        return chat

    def tidied(self, chat: Chat, missing: Sequence[str] = ()) -> Chat:
        """What nobody waits for any more was ended; what was `missing` is looked for again, for it may be about to begin."""
        left = tuple(missing) if self.now_ms < chat.updated_ms + UNBORN_S * 1000 else ()
        return replace(chat, to_cancel=left) if chat.to_cancel != left else chat

    def told_parent(self, chat: Chat) -> Chat:
        """The chat that waits for this one knows that the run is over."""
        return replace(chat, parent_told=True)

    def unqueue(self, chat: Chat, queued_id: str) -> Chat:
        """Take a message back that has not had its turn.

        Raises:
            NotFound: there is no such message.
            Conflict: it has had its turn.
        """
        message = chat.message(queued_id)
        if message is None:
            raise NotFound("Message not found")
        if message.status is not MessageStatus.QUEUED:
            raise Conflict(f"The message is {message.status}; only one that is queued can be taken back.")
        return self._put(chat, message, status=MessageStatus.CANCELLED)

    def expire(self, chat: Chat, wait_s: float) -> Chat:
        """Give up waiting for callers' tools that are silent for too long; the model is told."""
        for call in chat.open_calls:
            if call.status is CallStatus.AWAITING_INPUT and call.asked_ms + wait_s * 1000 <= self.now_ms:
                text = f"No result came within {wait_s:g} seconds."
                chat = self._put_call(chat, call, status=CallStatus.CANCELLED, result=text)
                chat = self._go_on(chat)
        return chat

    def _begin(self, chat: Chat, message: Message) -> Chat:
        run = Run(
            id=f"{chat.id}-r{chat.runs + 1}",
            state=RunState.SUBMITTED,
            user_message_id=message.id,
            created_ms=self.now_ms,
            updated_ms=self.now_ms,
        )
        chat = replace(chat, run=run, runs=chat.runs + 1, parent_told=False)
        chat = self._told(chat, HookEvent.START, run.id)
        return self._turn(self._put(chat, message, status=MessageStatus.READY, run_id=run.id))

    def _turn(self, chat: Chat) -> Chat:
        """The model's turn, unless the run has had as much as it may."""
        run = chat.run
        assert run is not None  # noqa: S101 - a turn is always one of a run
        for name, have in (("turns", run.turns), ("tool_calls", run.tool_calls), ("tokens", run.tokens)):
            bound = self._bound(chat, name)
            if bound and have >= bound and run.turns:
                why = _used_up(bound, name)
                return self._next(
                    self._end(
                        self._append(chat, status=MessageStatus.FAILED, error=why), RunState.FAILED, why
                    )
                )
        chat = replace(chat, run=replace(run, turns=run.turns + 1, updated_ms=self.now_ms))
        chat = self._append(chat, status=MessageStatus.PENDING)
        return self._told(chat, HookEvent.TURN_START, chat.messages[-1].id)

    def _bound(self, chat: Chat, name: str) -> int:
        """How much of something a run may have: what the agent says, within what the system allows; 0 = any number."""
        bounds = (getattr(chat.config.limits, name), getattr(self.bounds, name))
        return min((bound for bound in bounds if bound), default=0)

    def _go_on(self, chat: Chat) -> Chat:
        """After a call has changed: ask people, wait for tools, or give the model its turn; or the run is over."""
        turn = chat.turn
        if turn is None or chat.run is None or chat.run.over or turn.status is not MessageStatus.READY:
            return chat
        done = next((call for call in turn.calls if _finished(call)), None)
        waits = {call.status for call in turn.calls} - CALL_OVER
        if done is not None or not waits:
            chat = self._told(chat, HookEvent.TURN_COMPLETE, turn.id)
        if done is not None:
            chat = self._end(chat, RunState.COMPLETED, output=done.arguments)
            return self._next(replace(chat, output=done.arguments))
        if not turn.calls:
            return self._next(self._end(chat, RunState.COMPLETED))
        if waits:
            asks = waits == {CallStatus.AWAITING_APPROVAL}
            return self._state(chat, RunState.INPUT_REQUIRED if asks else RunState.WORKING)
        for call in turn.calls:
            chat = self._append(
                chat,
                role="tool",
                status=MessageStatus.READY,
                tool_call_id=call.call_id,
                text=call.result or "",
            )
        return self._turn(self._state(chat, RunState.WORKING))

    def _end(self, chat: Chat, state: RunState, error: str = "", output: Any = None) -> Chat:
        """The run is over: what still works or waits for it is given up."""
        turn, run = chat.turn, chat.run
        assert run is not None  # noqa: S101 - only a run that is under way ends
        lost = []
        if turn is not None and turn.run_id == run.id:
            if turn.status is MessageStatus.PENDING:
                lost.append(turn.task_id)
                chat = self._put(chat, turn, status=MessageStatus.CANCELLED)
            for call in turn.calls:
                if call.status not in CALL_OVER:
                    if call.type in {ToolType.APP, ToolType.AGENT}:
                        lost.append(call.execution_id)
                    chat = self._put_call(
                        chat, call, status=CallStatus.CANCELLED, result="The call was cancelled."
                    )
        ended = replace(run, state=state, error=error, output=output, updated_ms=self.now_ms)
        to_cancel = (*chat.to_cancel, *(task for task in lost if task))
        chat = replace(chat, run=ended, to_cancel=to_cancel, updated_ms=self.now_ms)
        event = _ENDINGS.get(state)
        return self._told(chat, event, run.id) if event is not None else chat

    def _next(self, chat: Chat) -> Chat:
        """What was said meanwhile has its turn."""
        queued = next((m for m in chat.messages if m.status is MessageStatus.QUEUED), None)
        return self._begin(chat, queued) if queued is not None else self._idle(chat)

    def _idle(self, chat: Chat) -> Chat:
        run = chat.run
        return self._told(chat, HookEvent.IDLE, run.id, run.state) if run is not None else chat

    def _call(self, chat: Chat, message: Message, number: int, asked: Any, *, beyond: bool) -> ToolCall:
        """A call as the model wants it; what cannot be made is over at once, with the reason as its result."""
        tool = find_tool(chat, asked.name)
        arguments, wrong = read_arguments(asked.arguments)
        if tool is None:
            known = ", ".join(one.name for one in all_tools(chat)) or "none"
            wrong = f"There is no tool {asked.name!r}; there are: {known}."
        elif arguments is not None:
            wrong = argument_errors(tool.schema, arguments)
        if beyond:
            wrong = _used_up(self._bound(chat, "tool_calls"), "tool_calls")
        call = ToolCall(
            id=f"{message.id}-{number}",
            call_id=asked.id,
            name=asked.name,
            type=tool.type if tool else ToolType.INTERNAL,
            display_name=tool.display_name or tool.name if tool else asked.name,
            arguments=arguments or {},
            written=asked.arguments,
            status=CallStatus.FAILED,
            asked_ms=self.now_ms,
        )
        if tool is None or wrong:
            return replace(call, result=wrong, ended_ms=self.now_ms)
        return replace(call, status=CallStatus.PENDING)

    def _let(self, chat: Chat, call: ToolCall, decision: Decision = Decision.ALLOW, why: str = "") -> Chat:
        """Go on with a call that is pending: unless a hook is asked still, people are, or it is made."""
        if call.status is not CallStatus.PENDING:
            return chat
        if decision is Decision.DENY:
            return self._put_call(chat, call, status=CallStatus.CANCELLED, result=why)
        call = replace(call, suspended=call.suspended or decision is Decision.SUSPEND)
        if hold_call(chat, call.id):
            return self._put_call(chat, call)
        tool = find_tool(chat, call.name)
        asks = tool is not None and tool.require_approval
        asks = asks and not (chat.config.allow_all_tools or call.name in chat.always_allowed)
        status = CallStatus.AWAITING_INPUT if call.type is ToolType.CLIENT else CallStatus.IN_PROGRESS
        status = CallStatus.AWAITING_APPROVAL if asks or call.suspended else status
        call = replace(call, status=status, asked_ms=self.now_ms)
        return self._inside(self._put_call(chat, call), call)

    def _inside(self, chat: Chat, call: ToolCall) -> Chat:
        """Do what a tool of the chat itself does."""
        if call.type is not ToolType.INTERNAL or call.status is not CallStatus.IN_PROGRESS:
            return chat
        result = "ok"
        if call.name == Internal.PLAN:
            steps = [dict(step) for step in call.arguments.get("steps", ()) if isinstance(step, Mapping)]
            plan = tuple({"index": i, "status": "pending"} | step for i, step in enumerate(steps))
            chat = replace(chat, plan=plan)
        elif call.name == Internal.MEMORY:
            memory, result = remember(chat.memory, call.arguments)
            if memory is None:
                return self._put_call(chat, call, status=CallStatus.FAILED, result=result)
            chat = replace(chat, memory=memory)
        elif call.name == Internal.SKILLS:
            wanted = call.arguments.get("name")
            result = next((one.content for one in chat.config.skills if one.name == wanted), result)
        return self._put_call(chat, call, status=CallStatus.COMPLETED, result=result)

    def _awaited(self, chat: Chat, answer_id: str) -> Message | None:
        """The answer that the run waits for, when it is that one."""
        turn = chat.turn if chat.busy else None
        waits = turn is not None and turn.id == answer_id and turn.status is MessageStatus.PENDING
        return turn if waits else None

    def _open(self, chat: Chat, call_id: str) -> ToolCall | None:
        return next((call for call in chat.open_calls if call.id == call_id), None)

    def _waiting(self, chat: Chat, call_id: str, status: CallStatus, what: str) -> ToolCall:
        known = chat.call(call_id)
        if known is None:
            raise NotFound("Tool invocation not found")
        call = self._open(chat, call_id)
        if call is None or call.status is not status:
            raise Conflict(f"The call of {known.name} does not {what}: it is {known.status}.")
        return call

    def _state(self, chat: Chat, state: RunState) -> Chat:
        if chat.run is None or chat.run.over or chat.run.state is state:
            return chat
        run = replace(chat.run, state=state, updated_ms=self.now_ms)
        return replace(chat, run=run, updated_ms=self.now_ms)

    def _append(self, chat: Chat, *, role: str = "assistant", **fields: Any) -> Chat:
        order = chat.messages[-1].order + 1 if chat.messages else 0
        run_id = chat.run.id if chat.run is not None and role != "user" else ""
        message = Message(
            id=message_id(chat.id, order),
            order=order,
            role=role,
            run_id=run_id,
            created_ms=self.now_ms,
            updated_ms=self.now_ms,
            **fields,
        )
        return replace(chat, messages=(*chat.messages, message), updated_ms=self.now_ms)

    def _put(self, chat: Chat, message: Message, **changes: Any) -> Chat:
        changed = replace(message, updated_ms=self.now_ms, **changes)
        if message.status is MessageStatus.PENDING and changed.status is not MessageStatus.PENDING:
            changed = replace(changed, ended_ms=self.now_ms)
        messages = tuple(changed if one.id == message.id else one for one in chat.messages)
        return replace(chat, messages=messages, updated_ms=self.now_ms)

    def _put_call(self, chat: Chat, call: ToolCall, **changes: Any) -> Chat:
        message = next(one for one in chat.messages if any(c.id == call.id for c in one.calls))
        before = next(one for one in message.calls if one.id == call.id)
        changed = replace(call, **changes)
        ended = changed.status in CALL_OVER and before.status not in CALL_OVER
        if ended:
            changed = replace(changed, ended_ms=self.now_ms)
        chat = self._put(
            chat, message, calls=tuple(changed if one.id == call.id else one for one in message.calls)
        )
        return self._told(chat, HookEvent.TOOL_RESULT, call.id) if ended else chat

    def _told(self, chat: Chat, event: HookEvent, part: str, detail: str = "") -> Chat:
        return told(chat, event, part, self.now_ms, detail)


def steps_now(settings: AgentFields) -> Steps:
    """The steps of now, within the system's bounds."""
    bounds = Limits(
        turns=settings.agent_max_turns,
        tool_calls=settings.agent_max_tool_calls,
        tokens=settings.agent_max_tokens,
    )
    return Steps(now_ms=int(time.time() * 1000), bounds=bounds)


def all_tools(chat: Chat) -> tuple[Tool, ...]:
    """The tools that the model is told of."""
    config = chat.config
    inside = [INTERNAL_TOOLS[name] for name in config.internal if name in INTERNAL_TOOLS]
    if Internal.SKILLS in config.internal:
        inside.append(skills_tool(config.skills))
    if Internal.FINISH in config.internal or config.output_schema:
        inside.append(finish_tool(config.output_schema))
    return (*config.tools, *inside)


def find_tool(chat: Chat, name: str) -> Tool | None:
    """The tool that a model means by a name."""
    return next((tool for tool in all_tools(chat) if tool.name == name), None)


def _used_up(bound: int, name: str) -> str:
    return f"The run has used its {bound} {name.replace('_', ' ')} (limits.{name} of the agent)."


def _finished(call: ToolCall) -> bool:
    done = call.status is CallStatus.COMPLETED
    return done and call.type is ToolType.INTERNAL and call.name == Internal.FINISH
