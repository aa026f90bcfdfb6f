"""The scheduler's copy of what Redis knows: one `on_<event>` a kind of wake event, one `apply_<action>`.

Owned by the loop alone. Everything here is repeatable: an event that was seen before changes nothing.
"""

from collections.abc import Collection
from typing import Final

from stoker.core.measures import Measures
from stoker.core.messages import (
    EngineId,
    EngineView,
    Quarantine,
    SetupKey,
    TaskId,
    TaskSpec,
    TaskView,
    WorkerId,
)
from stoker.core.sessions import Session, SessionEnd
from stoker.core.states import TaskState
from stoker_scheduler.actions import Assign, Changed, Evict, Rules, Start, Wait
from stoker_scheduler.deadlines import Deadlines, Limits
from stoker_scheduler.fleet import Fleet, Held, Worker
from stoker_scheduler.knowledge import Knowledge
from stoker_scheduler.measures import date, learn_end, learn_move
from stoker_scheduler.pin_book import PinBook
from stoker_scheduler.queues import GROUPS_OF_KEY, Group, Queues
from stoker_scheduler.residents import Phase
from stoker_scheduler.sessions import Book, Known
from stoker_scheduler.wards import Wards

HANDED_BACK_MS: Final = 5_000
HANDED_BACK_DOUBLINGS: Final = 6
"""How long a worker that handed a task back is not tried again with that setup: twice as long each time, up to 320 s."""
SHORT_MS: Final = 5_000
"""How long a worker is not tried again with a setup for which its GPU memory ran out: another one is asked first."""
STUCK_MS: Final = 60_000
"""The same after a task was found stuck there."""
AUDIT_MS: Final = 60_000
"""After this time in a state it is made sure that an engine works on a task; then at double the time, and so on."""
_LOADING: Final = frozenset({TaskState.PREPARING, TaskState.SERVING, TaskState.SETTING_UP})
_PREPARES: Final = frozenset({TaskState.SCHEDULED, TaskState.PREPARING})
_RUNS: Final = frozenset({TaskState.RUNNING, TaskState.UPLOADING})


