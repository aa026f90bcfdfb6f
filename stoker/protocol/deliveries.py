"""Deliveries of webhooks: what is to be told to whom, whose turn it is, and what came of each try.

A delivery waits in a lane of its receiver (`stoker.core.webhooks.lane_of`), and a lane has one try at a time. So a
receiver that is slow or silent holds up its own deliveries, and no others. A try holds its lane by a lease: what a
process that died was trying is tried again. A lane whose receiver was silent rests, by a lease that nobody holds.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.errors import InvalidRequest, NotFound, ProtocolRefusal
from stoker.core.ids import may_be_id
from stoker.core.states import DeliveryState
from stoker.core.webhooks import Delivery, Next, Try, lane_of
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping, pairs

_TIES: Final = 100
"""Deliveries of one owner and state that change in the same millisecond, as a page allows for."""
_CURSOR: Final = re.compile(r"(\d{1,16})\.([a-z0-9._-]{1,63})")

_encode = msgspec.json.Encoder().encode
_about = msgspec.json.Decoder(Delivery)
_try = msgspec.json.Decoder(Try)


class Claim(Struct, frozen=True, kw_only=True):
    """The right to one try."""

    delivery_id: str
    lane_id: str
    lease: int  # its end by the server's clock, in ms


class DeliveryView(Struct, frozen=True, kw_only=True):
    """A delivery with its standing."""

    about: Delivery
    state: DeliveryState
    created_ms: int
    changed_ms: int  # when it entered its state
    due_ms: int  # of the next try; 0 = none is to come
    round_ms: int  # when the tries that count began
    tries: int  # of this round
    total: int


class Standing(Struct, frozen=True, kw_only=True):
    """How the lanes of a pool are. `due_ms`: when the lane was due that waits for longest; 0 = none waits."""

    busy: int
    due_ms: int


class Deliveries:
    """Those of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def open(self, delivery: Delivery) -> bool:
        """Put a delivery into its lane; whether it is a new one.

        Raises:
            StoreUnavailable: no answer; safe to repeat.
        """
        keys, lane_id = self._keys, lane_of(delivery.url, delivery.id)
        [opened] = await self._connection.script(
            "open_delivery",
            [
                keys.delivery(delivery.id),
                keys.owner_deliveries(delivery.owner_id, DeliveryState.PENDING),
                keys.lane(lane_id),
                keys.lanes,
                keys.busy_lanes,
            ],
            [delivery.id, lane_id, _encode(delivery)],
        )
        return bool(opened)

    async def claim(self, most: int, lease_ms: int) -> list[Claim]:
        """Take what is due, of each lane one delivery.

        Args:
            most: how many; 0 asks the server and takes nothing.
            lease_ms: how long a lane stays taken if nobody ends the try.

        Raises:
            StoreUnavailable: no answer; what was taken is free again after the lease.

        Cost: one round trip, and a second one when something is due.
        """
        keys = self._keys
        lanes = await self._connection.script("due_lanes", [keys.lanes, keys.busy_lanes], [max(1, most)])
        due = [lane.decode() for lane in lanes][:most]
        calls = [
            self._connection.start_script(
                "claim_delivery", [keys.lane(lane_id), keys.lanes, keys.busy_lanes], [lane_id, lease_ms]
            )
            for lane_id in due
        ]
        found = [(lane_id, await call) for lane_id, call in zip(due, calls, strict=True)]
        return [
            Claim(delivery_id=taken[0].decode(), lane_id=lane_id, lease=int(taken[1]))
            for lane_id, taken in found
            if taken
        ]

    async def end_try(
        self, claim: Claim, delivery: Delivery, round_ms: int, done: Try, then: Next, kept_s: float
    ) -> bool:
        """Note what came of a try, and free its lane; whether the delivery was replayed meanwhile, and is due.

        Args:
            round_ms: of the delivery as it was before the try. `then` holds for that round alone, but if it arrived.
            kept_s: how long a delivery is kept that is not pending any more.

        Raises:
            StoreUnavailable: no answer; safe to repeat.
        """
        keys, id_ = self._keys, claim.delivery_id
        length_s = then.pause_s if then.state is DeliveryState.PENDING else kept_s
        replayed, *forgotten = await self._connection.script(
            "end_try",
            [
                keys.delivery(id_),
                keys.delivery_tries(id_),
                keys.owner_deliveries(delivery.owner_id, DeliveryState.PENDING),
                keys.owner_deliveries(delivery.owner_id, then.state),
                keys.lane(claim.lane_id),
                keys.lanes,
                keys.busy_lanes,
            ],
            [
                id_,
                claim.lane_id,
                claim.lease,
                round_ms,
                then.state,
                round(length_s * 1000),
                _encode(done),
                round(then.rest_s * 1000),
            ],
        )
        gone = [old.decode() for old in forgotten]
        calls = [self._connection.start("DEL", keys.delivery(old), keys.delivery_tries(old)) for old in gone]
        for call in calls:
            await call
        return bool(replayed)

    async def drop(self, claim: Claim) -> None:
        """Free the lane of a delivery that is not kept any more, and take it out of the lane."""
        nobody = Delivery(id=claim.delivery_id, owner_id="", url="", event="")
        await self.end_try(claim, nobody, 0, Try(at_ms=0), Next(DeliveryState.DEAD), 1)

    async def replay(self, delivery: Delivery) -> None:
        """Have a delivery tried again now, whatever its state.

        Raises:
            NotFound: it is not kept any more.
        """
        keys, owner_id, lane_id = self._keys, delivery.owner_id, lane_of(delivery.url, delivery.id)
        try:
            await self._connection.script(
                "replay_delivery",
                [
                    keys.delivery(delivery.id),
                    keys.delivery_tries(delivery.id),
                    *(keys.owner_deliveries(owner_id, state) for state in DeliveryState),
                    keys.lane(lane_id),
                    keys.lanes,
                    keys.busy_lanes,
                ],
                [delivery.id, lane_id],
            )
        except ProtocolRefusal as refusal:
            raise NotFound("Delivery not found") from refusal

    async def read(self, delivery_id: str) -> DeliveryView:
        """One delivery.

        Raises:
            NotFound: there is none of this id, or it is not kept any more.
        """
        [found] = await self._views([delivery_id]) if may_be_id(delivery_id) else [None]
        if found is None:
            raise NotFound("Delivery not found")
        return found

    async def tries(self, delivery_id: str) -> list[Try]:
        """The latest tries of a delivery, oldest first."""
        raw = await self._connection.command("LRANGE", self._keys.delivery_tries(delivery_id), 0, -1)
        return [_try.decode(each) for each in raw]

    async def page(
        self, owner_id: str, states: Sequence[DeliveryState], cursor: str = "", limit: int = 20
    ) -> tuple[list[DeliveryView], str]:
        """An owner's deliveries in some states, those that entered theirs last first, and the next page's cursor.

        Raises:
            InvalidRequest: the cursor is none of ours.
        """
        place = _place(cursor)
        calls = [
            self._connection.start(
                *("ZREVRANGEBYSCORE", self._keys.owner_deliveries(owner_id, state)),
                *("+inf" if place is None else place[0], "-inf", "WITHSCORES"),
                *("LIMIT", 0, limit + 1 + (0 if place is None else _TIES)),
            )
            for state in states
        ]
        listed = [(round(ms), id_.decode()) for call in calls for id_, ms in pairs(await call)]
        ahead = sorted((each for each in listed if place is None or each < place), reverse=True)
        shown = ahead[:limit]
        following = f"{shown[-1][0]}.{shown[-1][1]}" if len(ahead) > limit else ""
        found = await self._views([id_ for _, id_ in shown])
        return [view for view in found if view is not None], following

    async def count(self, owner_id: str, states: Sequence[DeliveryState]) -> int:
        """How many of an owner's deliveries are in these states."""
        calls = [
            self._connection.start("ZCARD", self._keys.owner_deliveries(owner_id, state)) for state in states
        ]
        return sum([int(await call) for call in calls])

    async def standing(self) -> Standing:
        """What is on its way, and since when something waits for its turn, or until when. Cost: one round trip."""
        busy = self._connection.start("ZCARD", self._keys.busy_lanes)
        first = self._connection.start("ZRANGE", self._keys.lanes, 0, 0, "WITHSCORES")
        due = [round(ms) for _, ms in pairs(await first)]
        return Standing(busy=int(await busy), due_ms=due[0] if due else 0)

    async def _views(self, ids: Sequence[str]) -> list[DeliveryView | None]:
        """In one batch; None for one that is not kept any more."""
        calls = [self._connection.start("HGETALL", self._keys.delivery(id_)) for id_ in ids]
        return [_view(mapping(await call)) for call in calls]


def _place(cursor: str) -> tuple[int, str] | None:
    if not cursor:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest("Input validation failed: cursor: take it from next_cursor of the page before")
    return int(match[1]), match[2]


def _view(fields: dict[bytes, bytes]) -> DeliveryView | None:
    if not fields:
        return None
    return DeliveryView(
        about=_about.decode(fields[b"about"]),
        state=DeliveryState(fields[b"state"].decode()),
        created_ms=int(fields[b"created"]),
        changed_ms=int(fields[b"changed"]),
        due_ms=int(fields[b"due"] or 0),
        round_ms=int(fields[b"round"]),
        tries=int(fields[b"tries"]),
        total=int(fields[b"total"]),
    )
