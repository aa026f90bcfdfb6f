"""The protocol as a state machine: every verb, in any order, of any age, on a real server, beside a model.

After every step the server must agree with the model; at the end of every story all tasks are brought to an
end, and no key may be left that belonged to one.
"""

import asyncio
import itertools

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from protocol.delays import MAX_TASKS, Delays
from protocol.draining import ENGINES, Draining, Engine
from protocol.faulty import open_store
from protocol.lifecycle_model import MAX_ATTEMPTS, OF_THE_POOL, Model, Order, keys_of
from protocol.loads import Loads

from stoker.core.errors import (
    KeyQueueFull,
    NotFound,
    ProtocolRefusal,
    StaleAttempt,
    StoreUnavailable,
)
from stoker.core.messages import (
    Assignment,
    EngineInfo,
    EngineReport,
    LogLine,
    LogType,
    Needs,
    Outcome,
    Owner,
    TaskRequest,
    TaskSpec,
    WorkerInfo,
)
from stoker.core.states import ON_ENGINE, TERMINAL, may_move
from stoker.core.states import TaskState as S
from stoker.core.telemetry import Telemetry
from stoker.protocol import AssignOrder, Room, WakeKind
from stoker.protocol.streams import mapping

SCHEDULERS = ("first", "second")
OWNER = Owner(user_id="u", key_id="k")
ROOM = Room(key=2)
"""One fewer than tasks: the last one finds the queue full, or not."""
LEASE_S = 600
PAUSE_S = 600
"""Before another attempt: no story lasts so long, so that it ends when the story says so."""
TELEMETRY = Telemetry(cpu_percent=0, ram_used_bytes=0, ram_total_bytes=0)
_pools = itertools.count()
pick = st.integers(0, 7)
some_tasks = precondition(lambda self: bool(self.tasks))
some_orders = precondition(lambda self: bool(self.orders))
engines = st.sampled_from(ENGINES)
twice = st.booleans()


