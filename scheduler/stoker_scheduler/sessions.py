"""The sessions that the scheduler knows of: whose tasks, on which worker, and what is to be written. No I/O.

A session holds the whole worker, not its instance alone: its caller is promised an answer without a queue
before it, and nothing else may take the memory that the instance may still grow into. When the session is
over the instance is unloaded: what its app keeps in memory belongs to that caller.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from stoker.core.messages import EngineId, SetupKey, TaskId, TaskSpec, WorkerId
from stoker.core.sessions import Session, SessionEnd


@dataclass(slots=True, eq=False)
class Known:
    """A session. `where` is None until its first task was given to a worker."""

    id: str
    key: SetupKey
    opening: TaskId  # empty when only later tasks were seen
    where: tuple[EngineId, WorkerId] | None = None
    tasks: set[TaskId] = field(default_factory=set)
    over: SessionEnd | None = None


@dataclass(slots=True)
class Errands:
    """What Redis is to be told or asked; each may be repeated."""

    read: dict[str, None] = field(default_factory=dict)
    bind: dict[str, tuple[EngineId, WorkerId]] = field(default_factory=dict)
    settle: dict[TaskId, str] = field(default_factory=dict)
    end: dict[str, SessionEnd] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.read or self.bind or self.settle or self.end)


class Book:
    """All sessions that have a task or a worker."""

    def __init__(self) -> None:
        self.errands = Errands()
        self._known: dict[str, Known] = {}
        self._of_task: dict[TaskId, str] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._known

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def get(self, session_id: str) -> Known | None:
        return self._known.get(session_id)

    def of_task(self, task_id: TaskId) -> Known | None:
        return self._known.get(self._of_task.get(task_id, ""))

    def take_errands(self) -> Errands:
        errands, self.errands = self.errands, Errands()
        return errands

    def over(self) -> list[Known]:
        """Sessions that are over and still have a worker or waiting tasks."""
        return [known for known in self._known.values() if known.over is not None]

    def add(self, spec: TaskSpec) -> Known:
        """A task of a session waits. A session that is new here is read: it may have been ended while nobody led."""
        known = self._known.get(spec.session_id)
        if known is None:
            known = self._known[spec.session_id] = Known(spec.session_id, spec.setup_key, TaskId(""))
            self.errands.read[known.id] = None
        if spec.opens_session:
            known.opening = spec.id
        known.tasks.add(spec.id)
        self._of_task[spec.id] = known.id
        return known

    def restore(self, session: Session) -> Known:
        """A session as Redis has it, without its worker."""
        known = Known(session.info.id, session.info.spec.setup_key, session.info.spec.id)
        known = self._known.setdefault(known.id, known)
        known.opening = session.info.spec.id
        known.tasks.update(session.open_tasks)
        self._of_task.update(dict.fromkeys(session.open_tasks, known.id))
        return known

    def bind(self, known: Known, engine_id: EngineId, worker_id: WorkerId) -> None:
        """A session has a worker now."""
        if known.where != (engine_id, worker_id):
            known.where = self.errands.bind[known.id] = (engine_id, worker_id)

    def settle(self, task_id: TaskId) -> Known | None:
        """A task has ended. A session whose first task never reached a worker ends with it."""
        known = self._known.get(self._of_task.pop(task_id, ""))
        if known is None:
            return None
        known.tasks.discard(task_id)
        self.errands.settle[task_id] = known.id
        if task_id == known.opening and known.where is None:
            self.end(known, SessionEnd.ENDED)
        return known

    def end(self, known: Known, why: SessionEnd) -> None:
        """The facts say that a session cannot go on; the first reason counts."""
        if known.over is None:
            known.over = why
            self.errands.end[known.id] = why

    def was_ended(self, session_id: str, why: SessionEnd) -> None:
        """Redis says that a session is over."""
        known = self._known.get(session_id)
        if known is not None:
            known.over = known.over or why

    def forget(self, known: Known) -> None:
        """A session that is over has nothing left here."""
        self._known.pop(known.id, None)
        for task_id in known.tasks:
            self._of_task.pop(task_id, None)
