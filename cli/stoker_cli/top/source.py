"""Asks the gateway for what `stoker top` shows, again and again, also when it goes away and comes back."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from stoker_cli.answers import ApiError
from stoker_cli.api import Api
from stoker_cli.output import CommandFailed, ExitCode, items_of
from stoker_cli.top.frame import Snapshot
from stoker_cli.top.words import time_of

ANSWER_S: Final = 5.0
"""A gateway that takes longer counts as away."""
FIRST_ANSWER_S: Final = 20.0
"""At the start there is nothing else to show meanwhile."""
WAITING_SHOWN: Final = 100
_NO_ROUTE: Final = 404


class Source:
    """One gateway as the settings name it. `close` at the end."""

    def __init__(self) -> None:
        self._api: Api | None = None

    async def read(self, answer_s: float = ANSWER_S) -> Snapshot:
        """What there is now.

        Raises:
            CommandFailed: no gateway answers, or it refuses the key.
        """
        if self._api is None:
            self._api = Api.from_settings()  # after an absence the gateway may be elsewhere
        api = self._api
        try:
            async with asyncio.timeout(answer_s):
                engines, queue = await asyncio.gather(api.get("/engines"), _queue(api))
        except TimeoutError:
            await self.close()
            raise CommandFailed(
                f"the gateway at {api.url} did not answer within {answer_s:g} s", ExitCode.UNREACHABLE
            ) from None
        except CommandFailed:
            await self.close()
            raise
        now = time_of((queue or {}).get("now")) or datetime.now(UTC)
        return Snapshot(url=api.url, now=now.astimezone(), engines=items_of(engines), queue=queue)

    async def close(self) -> None:
        """Give the connections back. May be called twice or first."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()


async def _queue(api: Api) -> dict[str, Any] | None:
    """What runs and waits; None from a gateway that is older than the route."""
    try:
        answer = await api.get("/queue", limit=WAITING_SHOWN)
    except ApiError as error:
        if error.status == _NO_ROUTE:
            return None
        raise
    return answer if isinstance(answer, dict) else None