class Lifecycle(Draining, Delays, Loads, RuleBasedStateMachine):
    """Set `url` before it runs."""

    url = ""

    @initialize()
    def start(self):
        self.loop = asyncio.new_event_loop()
        self.pool = f"m{next(_pools)}"
        self.store, self.connection = self.run(open_store(self.url, self.pool))
        self.tasks: dict[str, Model] = {}
        self.deleted = 0
        self.orders: list[Order] = []
        self.engines = {name: Engine() for name in ENGINES}
        self.wake_at = "0"
        self.leader, self.epoch, self.former = "", 0, 0
        self.take_the_lead(0)
        for name in ENGINES:
            self.register(name, keep=False)

    def run(self, call, *, repeat=False):
        """The result of a call; with `repeat`, of its second sending."""
        if hasattr(self, "connection"):
            self.connection.repeat = repeat
        return self.loop.run_until_complete(asyncio.wait_for(call, 20))

    def order_of(self, number):
        """0 = the newest."""
        return self.orders[-1 - number % len(self.orders)]

    def task_of(self, number):
        names = sorted(self.tasks)
        return names[number % len(names)]

    def owns(self, order):
        model = self.tasks.get(order.task)
        return model is not None and model.attempt == order.message.attempt and model.state in ON_ENGINE

    def refused(self, call, repeat):
        with pytest.raises((StaleAttempt, ProtocolRefusal, NotFound)):
            self.run(call, repeat=repeat)

    # What clients do.

    @precondition(lambda self: len(self.tasks) < MAX_TASKS)
    @rule(repeat=twice, max_attempts=st.sampled_from([1, MAX_ATTEMPTS]))
    def submit(self, repeat, run_at_ms=0, max_attempts=MAX_ATTEMPTS):
        task = f"t{len(self.tasks) + self.deleted}"
        common = {"setup_key": "s", "version_id": "v", "env_key": "e", "app": "a/b"}
        request = TaskRequest(
            id=task, app_id="a", function="run", input={}, setup={}, run_at_ms=run_at_ms, **common
        )
        spec = TaskSpec(id=task, needs=Needs(), max_attempts=max_attempts, retry_delay_s=PAUSE_S, **common)
        call = self.store.tasks.submit(request, spec, OWNER, room=ROOM)
        if self.waiting() >= ROOM.key:
            with pytest.raises(KeyQueueFull):
                self.run(call, repeat=repeat)
            return
        assert self.run(call, repeat=repeat) == task
        self.tasks[task] = Model(delayed=run_at_ms > 0, max_attempts=max_attempts)

    def waiting(self):
        return sum(model.state is S.QUEUED for model in self.tasks.values())

    @some_tasks
    @rule(number=pick, repeat=twice)
    def cancel(self, number, repeat):
        task = self.task_of(number)
        model = self.tasks[task]
        self.run(self.store.tasks.cancel(task), repeat=repeat)
        if model.state is S.QUEUED:
            model.state, model.due = S.CANCELLED, False
        elif model.state in ON_ENGINE:
            model.cancel = True

    @some_tasks
    @rule(number=pick)
    def delete(self, number):
        task = self.task_of(number)
        if self.tasks[task].state in TERMINAL:
            self.run(self.store.tasks.delete(task))
            del self.tasks[task]
            self.deleted += 1
        else:
            with pytest.raises(Exception, match="has not ended"):
                self.run(self.store.tasks.delete(task))

    # What schedulers do.

    @rule(number=st.integers(0, 1))
    def take_the_lead(self, number):
        """The one that leads keeps it; another gets it only after the end of the first one's time."""
        name = SCHEDULERS[number]
        if self.leader and name != self.leader:
            assert self.run(self.store.scheduling.lead(name, LEASE_S)) is None
            self.run(self.connection.command("DEL", f"stoker:{{{self.pool}}}:leader"))  # its time is over
        held = self.epoch if name == self.leader else None
        got = self.run(self.store.scheduling.lead(name, LEASE_S, held))
        if name != self.leader:
            assert got > self.epoch
            self.former, self.leader = self.epoch, name
        self.epoch = got

    @some_tasks
    @rule(number=pick, engine=engines, repeat=twice)
    def assign(self, number, engine, repeat):
        task = self.task_of(number)
        model = self.tasks[task]
        order = AssignOrder(task_id=task, engine_id=engine, worker_id=f"{engine}-cpu-0")
        [result] = self.run(self.store.scheduling.assign_many(self.epoch, [order]), repeat=repeat)
        alive = self.takes_tasks(engine)
        waits = model.state is S.QUEUED and not model.delayed
        if not waits or not alive:
            assert result.refusal == ("ENGINE_GONE" if waits else "NOT_QUEUED")
            return
        assert result.attempt == model.attempt + 1
        self.assigned(task, engine)

    def assigned(self, task, engine):
        model = self.tasks[task]
        model.state, model.attempt, model.engine = S.SCHEDULED, model.attempt + 1, engine
        _, found = self.run(self.store.engines.inbox(engine, "0", 1))
        fresh = [
            Order(engine, message, entry)
            for entry, message in found
            if isinstance(message, Assignment) and (message.task.id, message.attempt) == (task, model.attempt)
        ]
        assert len(fresh) == 1, "one assignment, one message"
        self.orders += fresh
        self.engines[engine].holds[task] = model.attempt

    @rule(number=pick, engine=engines, calls=st.integers(0, 2))
    def die_while_assigning(self, number, engine, calls):
        """The scheduler is cut off after so many calls. The task is where it was, or where it was going."""
        queued = sorted(n for n, model in self.tasks.items() if model.state is S.QUEUED and not model.delayed)
        if not queued or not self.takes_tasks(engine):
            return
        task = queued[number % len(queued)]
        order = AssignOrder(task_id=task, engine_id=engine, worker_id=f"{engine}-cpu-0")
        self.connection.calls_left = calls
        try:
            self.run(self.store.scheduling.assign_many(self.epoch, [order]))
        except StoreUnavailable:
            pass
        finally:
            self.connection.calls_left = None
        if self.run(self.store.tasks.read(task)).state is S.SCHEDULED:
            self.assigned(task, engine)

    @some_tasks
    @rule(number=pick, engine=engines)
    def a_former_leader_can_do_nothing(self, number, engine):
        if not self.former:
            return
        task = self.task_of(number)
        scheduling, model = self.store.scheduling, self.tasks[task]
        order = AssignOrder(task_id=task, engine_id=engine, worker_id=f"{engine}-cpu-0")
        [result] = self.run(scheduling.assign_many(self.former, [order]))
        assert result.refusal == "NOT_LEADER"
        for call in (
            scheduling.requeue(self.former, task, model.engine or engine, model.attempt, "old"),
            scheduling.fail_queued(self.former, task, "queue_timeout", "old"),
            scheduling.reap(self.former, engine),
            scheduling.expire(self.former, task, engine, model.attempt, "run_timeout", "old"),
        ):
            with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
                self.run(call)
        if any(model.due for model in self.tasks.values()):
            with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
                self.run(scheduling.release(self.former, 2**41))

    @some_tasks
    @rule(number=pick, repeat=twice)
    def give_up_a_queued_task(self, number, repeat):
        task = self.task_of(number)
        model = self.tasks[task]
        call = self.store.scheduling.fail_queued(self.epoch, task, "queue_timeout", "waited too long")
        done = self.run(call, repeat=repeat)
        if model.state is S.QUEUED:
            model.state, model.due = S.FAILED, False
        else:
            assert not done

    @some_tasks
    @rule(number=pick, older=twice, repeat=twice)
    def its_time_is_over(self, number, older, repeat):
        """As the scheduler knows it, which may be of a former attempt."""
        task = self.task_of(number)
        model = self.tasks[task]
        attempt = model.attempt - older
        call = self.store.scheduling.expire(
            self.epoch, task, model.engine or "one", attempt, "run_timeout", "too long"
        )
        got = self.run(call, repeat=repeat)
        if older or model.state not in ON_ENGINE:
            assert got is None
            return
        model.state, model.engine = S.CANCELLED if model.cancel else S.FAILED, ""
        assert got is (None if repeat else model.state)

    @rule(repeat=twice)
    def reap(self, repeat):
        expired = self.run(self.store.scheduling.expired())
        assert set(expired) == {n for n, engine in self.engines.items() if engine.alive and engine.silent}
        for name in expired:
            self.run(self.store.scheduling.reap(self.epoch, name), repeat=repeat)
            self.engines[name].alive = self.engines[name].silent = False

    @rule(repeat=twice)
    def take_orphans_back(self, repeat):
        self.wake_at, events = self.run(self.store.scheduling.wake(self.wake_at, 1, count=20))
        for event in events:
            if event.kind is not WakeKind.ORPHANED:
                continue
            model = self.tasks.get(event.task_id)
            owned = model is not None and model.attempt == event.attempt and model.state in ON_ENGINE
            call = self.store.scheduling.requeue(
                self.epoch, event.task_id, event.engine_id, event.attempt, "lost"
            )
            got = self.run(call, repeat=repeat)
            if owned:
                model.lost()
            assert got is (model.state if owned and not repeat else None)

    @rule()
    def read_wake_anew(self):
        """As a new leader does, and one that Redis was away from: what it finds was acted upon by another, or by itself."""
        self.wake_at = "0"

    # What engines do, with orders of any age.

    @some_orders
    @rule(number=pick, state=st.sampled_from([S.PREPARING, S.SERVING, S.RUNNING]), repeat=twice)
    def accept(self, number, state, repeat):
        order = self.order_of(number)
        model = self.tasks.get(order.task)
        call = self.store.engines.accept(order.message, order.engine, order.entry, state)
        if self.owns(order) and model.state in {S.SCHEDULED, state}:
            self.run(call, repeat=repeat)
            model.state = state
        else:
            self.refused(call, repeat)

    @some_orders
    @rule(number=pick, state=st.sampled_from(sorted(ON_ENGINE)), repeat=twice)
    def move(self, number, state, repeat):
        order = self.order_of(number)
        model = self.tasks.get(order.task)
        call = self.store.engines.transition(order.task, order.message.attempt, order.message.token, state)
        if self.owns(order) and (model.state is state or may_move(model.state, state)):
            self.run(call, repeat=repeat)
            model.state = state
        else:
            self.refused(call, repeat)

    @some_orders
    @rule(number=pick, line=st.integers(1, 3), repeat=twice)
    def append(self, number, line, repeat):
        order = self.order_of(number)
        attempt = order.message.attempt
        entry = LogLine(number=line, at_ms=0, type=LogType.RUN, text=f"{attempt}.{line}")
        call = self.store.engines.append(order.task, attempt, order.message.token, lines=[entry])
        if not self.owns(order):
            self.refused(call, repeat)
            return
        self.run(call, repeat=repeat)
        written = self.tasks[order.task].lines.setdefault(attempt, set())
        if line > max(written, default=0):
            written.add(line)

    @some_orders
    @rule(number=pick, state=st.sampled_from([S.COMPLETED, S.FAILED, S.CANCELLED]), repeat=twice)
    def finish(self, number, state, repeat):
        order = self.order_of(number)
        model = self.tasks.get(order.task)
        outcome = Outcome(state=state, output=msgspec.Raw(b'"%d"' % order.message.attempt))
        call = self.store.engines.finish(order.message, order.engine, outcome)
        if self.owns(order) and may_move(model.state, state):
            self.run(call, repeat=repeat)
            model.state, model.engine, model.ended_by = state, "", order.message.token
            self.engines[order.engine].holds.pop(order.task, None)
        elif model is not None and model.ended_by == order.message.token:
            self.run(call, repeat=repeat)  # a repeat of the finish that ended it: answered, without effect
        else:
            self.refused(call, repeat)

    @some_orders
    @rule(number=pick, kills=st.booleans(), repeat=twice)
    def fail_for_now(self, number, kills, repeat):
        """As `finish`, with a failure that another attempt may not meet."""
        order = self.order_of(number)
        model = self.tasks.get(order.task)
        outcome = Outcome(state=S.FAILED, error="no network", retryable=True, kills=kills)
        call = self.store.engines.finish(order.message, order.engine, outcome)
        if self.owns(order):
            self.run(call, repeat=repeat)
            model.taken_back(spend=True, pause=True)
            model.ended_by = order.message.token
            self.engines[order.engine].holds.pop(order.task, None)
        elif model is not None and model.ended_by == order.message.token:
            self.run(call, repeat=repeat)
        else:
            self.refused(call, repeat)

    @some_orders
    @rule(number=pick)
    def hand_back(self, number):
        order = self.order_of(number)
        call = self.store.engines.hand_back(order.message, order.engine, order.entry, "drains")
        if not self.owns(order):
            self.refused(call, repeat=False)
            return
        self.run(call)
        self.tasks[order.task].handed_back()

    @rule(name=engines, repeat=twice)
    def renew(self, name, repeat):
        engine = self.engines[name]
        call = self.store.engines.renew(name, engine.session, TELEMETRY, engine.holds, LEASE_S)
        if not engine.alive:
            with pytest.raises(ProtocolRefusal, match="ENGINE_UNKNOWN"):
                self.run(call, repeat=repeat)
            return
        if engine.recalled:
            with pytest.raises(ProtocolRefusal, match="ENGINE_RECALLED"):
                self.run(call, repeat=repeat)
            return
        renewal = self.run(call, repeat=repeat)
        engine.silent = False
        mine = {task for task, attempt in engine.holds.items() if self.holds(name, task, attempt)}
        assert renewal.lost == set(engine.holds) - mine
        assert {order.task_id for order in renewal.cancelled} == {t for t in mine if self.tasks[t].cancel}
        engine.holds = {task: engine.holds[task] for task in mine}

    @rule(name=engines, keep=st.booleans())
    def register(self, name, keep):
        """The daemon starts anew (and holds nothing), or returns after a silence with what it still runs."""
        engine = self.engines[name]
        held = dict(engine.holds) if keep else {}
        workers = (WorkerInfo(id=f"{name}-cpu-0", index=0),)
        info = EngineInfo(id=name, name=name, version="0", hostname="h", workers=workers)
        call = self.store.engines.register(info, EngineReport(), held, LEASE_S, returning=keep)
        engine.session, lost = self.run(call)
        engine.drains = engine.drains and keep
        assert lost == {task for task, attempt in held.items() if not self.holds(name, task, attempt)}
        engine.holds = {task: attempt for task, attempt in held.items() if task not in lost}
        engine.alive, engine.silent, engine.recalled = True, False, False

    @precondition(lambda self: any(engine.alive for engine in self.engines.values()))
    @rule(name=engines)
    def fall_silent(self, name):
        """The lease is over, as after a pause, a cut cable, or a step of the server's clock."""
        if self.engines[name].alive:
            self.run(self.connection.command("ZADD", f"stoker:{{{self.pool}}}:leases", 1, name))
            self.engines[name].silent = True

    def holds(self, engine, task, attempt):
        model = self.tasks.get(task)
        return (
            model is not None
            and (model.engine, model.attempt) == (engine, attempt)
            and model.state in ON_ENGINE
        )

    # What must hold after every step.

    @invariant()
    def the_server_agrees_with_the_model(self):
        names = list(getattr(self, "tasks", ()))
        views = self.run(self.store.tasks.read_many(names)) if names else []
        for name, view in zip(names, views, strict=True):
            model = self.tasks[name]
            assert (view.state, view.attempt, view.engine_id if model.engine else "") == (
                model.state,
                model.attempt,
                model.engine,
            ), name
            assert model.state is not S.QUEUED or view.queue_reason
            endings = [state for _, state, _ in view.history if S(state) in TERMINAL]
            assert len(endings) == (model.state in TERMINAL)
            attempts = [attempt for attempt, _, _ in view.history]
            assert attempts == sorted(attempts)
            wanted = {f"{a}.{n}" for a, numbers in model.lines.items() for n in numbers}
            assert sorted(line.text for line in view.logs) == sorted(wanted)

    @invariant()
    def every_task_has_its_place(self):
        if not hasattr(self, "tasks"):
            return
        waiting = [spec.id for spec in self.run(self.store.scheduling.pending())]
        later = [spec.id for spec in self.run(self.store.scheduling.delayed())]
        queued = {t: m.delayed for t, m in self.tasks.items() if m.state is S.QUEUED}
        assert sorted(waiting) == sorted(t for t, delayed in queued.items() if not delayed)
        assert sorted(later) == sorted(t for t, delayed in queued.items() if delayed)
        counted = self.run(self.connection.command("HGETALL", f"stoker:{{{self.pool}}}:queued"))
        assert [int(count) for count in mapping(counted).values()] == ([len(queued)] if queued else [])
        for engine in self.run(self.store.engines.list()):
            self.shows_whether_it_drains(engine)
            owned = {t: m.attempt for t, m in self.tasks.items() if m.engine == engine.info.id}
            assert engine.tasks == owned
        assert self.run(self.store.tasks.count(OWNER.user_id)) == len(self.tasks)

    def teardown(self):
        if not hasattr(self, "store"):
            return
        try:
            self.end_everything()
            self.nothing_is_left()
        finally:
            self.close()

    def close(self):
        self.run(self.store.close())
        self.loop.close()

    def end_everything(self):
        """Whatever the story was: what no engine holds comes back by itself, and every task can be ended."""
        for name in ENGINES:
            self.renew(name, repeat=False)
            self.register(name, keep=False)
        while self.orphans_wait():
            self.take_orphans_back(repeat=False)
        assert not any(model.state in ON_ENGINE for model in self.tasks.values())
        for number in range(len(self.tasks)):
            self.cancel(number, repeat=False)
        self.the_server_agrees_with_the_model()
        while self.tasks:
            self.delete(0)

    def orphans_wait(self):
        return bool(self.run(self.store.scheduling.wake(self.wake_at, 1))[1])

    def nothing_is_left(self):
        left = self.run(keys_of(self.connection, self.pool))
        known = OF_THE_POOL | {f"engine:{name}" for name in ENGINES}
        assert left <= known, "keys of tasks that are gone"
