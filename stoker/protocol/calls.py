"""Calls of strangers' addresses that chats wait for: who asks, whose turn it is, who makes one.

What is asked is a hint, as in the outbox: whoever takes one reads the chat, which says whether the call is still to be
made. Two that ask for the same call while it waits or goes on ask once; one whose process died is asked for anew
when the chat is looked at the next time.
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from stoker.core.errors import InvalidRequest
from stoker.core.events import Event
from stoker.core.ids import check_name
from stoker.log import get_logger
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.tokens import new_token

_log = get_logger("calls")

FORGOTTEN_MS: Final = 60_000
"""When a call that waits may be asked for again: about as often as its chat is looked at."""


class CallKind(StrEnum):
    """What an address is called for."""

    TOOL = "tool"
    HOOK = "hook"


class AddressCall(Struct, frozen=True, kw_only=True):
    """A call. `part_id`: of the invocation of a tool, or of the hook, in the chat."""

    kind: CallKind
    chat_id: str
    part_id: str


class Calls:
    """Those of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def ask(self, call: AddressCall) -> bool:
        """Have a call made; whether nobody had asked before.

        Raises:
            StoreUnavailable: no answer; safe to repeat.
        """
        keys = [self._keys.call(call.part_id), self._keys.calls]
        text = f"{call.kind} {call.chat_id} {call.part_id}"
        [asked] = await self._connection.script("ask_call", keys, [text, FORGOTTEN_MS])
        return bool(asked)

    async def next(self, block_s: float) -> AddressCall | None:
        """The call whose turn it is, waited for up to `block_s`.

        Raises:
            StoreUnavailable: no answer.
        """
        reply = await self._connection.block("BLPOP", self._keys.calls, block_s, timeout_s=block_s + 2)
        if reply is None:
            return None
        try:
            kind, chat_id, part_id = reply[1].decode().split(" ")
            return AddressCall(
                kind=CallKind(kind), chat_id=check_name("chat", chat_id), part_id=check_name("part", part_id)
            )
        except (ValueError, InvalidRequest) as error:
            _log.warning(Event.OUTBOX_UNREADABLE, reason=type(error).__name__)
            return None

    async def take(self, call: AddressCall, lease_s: float) -> bool:
        """Begin a call; False when another process makes it.

        Raises:
            StoreUnavailable: no answer; it may be taken until the lease ends.
        """
        [taken] = await self._connection.script(
            "take_call", [self._keys.call(call.part_id)], [round(lease_s * 1000), new_token()]
        )
        return bool(taken)

    async def hold(self, call: AddressCall, lease_s: float) -> None:
        """Go on with a call that is held.

        Raises:
            StoreUnavailable: no answer.
        """
        await self._connection.command("PEXPIRE", self._keys.call(call.part_id), round(lease_s * 1000))

    async def release(self, call: AddressCall) -> None:
        """A call is over, or nobody makes it any more: it may be asked for again.

        Raises:
            StoreUnavailable: no answer; the lease ends by itself.
        """
        await self._connection.command("DEL", self._keys.call(call.part_id))
