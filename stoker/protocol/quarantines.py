"""Workers that get no tasks because everything failed there. The scheduler writes, the gateway reads and releases."""

import msgspec

from stoker.core.messages import Quarantine, WorkerId
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Quarantine).decode


class Quarantines:
    """Those of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def list(self) -> dict[WorkerId, Quarantine]:
        """All of them, by worker."""
        found = mapping(await self._connection.command("HGETALL", self._keys.quarantine))
        return {WorkerId(worker_id.decode()): _decode(raw) for worker_id, raw in found.items()}

    async def put(self, quarantine: Quarantine) -> None:
        """A worker gets no tasks from now on."""
        key = self._keys.quarantine
        await self._connection.command("HSET", key, quarantine.worker_id, _encode(quarantine))

    async def remove(self, worker_id: WorkerId) -> None:
        """A worker is free again."""
        await self._connection.command("HDEL", self._keys.quarantine, worker_id)

    async def release(self, worker_id: WorkerId) -> None:
        """Tell the scheduler that a worker works again. Nothing happens to one that is not out."""
        await self._connection.command("XADD", self._keys.wake, "*", "k", "released", "worker", worker_id)
        await self.remove(worker_id)
