"""Lifecycle hooks: addresses that are told what an agent does, and may have a say in it. Pure.

A hook that is `async` is told as webhooks are, and tried again for long; any other is called once, and what it is about
waits for its answer.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from stoker.agents.fields import address_in, refused

MAX_HOOKS: Final = 32
"""Of one agent."""
TIMEOUT_S: Final = 10.0
TIMEOUT_MAX_S: Final = 30.0
"""Of a hook that is waited for; such calls are made one after another, as those of tools are."""
PLATFORMS_OWN: Final = "belt:"
"""What handlers begin with that are built into the platform; nothing comes of them here."""
REASON_CHARS: Final = 500


class HookEvent(StrEnum):
    """What is told, in the platform's words."""

    START = "agent.start"
    TURN_START = "agent.turn_start"
    TOOL_CALL = "agent.tool_call"
    TOOL_RESULT = "agent.tool_result"
    TURN_COMPLETE = "agent.turn_complete"
    ERROR = "agent.error"
    COMPLETE = "agent.complete"
    IDLE = "agent.idle"
    PRE_COMPACT = "agent.pre_compact"
    """Never happens here: a conversation is not shortened."""
    POST_COMPACT = "agent.post_compact"


HOLD_THE_MODEL: Final = frozenset(
    {HookEvent.START, HookEvent.TURN_START, HookEvent.TOOL_RESULT, HookEvent.TURN_COMPLETE}
)
"""While a hook of these is waited for, the model is not asked. `TOOL_CALL` holds its call, and the others nothing."""


class Decision(StrEnum):
    """What a hook may say."""

    ALLOW = "allow"
    DENY = "deny"
    STOP = "stop"
    SUSPEND = "suspend"
    """Ask people."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a hook said."""

    decision: Decision = Decision.ALLOW
    reason: str = ""


class Hook(Struct, frozen=True, kw_only=True):
    """A hook. `owner_id`: of the agent; his secret signs what it is told."""

    event: HookEvent
    url: str
    waits: bool = True
    timeout_s: float = TIMEOUT_S
    owner_id: str = ""


class HookCall(Struct, frozen=True, kw_only=True):
    """A hook that is to be told of something: of a run, a message or a call, by its id."""

    id: str
    hook: Hook
    part: str
    run_id: str
    at_ms: int
    detail: str = ""

    @property
    def event(self) -> HookEvent:
        return self.hook.event

    @property
    def holds_the_model(self) -> bool:
        return self.hook.waits and self.event in HOLD_THE_MODEL

    def holds_call(self, call_id: str) -> bool:
        """Whether a call is not made yet because of it."""
        return self.hook.waits and self.event is HookEvent.TOOL_CALL and self.part == call_id


def read_hooks(given: Sequence[Mapping[str, Any]]) -> tuple[Hook, ...]:
    """The hooks of a config.

    Raises:
        InvalidRequest: names the field and what it may be.
    """
    if len(given) > MAX_HOOKS:
        raise refused("hooks", f"an agent may have {MAX_HOOKS} hooks; this one has {len(given)}")
    found = (_hook(one, number) for number, one in enumerate(given))
    return tuple(hook for hook in found if hook is not None)


def read_verdict(text: str) -> Verdict:
    """What the answer of a hook says. One that says nothing of the kind allows."""
    try:
        said = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Verdict()
    decision = said.get("decision") if isinstance(said, dict) else None
    if not isinstance(decision, str) or decision not in set(Decision):
        return Verdict()
    return Verdict(decision=Decision(decision), reason=str(said.get("reason") or "")[:REASON_CHARS])


def verdict_of(event: HookEvent, failed: str) -> Verdict:
    """What holds when a hook did not answer: what a tool does cannot be undone, so it is not called; the rest goes on."""
    if event is HookEvent.TOOL_CALL:
        return Verdict(decision=Decision.DENY, reason=f"it could not be asked ({failed})")
    return Verdict()


def _hook(given: Mapping[str, Any], number: int) -> Hook | None:
    """None: it is built into the platform."""
    kind, handler, event = given.get("type") or "webhook", given.get("handler"), given.get("event")
    if kind == "builtin" and isinstance(handler, str) and handler.startswith(PLATFORMS_OWN):
        return None
    if kind != "webhook":
        raise refused(
            f"hooks.{number}.type",
            f"hooks of the type {str(kind)[:60]!r} are not done here; it may be webhook (and builtin with a handler "
            f"that begins with {PLATFORMS_OWN}, which is left out)",
        )
    if not isinstance(event, str) or event not in set(HookEvent):
        raise refused(
            f"hooks.{number}.event", f"{str(event)[:60]!r} is unknown; it may be {', '.join(HookEvent)}"
        )
    return Hook(
        event=HookEvent(event),
        url=address_in(handler, f"hooks.{number}.handler"),
        waits=given.get("async") is not True,
        timeout_s=_timeout(given.get("timeout"), number),
    )


def _timeout(given: object, number: int) -> float:
    if given is None:
        return TIMEOUT_S
    usable = isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= TIMEOUT_MAX_S
    if not usable:
        raise refused(
            f"hooks.{number}.timeout",
            f"{str(given)[:60]!r} is no number of seconds above 0 and up to {TIMEOUT_MAX_S:g}",
        )
    return float(str(given))
