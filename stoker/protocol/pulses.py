"""What the processes of a pool report of their loops: seconds since the last useful read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct

from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping

NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
KEPT_MS: Final = 60_000
"""A process that has told nothing for so long is gone; what it told is removed by whoever tells next."""


class Told(Struct, frozen=True, kw_only=True):
    """The report of one process. `silent_s` is as of now: its age on the server's clock is in it.

    `counts`: what it has done since its start.
    """

    process: str
    part: str
    silent_s: dict[str, float]
    counts: dict[str, int] = {}


class _Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    part: str
    silent_s: dict[str, float]
    counts: dict[str, int] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode


class Pulses:
    """The reports of one pool's processes."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def tell(
        self, process: str, part: str, silent_s: dict[str, float], counts: Mapping[str, int] = NOTHING
    ) -> None:
        """Report how long each loop of a process has heard nothing, and what it has done.

        Args:
            process: an id of its own; for a scheduler the holder of the leadership.
            silent_s: loop -> seconds.
            counts: kind -> how often since the process began.

        Raises:
            StoreUnavailable: no answer; safe to repeat.

        Cost: one round trip, O(processes). Script: lua/pulse.lua.
        """
        record = _encode(_Record(part=part, silent_s=silent_s, counts=dict(counts)))
        await self._connection.script("pulse", [self._keys.pulses], [process, record, KEPT_MS])

    async def told(self) -> list[Told]:
        """The reports that are not older than `KEPT_MS`, by process.

        Raises:
            StoreUnavailable: no answer.
        """
        calls = self._connection.start("TIME"), self._connection.start("HGETALL", self._keys.pulses)
        seconds, micros = await calls[0]
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = []
        for process, value in sorted(mapping(await calls[1]).items()):
            at, _, record = value.partition(b" ")
            age_ms = max(0, now_ms - int(at))
            if age_ms <= KEPT_MS:
                told = _decode(record)
                silent_s = {loop: round(s + age_ms / 1000, 3) for loop, s in told.silent_s.items()}
                found.append(
                    Told(process=process.decode(), part=told.part, silent_s=silent_s, counts=told.counts)
                )
        return found
