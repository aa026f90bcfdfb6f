"""RQ on Stoker's Redis: names, connections, and the ids that make a second job a repeat.

Apart from the protocol package this is the only code that opens a Redis connection, because RQ takes one.
"""

from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from rq import Queue

QUEUE_NAME: Final = "stoker"
CONNECT_TIMEOUT_S: Final = 2.0
CALL_TIMEOUT_S: Final = 4.0
"""Also for a worker's wait for a job, which is shorter: a connection that died without a word is noticed so late."""


def connect(url: str) -> Redis:
    """A connection for RQ, which pickles: replies stay bytes. A connection that broke is opened anew once, at once."""
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=CALL_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


def open_queue(url: str) -> Queue:
    """The queue of background jobs."""
    return Queue(QUEUE_NAME, connection=connect(url))


def job_id(task_id: str, attempt: int, consumer: str) -> str:
    """The id of the job that handles one ending for one consumer: the same for every repeat."""
    return f"{task_id}-{attempt}-{consumer}"
