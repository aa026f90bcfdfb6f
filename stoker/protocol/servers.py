"""Where the server is that takes writes now, and connections to it: one address, Sentinels to ask, or a cluster.

A connection is opened to whoever it is at that moment. When the server says that it is somebody else, the line
drops its connection (`stoker/protocol/line.py`), and the next one is opened to that one.
"""

import asyncio
from typing import Any, Final, Protocol

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException

from stoker.server_address import RedisAddress, parse_redis

CONNECT_TIMEOUT_S: Final = 2.0
ASK_TIMEOUT_S: Final = 1.0
"""For one Sentinel, or one node of a cluster, to say where the primary is: then another one is asked."""


class Servers(Protocol):
    """Those that hold the data of a pool; one of them takes writes."""

    several: bool
    """Another may take over: that nobody listens at an address proves nothing then."""

    async def connect(self) -> AbstractConnection:
        """An open connection to the one that takes writes, logged in.

        Raises:
            RedisConnectionError: there is none, as far as one can learn, or it does not answer.
        """
        ...

    async def close(self) -> None:
        """Drop what was opened to find it."""
        ...


def open_servers(url: str, key: str = "") -> Servers:
    """The servers that a Redis URL names; connects to nobody yet.

    Args:
        url: in one of the forms of `stoker.server_address.REDIS_FORMS`.
        key: any key that will be used; in a cluster all of them lie in its slot.

    Raises:
        ValueError: the URL has none of these forms.
    """
    address = parse_redis(url)
    common: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
    if address.kind == "sentinel":
        return _Replicated(address, common)
    if address.kind == "cluster":
        return _Sharded(address, common, key_slot(key.encode()))
    return OneServer(Redis.from_url(url, socket_timeout=None, health_check_interval=0, **common))


class OneServer:
    """A server with an address of its own."""

    several = False

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def connect(self) -> AbstractConnection:
        return await _opened(self.redis.connection_pool.make_connection())  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self.redis.aclose()


class _Replicated:
    """A primary with replicas, of which Sentinels make another one the primary when it fails."""

    several = True

    def __init__(self, address: RedisAddress, common: dict[str, Any]) -> None:
        asked = sentinel_options(address) | common | {"socket_timeout": ASK_TIMEOUT_S}
        self._sentinel = _Sentinels(address.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        self._redis: Redis = self._sentinel.master_for(address.primary, **client_options(address) | common)

    async def connect(self) -> AbstractConnection:
        return await _opened(self._redis.connection_pool.make_connection())  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._redis.aclose()
        await self._sentinel.aclose()


class _Sentinels(Sentinel):
    """Believes the one that knows of the latest failover: others name the old primary for some seconds more.

    The library asks one after the other, and believes the first. An old primary that has just been started again
    takes writes until a Sentinel makes it a replica; they would be lost.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        answers = await asyncio.gather(
            *(each.sentinel_masters() for each in self.sentinels), return_exceptions=True
        )
        known = [each[service_name] for each in answers if isinstance(each, dict) and service_name in each]
        latest = max(known, key=lambda state: int(state["config-epoch"]), default=None)
        if latest is None:
            raise MasterNotFoundError(
                f"none of {len(answers)} Sentinels answers and knows a '{service_name}'"
            )
        if not self.check_master_state(latest, service_name):
            raise MasterNotFoundError(f"'{service_name}' is down, as far as the Sentinels know")
        return latest["ip"], latest["port"]


class _Sharded:
    """The nodes of a cluster: one of them has the slot. Who, is asked before each connection."""

    several = True

    def __init__(self, address: RedisAddress, common: dict[str, Any], slot: int) -> None:
        self._options = client_options(address) | common | {"socket_timeout": ASK_TIMEOUT_S}
        self._nodes = list(address.hosts)
        self._named = address.hosts
        self._slot = slot

    async def connect(self) -> AbstractConnection:
        """Ask the nodes that are known, in an order by chance; those that were named are always among them."""
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(*each) for each in {*self._nodes, *self._named}],
            require_full_coverage=False,
            **self._options,
        )
        manager = cluster.nodes_manager
        try:
            await manager.initialize()
            self._nodes = [(node.host, int(node.port)) for node in cluster.get_nodes()]
            node = manager.get_node_from_slot(self._slot)
        except (RedisClusterException, KeyError) as error:
            raise RedisConnectionError(
                f"no node of the cluster has the slot {self._slot} ({error})"
            ) from error
        finally:
            await manager.aclose()
            await manager.aclose("startup_nodes")
        return await _opened(node.connection_class(**node.connection_kwargs))

    async def close(self) -> None:
        return None


def client_options(address: RedisAddress) -> dict[str, Any]:
    """Login, database and encryption, as keyword arguments of redis-py's clients of several servers."""
    options: dict[str, Any] = dict(parse_url(address.login))
    del options["host"]
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    return options


def sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """The same for the Sentinels: encryption is theirs too, user and password are not."""
    encryption = {name: value for name, value in client_options(address).items() if name.startswith("ssl")}
    return encryption | address.sentinel_options


async def _opened(connection: AbstractConnection) -> AbstractConnection:
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:  # cancelled too
        await connection.disconnect(nowait=True)
        raise
    return connection
