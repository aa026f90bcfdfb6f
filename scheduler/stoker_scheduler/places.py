"""Workers filed under keys, for the fleet's indexes."""

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from stoker.core.messages import WorkerId

if TYPE_CHECKING:
    from stoker_scheduler.fleet import Worker

K = TypeVar("K", bound=Hashable)


class Places(Generic[K]):
    """Workers filed under a key, in the order in which they came there."""

    def __init__(self) -> None:
        self._filed: dict[K, dict[WorkerId, Worker]] = {}

    def at(self, key: K) -> dict[WorkerId, "Worker"]:
        return self._filed.get(key, {})

    def __iter__(self) -> Iterator[K]:
        return iter(self._filed)

    def file(self, key: K, worker: "Worker", *, fixed: bool = False) -> None:
        """File a worker. `fixed`: it stays until what it offers changes, not what it does."""
        self._filed.setdefault(key, {})[worker.id] = worker
        (worker.fixed_places if fixed else worker.places).append((self, key))

    def unfile(self, key: K, worker: "Worker") -> None:
        filed = self._filed[key]
        del filed[worker.id]
        if not filed:
            del self._filed[key]
