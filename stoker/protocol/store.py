"""The door to Redis: one `Store` a process, with a view for each part."""

import re
from typing import Self

from redis.exceptions import ResponseError

from stoker.core.errors import StoreUnavailable
from stoker.core.ids import DEFAULT_POOL
from stoker.protocol.announcements import Announcements
from stoker.protocol.audit import Audit
from stoker.protocol.calls import Calls
from stoker.protocol.carried import Carried
from stoker.protocol.catalog import ApiKeys, Catalog
from stoker.protocol.connection import Connection
from stoker.protocol.deliveries import Deliveries
from stoker.protocol.documents import Documents
from stoker.protocol.engines import Engines
from stoker.protocol.enrolments import Enrolments
from stoker.protocol.files import Files
from stoker.protocol.keys import Keys
from stoker.protocol.limits import Limits
from stoker.protocol.outbox import Outbox
from stoker.protocol.owners import Owners
from stoker.protocol.pins import Pins
from stoker.protocol.pulses import Pulses
from stoker.protocol.quarantines import Quarantines
from stoker.protocol.scheduling import Scheduling
from stoker.protocol.secret_records import Secrets
from stoker.protocol.sessions import Sessions
from stoker.protocol.signing_secrets import SigningSecrets
from stoker.protocol.task_logs import TaskLogs
from stoker.protocol.tasks import Tasks
from stoker.protocol.work import Work


class Store:
    """All that a part may ask of Redis in one pool."""

    def __init__(self, connection: Connection, pool: str, url: str) -> None:
        self._connection = connection
        keys = Keys(pool)
        self.pool = pool
        self.id_prefix = "" if pool == DEFAULT_POOL else f"{pool}."
        """Of the ids of tasks: they carry their pool."""
        self.url = url
        self.tasks = Tasks(connection, keys)
        self.logs = TaskLogs(connection, keys)
        self.scheduling = Scheduling(connection, keys)
        self.sessions = Sessions(connection, keys)
        self.engines = Engines(connection, keys)
        self.catalog = Catalog(connection, keys)
        self.audit = Audit(connection, keys)
        self.keys = ApiKeys(connection, keys, self.audit)
        self.calls = Calls(connection, keys)
        self.carried = Carried(connection, keys)
        self.documents = Documents(connection, keys)
        self.files = Files(connection, keys)
        self.limits = Limits(connection, keys)
        self.outbox = Outbox(connection, keys)
        self.owners = Owners(connection, keys)
        self.pins = Pins(connection, keys)
        self.pulses = Pulses(connection, keys)
        self.quarantines = Quarantines(connection, keys)
        self.secrets = Secrets(connection, keys)
        self.signing_secrets = SigningSecrets(connection, keys)
        self.deliveries = Deliveries(connection, keys)
        self.enrolments = Enrolments(connection, keys)
        self.work = Work(connection, keys)
        self._keys = keys

    @classmethod
    async def open(cls, url: str, pool: str = DEFAULT_POOL) -> Self:
        """Connect.

        Args:
            url: where Redis is, in one of the forms of `stoker.server_address.REDIS_FORMS`.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        store = cls(Connection.open(url, Keys(pool).prefix), pool, url)
        try:
            await store.ping()
        except StoreUnavailable:
            await store.close()
            raise
        return store

    async def ping(self) -> None:
        """One round trip.

        Raises:
            StoreUnavailable: no answer.
        """
        await self._connection.command("PING")

    async def now_ms(self) -> int:
        """The server's clock, in unix milliseconds.

        Raises:
            StoreUnavailable: no answer.
        """
        seconds, micros = await self._connection.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def info(self) -> dict[str, str]:
        """What the server says of itself that durability hangs on: version, persistence, eviction policy."""
        reply = await self._connection.command("INFO")
        if isinstance(reply, dict):  # the client library parses it
            return {str(name): str(value) for name, value in reply.items()}
        text: bytes = reply
        lines = (line.partition(":")[::2] for line in text.decode().splitlines() if ":" in line)
        return dict(lines)

    async def uptime_s(self) -> int:
        """Seconds since the server's process started; 0 when it does not tell.

        Raises:
            StoreUnavailable: no answer.
        """
        reply = await self._connection.command("INFO", "server")
        text = reply.decode() if isinstance(reply, bytes) else ""
        found = re.search(r"^uptime_in_seconds:(\d+)", text, re.MULTILINE)
        return int(found.group(1)) if found else 0

    async def config(self, name: str) -> str:
        """One configuration value, or '' when the server does not tell."""
        try:
            reply = await self._connection.command("CONFIG", "GET", name)
        except ResponseError:  # a managed server has no such command, or a user may not use it
            return ""
        if isinstance(reply, dict):
            return next((value.decode() for value in reply.values()), "")
        return reply[1].decode() if reply else ""

    def announcements(self) -> Announcements:
        """A subscription to task events; use it as a context manager."""
        return Announcements(self._connection, self._keys)

    async def close(self) -> None:
        await self._connection.close()
