"""Refused attempts for the record of changes: of each who tries, one a minute; all of them are refused all the same."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Final

from stoker.core.audit import REFUSAL_S, Action, Actor, change_of
from stoker.core.errors import StoreUnavailable
from stoker.protocol.audit import Audit

_REMEMBERED: Final = 10_000


class Attempts:
    """Those that one gateway process refuses. It asks Redis once a minute for each who tries."""

    def __init__(self, audit: Audit, clock: Callable[[], float] = time.monotonic) -> None:
        self._audit = audit
        self._clock = clock
        self._noted: dict[str, float] = {}

    async def unknown_key(self, address: str, tried: str) -> None:
        """A key came that is none. Of one address one is recorded, whichever keys it tries."""
        who = "from-" + hashlib.sha256(address.encode()).hexdigest()[:32]
        await self._note(who, "key", Actor(address=address), tried, "the key is unknown")

    async def expired(self, actor: Actor, tried: str) -> None:
        """The key's time is over."""
        await self._note(actor.key_id, actor.key_id, actor, tried, "the key has expired")

    async def lacks_scope(self, actor: Actor, tried: str, scope: str) -> None:
        """The key may not do that."""
        await self._note(actor.key_id, actor.key_id, actor, tried, f"the key lacks {scope}")

    async def _note(self, who: str, target: str, actor: Actor, tried: str, reason: str) -> None:
        now = self._clock()
        if self._noted.get(who, -REFUSAL_S) + REFUSAL_S > now:
            return
        if len(self._noted) >= _REMEMBERED:
            self._noted.clear()
        self._noted[who] = now
        change = change_of(Action.ACCESS_REFUSED, target, actor, request=tried, reason=reason)
        with contextlib.suppress(StoreUnavailable):  # the refusal is what counts
            await self._audit.refused(who, change)