class Mirror:
    """Queue, fleet, knowledge, deadlines and sessions, and what has changed since the last decision."""

    def __init__(self, rules: Rules, limits: Limits) -> None:
        self.rules = rules
        self.queues = Queues()
        self.fleet = Fleet()
        self.knowledge = Knowledge()
        self.deadlines = Deadlines(limits)
        self.sessions = Book()
        self.wards = Wards(rules)
        self.pins = PinBook()
        self._registered_ms: dict[EngineId, int] = {}
        self.changed = Changed()

    def take_changed(self, most: int = 0) -> Changed:
        """What to decide about now; `most` groups of it at a time (0 = all)."""
        changed, self.changed = self.changed, Changed()
        if most and len(changed.groups) > most:
            groups = list(changed.groups)
            changed.groups = dict.fromkeys(groups[:most])
            self.changed.groups = dict.fromkeys(groups[most:])
        return changed

    def on_submitted(self, spec: TaskSpec) -> None:
        if spec.id not in self.queues:
            self.knowledge.note_submitted(spec.setup_key, spec.created_ms, spec.key_id)
            self._queue(spec)

    def on_requeued(self, spec: TaskSpec, now_ms: int, attempt: int = 0) -> None:
        """A task is queued again; when nobody took it from its worker, the worker itself handed it back.

        `attempt` is the one that is over; 0 = a release that did not tell it wrote the event.
        """
        held = self.fleet.held(spec.id)
        if held is not None and attempt and held.attempt > attempt:
            return  # the snapshot showed it in the queue already, and it was assigned again since
        ended = self._take_off(spec.id, now_ms, warm=False)
        if ended is not None:
            worker, held = ended
            times = worker.returns.get(held.setup_key, 0)
            worker.returns[held.setup_key] = times + 1
            pause_ms = HANDED_BACK_MS << min(times, HANDED_BACK_DOUBLINGS)
            self.fleet.refuse(worker, held.setup_key, now_ms + pause_ms)
            self.fleet.keep(worker, held.assigned_ms)
            self.changed.workers[worker.id] = None
        known = self.sessions.get(spec.session_id)
        if known is not None and spec.opens_session:
            self._place_anew(known)
        if spec.id not in self.queues:
            self._queue(spec, front=True)

    def on_delayed(self, task_id: TaskId, attempt: int, measured: Measures, now_ms: int) -> None:
        """An attempt failed, and the task waits for its next one; nothing when it never had one."""
        held = self.fleet.held(task_id)
        if held is not None and held.attempt <= attempt:
            warm = measured.run_s > 0 and not measured.instance_ended
            self._end_attempt(task_id, TaskState.FAILED, measured, now_ms, warm=warm)

    def on_released(self, spec: TaskSpec, now_ms: int) -> None:
        """The time that a task waited for has come."""
        self.on_taken_back(spec.id, now_ms)  # when the event that it left its worker is still on its way
        if spec.id not in self.queues:
            self._queue(spec, front=True)

    def on_taken_back(self, task_id: TaskId, now_ms: int) -> None:
        """The scheduler itself took a task from an engine that lost it."""
        ended = self._take_off(task_id, now_ms, warm=False)
        if ended is not None:
            self.changed.workers[ended[0].id] = None

    def on_stuck(self, task_id: TaskId, now_ms: int) -> None:
        """A task was taken from an engine that lives and does not start it, or never ends it."""
        worker, held = self.fleet.worker_of(task_id), self.fleet.held(task_id)
        if worker is not None and held is not None:
            self.fleet.refuse(worker, held.setup_key, now_ms + STUCK_MS)
            self.on_taken_back(task_id, now_ms)

    def on_cancelled(self, task_id: TaskId) -> None:
        """A task that waited has ended."""
        self.queues.remove(task_id)
        self.sessions.settle(task_id)

    def on_moved(self, task_id: TaskId, state: TaskState, now_ms: int) -> None:
        """A task has entered a state on its worker."""
        held = self.fleet.held(task_id)
        if held is None:
            return
        learn_move(self.knowledge, held, state, now_ms)
        held.audit_ms = min(held.audit_ms, now_ms + AUDIT_MS)  # each part has a time of its own
        if state in _RUNS and not held.running_ms:
            self.fleet.runs(task_id, now_ms)
            worker = self.fleet.worker_of(task_id)
            if worker is not None:
                self.changed.workers[worker.id] = None
            for group in self.queues.of_key(held.setup_key, GROUPS_OF_KEY):
                self.changed.groups[group.id] = (
                    None  # now that the load's time is known, one elsewhere may pay
                )

    def on_finished(self, task_id: TaskId, state: TaskState, measured: Measures, now_ms: int) -> None:
        """A task has ended on its worker."""
        self.queues.remove(task_id)
        session = self.sessions.settle(task_id)
        if session is not None and measured.instance_ended:
            came_up = task_id != session.opening or measured.run_s > 0
            self.sessions.end(session, SessionEnd.WORKER_LOST if came_up else SessionEnd.ENDED)
        warm = state is TaskState.COMPLETED or measured.run_s > 0
        self._end_attempt(task_id, state, measured, now_ms, warm=warm)

    def _end_attempt(
        self, task_id: TaskId, state: TaskState, measured: Measures, now_ms: int, *, warm: bool
    ) -> None:
        """A worker is free again, and something was learned there."""
        ended = self._take_off(task_id, now_ms, warm=warm)
        if ended is None:
            return
        worker, held = ended
        learn_end(self.knowledge, held, state, measured, worker.device)
        if measured.vram_short:  # elsewhere, if there is an elsewhere
            self.fleet.refuse(worker, held.setup_key, now_ms + SHORT_MS)
        self._judge(worker, task_id, state, measured, now_ms)
        self.changed.workers[worker.id] = None

    def _take_off(self, task_id: TaskId, now_ms: int, *, warm: bool) -> tuple[Worker, Held] | None:
        """A task has left its worker, however it did."""
        worker, held = self.fleet.worker_of(task_id), self.fleet.held(task_id)
        if worker is not None and held is not None:
            self._correct_share(worker, held, now_ms)
        return self.fleet.end(task_id, now_ms, warm=warm)

    def _correct_share(self, worker: Worker, held: Held, now_ms: int) -> None:
        """A key has what its attempt took of the worker; one that waited behind another took nothing."""
        begun = held.running_ms or worker.held[0] is held
        spent_s = (now_ms - held.assigned_ms) / 1000 if begun else 0.0
        if held.charged_s:
            self.queues.shares.correct(held.key_id, spent_s - held.charged_s)

    def _judge(
        self, worker: Worker, task_id: TaskId, state: TaskState, measured: Measures, now_ms: int
    ) -> None:
        """What an ending says of the worker; a cancel says nothing."""
        if measured.at_fault:
            begun = self.wards.failed(worker.id, task_id, measured.at_fault, now_ms)
            if begun is not None:
                self.quarantine(begun)
        elif state is not TaskState.CANCELLED:
            self.wards.worked(worker.id)

    def quarantine(self, found: Quarantine) -> None:
        """A worker gets no tasks; groups that counted on it must look again."""
        why = f"{found.failures} tasks in a row failed there, and not by their apps; the last one: {found.reason}"
        self.fleet.quarantine(found.worker_id, why)
        self._recall(found.worker_id)

    def on_worker_released(self, worker_id: WorkerId) -> bool:
        """Somebody says that a worker in quarantine works again; False when it was in none."""
        was_out = self.wards.release(worker_id)
        self._admit(worker_id)
        return was_out

    def end_quarantines(self, now_ms: int) -> list[WorkerId]:
        """Workers whose time is over get a task again."""
        over = self.wards.over(now_ms)
        for worker_id in over:
            self._admit(worker_id)
        return over

    def _admit(self, worker_id: WorkerId) -> None:
        self.fleet.quarantine(worker_id, "")
        self.changed.workers[worker_id] = None

    def on_lost(self, engine_id: EngineId, now_ms: int) -> None:
        """An engine fell silent; groups that counted on it must look again."""
        engine = self.fleet.engines.get(engine_id)
        had: set[TaskId] = set()
        for worker in engine.workers.values() if engine is not None else ():
            for held in worker.held:
                self._correct_share(worker, held, now_ms)
                had.add(held.task_id)
        for worker_id in self.fleet.lose(engine_id):
            self.changed.workers[worker_id] = None
            self._recall(worker_id)
        self.end_lost_sessions(had)  # what becomes of these tasks, and so of their sessions, comes as events

    def on_forgotten(self, engine_id: EngineId, now_ms: int) -> None:
        """An engine is known no more, or cannot be read: what nobody can read gets no tasks."""
        self.on_lost(engine_id, now_ms)
        self.fleet.drop(engine_id)
        self._registered_ms.pop(engine_id, None)

    def on_engine(self, view: EngineView, now_ms: int) -> None:
        """An engine joined, changed or leaves."""
        for worker_id in self.fleet.update(view, now_ms):
            self.changed.workers[worker_id] = None
            worker = self.fleet.workers.get(worker_id)
            if worker is None or not worker.available:
                self._recall(worker_id)
        for resident in view.report.residents:
            if resident.vram_bytes and (worker := self.fleet.workers.get(resident.worker_id)):
                self.knowledge.note_vram(resident.setup_key, resident.vram_bytes, worker.device)
        for key in self.pins.on_engine(view, self.fleet, self.knowledge, now_ms):
            self.changed.groups.update((group.id, None) for group in self.queues.of_key(key, GROUPS_OF_KEY))
        before_ms = self._registered_ms.get(view.info.id, view.registered_ms)
        self._registered_ms[view.info.id] = view.registered_ms
        if view.registered_ms != before_ms:
            for known in self.sessions:
                if known.where is not None and known.where[0] == view.info.id:
                    self._end_if_absent(known)

    def on_task_lost(self, task_id: TaskId, *, waits_again: bool) -> None:
        """The engine that had a task does not any more; a session is over with it, unless its first task was not begun."""
        known = self.sessions.of_task(task_id)
        if known is None:
            return
        if waits_again and task_id == known.opening:
            self._place_anew(known)
        else:
            self.sessions.end(known, SessionEnd.WORKER_LOST)

    def _place_anew(self, known: Known) -> None:
        """The first task of a session came back unstarted: it has nothing yet on its worker."""
        known.where = None
        self.release(known.key)

    def end_lost_sessions(self, spared: Collection[TaskId] = ()) -> None:
        """End the sessions whose worker is gone or about to leave: their memory cannot come back.

        One whose first task does not run yet has none. A worker that leaves hands that task back, to be placed anew.
        Those whose first task is one of `spared` are left alone.
        """
        for known in self.sessions:
            if known.where is None or known.opening in spared:
                continue
            worker = self.fleet.workers.get(known.where[1])
            leaves = worker is not None and worker.engine.draining and not self._begins(known)
            if worker is None or not worker.engine.running or leaves:
                self.sessions.end(known, SessionEnd.WORKER_LOST)

    def _begins(self, known: Known) -> bool:
        """Whether the first task of a session is on its worker and does not run yet."""
        opening = self.fleet.held(known.opening)
        return opening is not None and not opening.running_ms

    def restore_session(self, session: Session) -> None:
        """Take a session over from Redis; what engines do now says more than what was written."""
        known = self.sessions.restore(session)
        at = next((w for task_id in session.open_tasks if (w := self.fleet.worker_of(task_id))), None)
        if at is not None:
            self.sessions.bind(known, at.engine.id, at.id)
        elif session.worker_id and session.info.spec.id not in self.queues:
            self.sessions.bind(known, session.engine_id, session.worker_id)
        if known.where is not None:
            self.fleet.lease(known.where[1], known.key)
            if self._registered_ms.get(known.where[0], 0) > session.last_call_ms:
                self._end_if_absent(known)
        for group in self.queues.of_key(known.key, GROUPS_OF_KEY):
            self.changed.groups[group.id] = None

    def _end_if_absent(self, known: Known) -> None:
        """A daemon that started anew has the instances that it reports; a call under way is judged by its end."""
        worker = self.fleet.leaseholder(known.key)
        if not known.tasks and worker is not None and known.key not in worker.residents:
            self.sessions.end(known, SessionEnd.WORKER_LOST)

    def release(self, key: SetupKey) -> None:
        """A session gives its worker back."""
        worker = self.fleet.release(key)
        if worker is not None:
            self.changed.workers[worker.id] = None

    def restore(self, task: TaskView, app: str, now_ms: int) -> None:
        """At the start of a leadership: a task that an engine has."""
        worker = self.fleet.workers.get(WorkerId(task.worker_id))
        if worker is None or self.fleet.worker_of(task.request.id) is not None:
            return
        request = task.request
        loading = task.state in _LOADING
        resident = worker.residents.get(request.setup_key)
        held = self._held(request.id, request.setup_key, "", request.env_key, app, now_ms)
        held.attempt = task.attempt
        date(held, task, now_ms)
        held.needs_env = task.state in _PREPARES and request.env_key not in worker.engine.environments
        if task.history:  # not from now on: what is restored every few seconds would never be looked at
            held.audit_ms = task.history[-1][2] + AUDIT_MS
        if loading or resident is None:
            held.load_s = self.knowledge.load_s(request.setup_key, app)
            if resident is not None and loading:
                resident.phase = Phase.LOADING
        self.fleet.start(worker, held)
        if task.state in _RUNS:
            self.fleet.runs(request.id, held.running_ms or now_ms)

    def apply_assign(self, assign: Assign, attempt: int, now_ms: int) -> None:
        """Redis accepted an assignment."""
        worker = self.fleet.workers.get(assign.worker_id)
        group = self.queues.group_of(assign.task_id)
        if worker is None or group is None:
            return
        self.queues.shares.charge(group.key_id, assign.estimate_s)
        held = self._held(
            assign.task_id, group.setup_key, group.key_id, group.env_key, group.app, now_ms, attempt
        )
        held.charged_s = assign.estimate_s
        if assign.start is Start.COLD:
            held.load_s = max(0.001, assign.estimate_s - held.run_s)
            held.unparks = assign.parked
            held.needs_env = not assign.parked and group.env_key not in worker.engine.environments
        if group.session:
            self._take_worker(worker, group, assign)
        self.fleet.start(worker, held, assign.evict)
        if assign.start is Start.COLD:
            self._expect_memory(worker, group)
        self.queues.remove(assign.task_id)

    def apply_refused(self, assign: Assign, *, engine_gone: bool) -> None:
        """Redis refused an assignment: the task stays queued when only the engine was wrong."""
        if engine_gone:
            self.fleet.suspect(assign.engine_id)
            self.changed.groups[assign.group_id] = None
        else:
            self.queues.remove(assign.task_id)
            self.changed.workers[assign.worker_id] = None

    def apply_wait(self, wait: Wait, now_ms: int) -> None:
        self.queues.waits(wait.group_id, wait.reason, now_ms)

    def apply_evict(self, evict: Evict, now_ms: int) -> None:
        worker = self.fleet.workers.get(evict.worker_id)
        if worker is not None:
            self.fleet.stopping(worker, evict.setup_key, now_ms)

    def _queue(self, spec: TaskSpec, *, front: bool = False) -> None:
        self.deadlines.add(spec)
        self.changed.groups[self.queues.add(spec, front=front)] = None
        if spec.session_id:
            self.sessions.add(spec)

    def _take_worker(self, worker: Worker, group: Group, assign: Assign) -> None:
        """A task of a session was assigned: the worker is the session's."""
        key = group.setup_key
        if assign.start is Start.WARM:
            self.fleet.take_over(worker, key)
        self.fleet.lease(worker.id, key)
        known = self.sessions.get(group.session)
        if known is not None:
            self.sessions.bind(known, worker.engine.id, worker.id)

    def _held(
        self,
        task_id: TaskId,
        key: SetupKey,
        key_id: str,
        env_key: str,
        app: str,
        now_ms: int,
        attempt: int = 0,
    ) -> Held:
        runs = self.knowledge.runs(key, app)
        return Held(
            task_id=task_id,
            setup_key=key,
            key_id=key_id,
            env_key=env_key,
            app=app,
            attempt=attempt,
            assigned_ms=now_ms,
            load_s=0.0,
            audit_ms=now_ms + AUDIT_MS,
            run_s=runs.mean_s(),
            runs=runs,
        )

    def _expect_memory(self, worker: Worker, group: Group) -> None:
        """A load in flight takes what it declares, until it is measured."""
        resident = worker.residents[group.setup_key]
        if not resident.vram_bytes and worker.kind.gpus:
            declared = group.shape.needs.vram_bytes
            resident.vram_bytes = self.knowledge.vram_bytes(group.setup_key, declared, worker.device)

    def _recall(self, worker_id: WorkerId) -> None:
        """The group that waits for a worker must look again, and with it those of its setup."""
        group = self.queues.claimant(worker_id)
        if group is not None:
            self.changed.groups[group.id] = None
