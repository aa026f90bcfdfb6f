"""RQ on Stoker's Redis: the names of a pool, connections, and the ids that make a second job a repeat.

Apart from the protocol package this is the only code that opens a Redis connection, because RQ takes one.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import Sentinel
from rq import Queue

from stoker.core.ids import DEFAULT_POOL
from stoker.protocol.servers import client_options, sentinel_options
from stoker.server_address import parse_redis

CONNECT_TIMEOUT_S: Final = 2.0
CALL_TIMEOUT_S: Final = 4.0
"""Also for a worker's wait for a job, which is shorter: a connection that died without a word is noticed so late."""


class Names:
    """What RQ calls the queues and jobs of one pool.

    Neither RQ's keys nor a job's arguments hold the pool: where pools share a server, these names keep them apart.
    Those of the default pool are plain; others end in the pool, after a dot, which no pool has in it.
    """

    def __init__(self, pool: str) -> None:
        self._ending = "" if pool == DEFAULT_POOL else f".{pool}"
        self.jobs = self.of("stoker")
        """The queue of jobs that wait for others (a file store): each runs in a process of its own."""
        self.steps = self.of("stoker-steps")
        """The queue of short jobs that speak to Redis alone: a process runs them one after another, with its
        connection open."""

    def of(self, name: str) -> str:
        """A name for this pool alone."""
        return name + self._ending

    def ending_job(self, task_id: str, attempt: int, consumer: str) -> str:
        """The id of the job that handles one ending for one consumer: the same for every repeat."""
        return _id(task_id, str(attempt), self.of(consumer))

    def steps_job(self, causes: Iterable[str]) -> str:
        """The id of the job that takes the steps of documents: the same for the same causes."""
        return _id(self.of("steps"), hashlib.sha256(" ".join(causes).encode()).hexdigest())


def connect(url: str) -> Redis:
    """A connection for RQ, which pickles: replies stay bytes. A connection that broke is opened anew once, at once.

    With Sentinels: to the server that is the primary then.
    """
    common: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": CALL_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    }
    address = parse_redis(url)
    if address.kind != "sentinel":
        return Redis.from_url(url, **common)
    sentinels: Any = Sentinel  # not typed
    options = client_options(address) | common
    primary: Redis = sentinels(address.hosts, sentinel_kwargs=sentinel_options(address) | common).master_for(
        address.primary, **options
    )
    return primary


def open_queue(url: str, name: str) -> Queue:
    """A queue of background jobs."""
    return Queue(name, connection=connect(url))


def document_job_id(kind: str, document_id: str, cause: str) -> str:
    """The id of the job that takes a document on for one cause: a revision of it, or a time."""
    return _id(kind, document_id, cause)


def _id(*parts: str) -> str:
    """RQ takes letters, digits, - and _; ids of ours may have dots (the pool before a task's)."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(parts))
