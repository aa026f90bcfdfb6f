"""Workers on which everything fails: counted, taken out, tried again after a while. No I/O, no clock.

A task counts once, when it fails and not by its app: one that kills its process on every attempt says little about
the worker. Whatever shows that the worker works ends the row. A worker that is out comes back by itself with its row
one short of the limit: its first task is a probe.
"""

from dataclasses import dataclass, field

from stoker.core.messages import Quarantine, TaskId, WorkerId
from stoker_scheduler.actions import Rules


@dataclass(slots=True)
class Row:
    """Tasks that failed on a worker since one showed that it works. `before`: those of an earlier quarantine."""

    before: int = 0
    tasks: set[TaskId] = field(default_factory=set)

    @property
    def length(self) -> int:
        return self.before + len(self.tasks)


class Wards:
    """The quarantine. `errands`: what Redis is to be told; None = the worker is free again."""

    def __init__(self, rules: Rules) -> None:
        self.errands: dict[WorkerId, Quarantine | None] = {}
        self._rules = rules
        self._rows: dict[WorkerId, Row] = {}
        self._held: dict[WorkerId, Quarantine] = {}

    def __contains__(self, worker_id: WorkerId) -> bool:
        return worker_id in self._held

    def failed(self, worker_id: WorkerId, task_id: TaskId, why: str, now_ms: int) -> Quarantine | None:
        """A task failed there, and not by its app; what begins with it, if something does."""
        limit = self._rules.quarantine_failures
        if not limit or worker_id in self._held:
            return None
        row = self._rows.setdefault(worker_id, Row())
        row.tasks.add(task_id)
        if row.length < limit:
            return None
        found = Quarantine(
            worker_id=worker_id,
            since_ms=now_ms,
            until_ms=now_ms + int(self._rules.quarantine_s * 1000),
            failures=row.length,
            reason=why,
        )
        self._held[worker_id] = self.errands[worker_id] = found
        return found

    def worked(self, worker_id: WorkerId) -> None:
        """A task there came as far as its app lets it."""
        self._rows.pop(worker_id, None)

    def restore(self, found: Quarantine) -> None:
        """Take over from Redis."""
        self._held[found.worker_id] = found
        self._rows[found.worker_id] = Row(found.failures)

    def release(self, worker_id: WorkerId) -> bool:
        """Somebody says that it works again; False when it was not out."""
        self._rows.pop(worker_id, None)
        self.errands[worker_id] = None
        return self._held.pop(worker_id, None) is not None

    def over(self, now_ms: int) -> list[WorkerId]:
        """Workers whose time is over: they get a task to show how they are."""
        due = [worker_id for worker_id, found in self._held.items() if found.until_ms <= now_ms]
        for worker_id in due:
            del self._held[worker_id]
            self._rows[worker_id] = Row(self._rules.quarantine_failures - 1)
            self.errands[worker_id] = None
        return due

    def take_errands(self) -> dict[WorkerId, Quarantine | None]:
        errands, self.errands = self.errands, {}
        return errands
