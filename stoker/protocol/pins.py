"""What is to be loaded although no task asks for it: written by the gateway, carried out by who leads.

No engine reads these keys. An engine is sent orders, and says in its reports what became of them.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from stoker.core.audit import Change
from stoker.core.errors import NotFound, ProtocolRefusal, Unauthorized
from stoker.core.messages import EngineId, LoadOrder, PinOrder, SetupKey, WorkerId
from stoker.core.pins import MAX_PINS, LoadGrant, Pin, PinStatus
from stoker.protocol.audit import note
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping
from stoker.protocol.tokens import new_token

GRANT_KEPT_S: Final = 6 * 3600.0
"""How long an order is good at the gateway: longer than any environment takes to build."""

_encode = msgspec.json.Encoder().encode
_pin = msgspec.json.Decoder(Pin)
_status = msgspec.json.Decoder(PinStatus)
_grant = msgspec.json.Decoder(LoadGrant)


class Pins:
    """The pins and loads of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._call = connection.command
        self._keys = keys

    async def list(self) -> "list[Pin]":
        """All of them, the oldest first. Cost: one round trip."""
        found = mapping(await self._call("HGETALL", self._keys.pins))
        return sorted((_pin.decode(raw) for raw in found.values()), key=lambda pin: (pin.created_ms, pin.id))

    async def get(self, pin_id: str) -> Pin:
        """One of them.

        Raises:
            NotFound: there is none with this id.
        """
        raw = await self._call("HGET", self._keys.pins, pin_id)
        if raw is None:
            raise NotFound(f"Pin not found: {pin_id!r}. See them with: stoker apps pins")
        return _pin.decode(raw)

    async def put(self, pin: Pin, change: Change | None = None) -> None:
        """Write a pin, with the record of that, and wake the scheduler.

        Raises:
            ProtocolRefusal: PIN_LIMIT: there are `MAX_PINS`.

        Cost: one round trip. Script: lua/put_pin.lua.
        """
        await self._put(pin.id, _encode(pin), change)

    async def remove(self, pin_id: str, change: Change | None = None) -> None:
        """Forget a pin. What is loaded stays until its room is wanted.

        Raises:
            NotFound: there is none with this id.

        Cost: one round trip. Script: lua/put_pin.lua.
        """
        try:
            await self._put(pin_id, b"", change)
        except ProtocolRefusal as refusal:
            raise NotFound(f"Pin not found: {pin_id!r}. See them with: stoker apps pins") from refusal

    async def _put(self, pin_id: str, pin: bytes, change: Change | None) -> None:
        keys = self._keys
        names = [keys.pins, keys.pin_states, keys.wake, keys.audit, keys.removal(new_token())]
        await self._connection.script("put_pin", names, [pin_id, pin, MAX_PINS, *note(change)])

    async def states(self) -> dict[str, PinStatus]:
        """What the leader found of each pin at its last look, by its id."""
        found = mapping(await self._call("HGETALL", self._keys.pin_states))
        return {pin_id.decode(): _status.decode(raw) for pin_id, raw in found.items()}

    async def set_states(self, states: Mapping[str, PinStatus], gone: Iterable[str] = ()) -> None:
        """Store what was found of pins, and forget the states of those that are gone."""
        calls = []
        if states:
            pairs = [part for pin_id, status in states.items() for part in (pin_id, _encode(status))]
            calls.append(self._connection.start("HSET", self._keys.pin_states, *pairs))
        if names := list(gone):
            calls.append(self._connection.start("HDEL", self._keys.pin_states, *names))
        await asyncio.gather(*calls)

    async def keep_alives(self) -> dict[str, float]:
        """For how many seconds after their last use instances of an app stay loaded, by the app's name."""
        found = mapping(await self._call("HGETALL", self._keys.keep_alives))
        return {app.decode(): float(seconds) for app, seconds in found.items()}

    async def set_keep_alive(self, app: str, seconds: float | None) -> None:
        """Say for how long instances of an app stay; None = until their room is wanted. Wakes the scheduler."""
        keys, start = self._keys, self._connection.start
        before = await self._call("HGET", keys.keep_alives, app)
        if (None if before is None else float(before)) == seconds:
            return
        # In one batch: a repeat after a lost reply, or by the caller, would find nothing to change and wake nobody.
        write = (
            ("HDEL", keys.keep_alives, app) if seconds is None else ("HSET", keys.keep_alives, app, seconds)
        )
        await asyncio.gather(start(*write), start("XADD", keys.wake, "*", "k", "pins"))

    async def ask_unload(self, engine_id: EngineId, worker_id: WorkerId, setup_key: SetupKey) -> None:
        """Have the scheduler unload an instance that is idle. One that is busy or pinned stays."""
        named = ("engine", engine_id, "worker", worker_id, "setup", setup_key)
        await self._call("XADD", self._keys.wake, "*", "k", "unload", *named)

    async def load(self, epoch: int, order: LoadOrder, grant: LoadGrant) -> None:
        """Order an engine to load. `order.token` is made here.

        Raises:
            ProtocolRefusal: NOT_LEADER; ENGINE_GONE: it takes nothing now.

        Cost: one round trip. Script: lua/load.lua.
        """
        keys, load_id, token = self._keys, order.task.id, new_token()
        await self._connection.script(
            "load",
            [
                keys.leader,
                keys.engine(grant.engine_id),
                keys.inbox(grant.engine_id),
                keys.leases,
                keys.load(load_id),
            ],
            [
                load_id,
                epoch,
                grant.engine_id,
                _hashed(token),
                _encode(msgspec.structs.replace(order, token=token)),
                _encode(grant),
                int(GRANT_KEPT_S * 1000),
            ],
        )

    async def send(self, engine_id: EngineId, order: PinOrder) -> None:
        """Tell an engine which setups make room for nothing on one of its workers."""
        await self._call("XADD", self._keys.inbox(engine_id), "*", "k", "pins", "order", _encode(order))

    async def check(self, load_id: str, token: str) -> LoadGrant:
        """What may be given to whoever shows the secret of an order to load.

        Raises:
            Unauthorized: the secret is another order's, or the order's time is over.
        """
        held, grant = await self._call("HMGET", self._keys.load(load_id), "token_hash", "grant")
        if held is None or not hmac.compare_digest(held.decode(), _hashed(token)):
            raise Unauthorized("This order to load is not known, or not this engine's")
        return _grant.decode(grant)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
