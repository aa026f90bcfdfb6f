"""A state machine drives the scripts on a real server against a model of what must hold.

It submits, assigns, accepts, finishes, hands back, loses engines, cancels, and repeats old messages at any
time; after every step the server's view must equal the model's.
"""

import asyncio
import itertools

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from stoker.core.errors import ProtocolRefusal, StaleAttempt
from stoker.core.messages import (
    Assignment,
    EngineInfo,
    EngineReport,
    Needs,
    Outcome,
    Owner,
    TaskRequest,
    TaskSpec,
    WorkerInfo,
)
from stoker.core.states import ON_ENGINE, TERMINAL
from stoker.core.states import TaskState as S
from stoker.embedded import EmbeddedServer
from stoker.protocol import AssignOrder, Store, WakeKind

pytestmark = pytest.mark.protocol

ENGINES = ("one", "two")
OWNER = Owner(user_id="u", key_id="k")
MAX_ATTEMPTS = 3
_pools = itertools.count()
pick = st.integers(0, 1_000_000)


class Model:
    """What one task must look like."""

    def __init__(self) -> None:
        self.state = S.QUEUED
        self.attempt = 0
        self.spent = 0
        self.engine = ""
        self.cancel = False
        self.ended_by = ""


class TaskLifecycle(RuleBasedStateMachine):
    url = ""

    @initialize()
    def start(self):
        self.loop = asyncio.new_event_loop()
        self.store = self.run(Store.open(self.url, f"m{next(_pools)}"))
        self.tasks: dict[str, Model] = {}
        self.orders: list[tuple[str, Assignment, str]] = []  # engine, assignment, inbox entry: of any age
        self.positions = dict.fromkeys(ENGINES, "0")
        self.sessions: dict[str, str] = {}
        self.wake_at = "0"
        self.epoch = self.run(self.store.scheduling.lead("me", 600))
        for engine in ENGINES:
            self.register(engine)

    def run(self, call):
        return self.loop.run_until_complete(asyncio.wait_for(call, 20))

    def register(self, engine):
        info = EngineInfo(
            id=engine,
            name=engine,
            version="0",
            hostname="h",
            workers=(WorkerInfo(id=f"{engine}-cpu-0", index=0),),
        )
        self.sessions[engine], _ = self.run(self.store.engines.register(info, EngineReport(), {}, 600))
        self.positions[engine] = "0"

    def chosen(self, number, states):
        found = sorted(i for i, m in self.tasks.items() if m.state in states)
        return found[number % len(found)] if found else None

    def order(self, number):
        return self.orders[number % len(self.orders)] if self.orders else None

    def current(self, order):
        model = self.tasks[order.task.id]
        return model.attempt == order.attempt and model.state in ON_ENGINE

    @rule()
    def submit(self):
        task = f"t{len(self.tasks)}"
        request = TaskRequest(
            id=task,
            app_id="a",
            app="a/b",
            version_id="v",
            function="run",
            input={},
            setup={},
            setup_key="s",
            env_key="e",
        )
        spec = TaskSpec(
            id=task,
            setup_key="s",
            version_id="v",
            env_key="e",
            app="a/b",
            needs=Needs(),
            max_attempts=MAX_ATTEMPTS,
        )
        for _ in range(2):  # the reply to the first was lost
            assert self.run(self.store.tasks.submit(request, spec, OWNER)) == task
        self.tasks[task] = Model()

    @rule(number=pick, engine=st.sampled_from(ENGINES))
    def assign(self, number, engine):
        if not self.tasks:
            return
        task = sorted(self.tasks)[number % len(self.tasks)]
        model = self.tasks[task]
        result = self.run(
            self.store.scheduling.assign_many(
                self.epoch, [AssignOrder(task_id=task, engine_id=engine, worker_id=f"{engine}-cpu-0")]
            )
        )[0]
        if model.state is not S.QUEUED:
            assert result.refusal == "NOT_QUEUED"
            return
        assert result.attempt == model.attempt + 1
        model.state, model.attempt, model.engine = S.SCHEDULED, result.attempt, engine
        self.positions[engine], found = self.run(self.store.engines.inbox(engine, self.positions[engine], 1))
        self.orders += [(engine, m, entry) for entry, m in found if isinstance(m, Assignment)]

    @rule(number=pick, state=st.sampled_from([S.PREPARING, S.SERVING, S.RUNNING]))
    def accept(self, number, state):
        if not (found := self.order(number)):
            return
        engine, order, entry = found
        model = self.tasks[order.task.id]
        call = self.store.engines.accept(order, engine, entry, state)
        if not self.current(order):
            with pytest.raises(StaleAttempt):
                self.run(call)
        elif model.state is S.SCHEDULED or model.state is state:
            self.run(call)
            model.state = state
        else:
            with pytest.raises(ProtocolRefusal, match="ILLEGAL_MOVE"):
                self.run(call)

    @rule(number=pick, state=st.sampled_from([S.COMPLETED, S.FAILED, S.CANCELLED]))
    def finish(self, number, state):
        if not (found := self.order(number)):
            return
        engine, order, _ = found
        model = self.tasks[order.task.id]
        call = self.store.engines.finish(order, engine, Outcome(state=state, output=msgspec.Raw(b"1")))
        legal = state is not S.COMPLETED or model.state in {S.RUNNING, S.UPLOADING}
        if self.current(order) and legal:
            self.run(call)
            model.state, model.engine, model.ended_by = state, "", order.token
            self.run(self.store.engines.finish(order, engine, Outcome(state=state)))  # the reply was lost
        elif model.state in TERMINAL and model.attempt == order.attempt and model.ended_by == order.token:
            self.run(call)  # a repeat of the finish that ended it is answered, and changes nothing
        else:
            with pytest.raises((StaleAttempt, ProtocolRefusal)):
                self.run(call)

    @rule(number=pick)
    def hand_back(self, number):
        if not (found := self.order(number)):
            return
        engine, order, entry = found
        call = self.store.engines.hand_back(order, engine, entry, "drains")
        if not self.current(order):
            with pytest.raises(StaleAttempt):
                self.run(call)
            return
        self.run(call)
        self.taken_back(order.task.id, spend=False)

    @rule(number=pick)
    def cancel(self, number):
        task = self.chosen(number, set(S))
        if task is None:
            return
        model = self.tasks[task]
        self.run(self.store.tasks.cancel(task))
        if model.state is S.QUEUED:
            model.state = S.CANCELLED
        elif model.state in ON_ENGINE:
            model.cancel = True

    @rule(engine=st.sampled_from(ENGINES), leaves=st.booleans())
    def restart_engine(self, engine, leaves):
        if leaves:
            self.run(self.store.engines.deregister(engine, self.sessions[engine]))
        self.register(engine)

    @rule()
    def take_orphans_back(self):
        self.wake_at, events = self.run(self.store.scheduling.wake(self.wake_at, 1))
        for event in events:
            if event.kind is not WakeKind.ORPHANED:
                continue
            model = self.tasks[event.task_id]
            owned = model.attempt == event.attempt and model.state in ON_ENGINE
            for _ in range(2):  # the reply to the first was lost
                got = self.run(
                    self.store.scheduling.requeue(
                        self.epoch, event.task_id, event.engine_id, event.attempt, "lost"
                    )
                )
                if owned:
                    self.taken_back(event.task_id, spend=True)
                    assert got is model.state
                else:
                    assert got is None
                owned = False

    @rule()
    def a_former_leader_can_do_nothing(self):
        for task, model in self.tasks.items():
            if model.state in ON_ENGINE:
                with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
                    self.run(
                        self.store.scheduling.requeue(
                            self.epoch - 1, task, model.engine, model.attempt, "old"
                        )
                    )

    def taken_back(self, task, *, spend):
        model = self.tasks[task]
        model.spent += spend
        model.engine = ""
        if model.cancel:
            model.state = S.CANCELLED
        else:
            model.state = S.FAILED if model.spent >= MAX_ATTEMPTS else S.QUEUED

    @invariant()
    def the_server_agrees_with_the_model(self):
        if not getattr(self, "tasks", None):
            return
        for task, view in zip(
            self.tasks, self.run(self.store.tasks.read_many(list(self.tasks))), strict=True
        ):
            model = self.tasks[task]
            assert (view.state, view.attempt) == (model.state, model.attempt), task
            assert model.state != S.QUEUED or view.queue_reason
            assert sum(S(state) in TERMINAL for _, state, _ in view.history) == (model.state in TERMINAL)

    @invariant()
    def every_task_has_its_place(self):
        if not getattr(self, "tasks", None):
            return
        waiting = {spec.id for spec in self.run(self.store.scheduling.pending())}
        assert waiting == {t for t, m in self.tasks.items() if m.state is S.QUEUED}
        for engine in self.run(self.store.engines.list()):
            owned = {t: m.attempt for t, m in self.tasks.items() if m.engine == engine.info.id}
            assert owned.items() <= engine.tasks.items()

    def teardown(self):
        if hasattr(self, "store"):
            self.run(self.store.close())
            self.loop.close()


async def test_no_order_of_messages_breaks_the_protocol(tmp_path):
    server = EmbeddedServer(tmp_path)
    await server.start()
    TaskLifecycle.url = server.url
    chosen = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    try:
        await asyncio.to_thread(run_state_machine_as_test, TaskLifecycle, settings=chosen)
    finally:
        await server.stop()
