"""Calls of strangers' addresses that chats wait for, of tools and of hooks: many wait beside each other in one event loop.

Not RQ jobs: a job occupies a worker for as long as an address is silent, and costs a process. A call whose process died
is made again, with the same `Idempotency-Key` or `X-Delivery-Id`, when its chat is looked at the next time.
"""

import asyncio
import contextlib
from typing import Final

import httpx

from stoker.core.errors import StoreUnavailable
from stoker.core.events import Event
from stoker.log import Logger
from stoker.outbound import checked_client
from stoker.protocol.calls import AddressCall, CallKind
from stoker.pulse import Pulse
from stoker.settings import JobsSettings
from stoker_jobs.chat_hooks import ask_hook
from stoker_jobs.desk import Desk, desk_on
from stoker_jobs.tool_calls import CALL_TIMEOUT_S, call_tool
from stoker_jobs.waiting import RETRY_DELAY_S, await_store, pause

CALLS: Final = "calls"
"""The loop that reads, by the name that people see."""
BLOCK_S: Final = 1.0
LEASE_S: Final = 15.0
"""Of a call that is being made; it is renewed at a third of it."""
STOP_S: Final = 4.0
"""What calls have to end when the process is stopped; those that do not are left to the next one."""


async def call_loop(settings: JobsSettings, stop: asyncio.Event, log: Logger, pulse: Pulse) -> None:
    """Make calls until `stop` is set. Redis being away is waited out."""
    store = await await_store(settings, stop, log)
    if store is not None:
        try:
            async with checked_client(httpx.Timeout(CALL_TIMEOUT_S)) as client:
                await Caller(desk_on(store, settings), client, log).run(stop, pulse)
        finally:
            await store.close()


class Caller:
    """Makes the calls of one pool, `address_call_concurrency` at once."""

    def __init__(self, desk: Desk, client: httpx.AsyncClient, log: Logger) -> None:
        self._desk = desk
        self._client = client
        self._calls = desk.store.calls
        self._log = log
        self._running: dict[asyncio.Task[None], AddressCall] = {}

    async def run(self, stop: asyncio.Event, pulse: Pulse) -> None:
        """Work until `stop` is set; then calls have `STOP_S` to end."""
        try:
            while not stop.is_set():
                try:
                    await self._take(stop)
                    pulse.beat(CALLS)
                except StoreUnavailable as error:
                    self._log.warning(Event.JOBS_DELAYED, reason=error.message)
                    await pause(stop, RETRY_DELAY_S)
        finally:
            await self._finish()

    async def _take(self, stop: asyncio.Event) -> None:
        """Begin the call whose turn it is, when there is room."""
        if len(self._running) >= self._desk.settings.address_call_concurrency:
            await asyncio.wait(self._running, timeout=BLOCK_S, return_when=asyncio.FIRST_COMPLETED)
            return
        call = await self._calls.next(BLOCK_S)
        if call is not None and not stop.is_set():
            task = asyncio.create_task(self._make(call))
            self._running[task] = call
            task.add_done_callback(self._running.pop)
        elif call is not None:
            await self._leave(call)

    async def _make(self, call: AddressCall) -> None:
        """One call, from its turn to what came of it being in the chat."""
        try:
            if not await self._calls.take(call, LEASE_S):
                return
            holding = asyncio.create_task(self._hold(call))
            try:
                make = call_tool if call.kind is CallKind.TOOL else ask_hook
                await make(self._desk, self._client, call.chat_id, call.part_id)
            finally:
                holding.cancel()
            await self._calls.release(call)
        except StoreUnavailable as error:
            self._log.warning(Event.JOBS_DELAYED, reason=error.message)
        except Exception:  # noqa: BLE001 - the edge of a call; the chat's next look has it made anew
            self._log.exception(Event.CALL_FAILED, chat_id=call.chat_id, part=call.part_id)

    async def _hold(self, call: AddressCall) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with contextlib.suppress(StoreUnavailable):
                await self._calls.hold(call, LEASE_S)

    async def _finish(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_S)
        unfinished = dict(self._running)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for call in unfinished.values():
            await self._leave(call)

    async def _leave(self, call: AddressCall) -> None:
        """Leave a call to the next process."""
        with contextlib.suppress(StoreUnavailable):
            await self._calls.release(call)
            await self._calls.ask(call)
