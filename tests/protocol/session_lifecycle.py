"""Sessions as a state machine: opened, called, kept, ended, expired and lost in any order, beside a model.

Time passes as the story says: a session's end is moved in Redis, as a step of the server's clock would.
"""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from protocol.faulty import open_store

from stoker.core.errors import ProtocolRefusal, SessionEnded, SessionExpired, SessionNotFound, WorkerLost
from stoker.core.messages import Needs, Owner, TaskRequest, TaskSpec
from stoker.core.sessions import SessionEnd, SessionInfo
from stoker.core.states import TaskState as S

OWNER = Owner(user_id="u", key_id="k")
IDLE_S = 600
MAX_SESSIONS = 3
COMMON = {"setup_key": "s", "version_id": "v", "env_key": "e", "app": "a/b"}
OVER = {
    SessionEnd.ENDED: SessionEnded,
    SessionEnd.EXPIRED: SessionExpired,
    SessionEnd.WORKER_LOST: WorkerLost,
}

_pools = itertools.count()
pick = st.integers(0, 7)
twice = st.booleans()
some = precondition(lambda self: bool(self.sessions))


@dataclass
class Model:
    """What one session must look like."""

    calls: int = 0
    open: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    late: bool = False  # its idle time is over by the clock, and nobody has closed it
    end: SessionEnd | None = None
    worker: str = ""

    @property
    def over(self):
        """Why a call is refused now, or None."""
        return self.end or (SessionEnd.EXPIRED if self.late and not self.open else None)


class SessionLifecycle(RuleBasedStateMachine):
    """Set `url` before it runs."""

    url = ""

    @initialize()
    def start(self):
        self.loop = asyncio.new_event_loop()
        self.pool = f"s{next(_pools)}"
        self.store, self.connection = self.run(open_store(self.url, self.pool))
        self.sessions: dict[str, Model] = {}
        self.tasks = itertools.count()
        self.epoch = self.run(self.store.scheduling.lead("first", IDLE_S))

    def run(self, call, *, repeat=False):
        """The result of a call; with `repeat`, of its second sending."""
        if hasattr(self, "connection"):
            self.connection.repeat = repeat
        return self.loop.run_until_complete(asyncio.wait_for(call, 20))

    def session_of(self, number):
        names = sorted(self.sessions)
        return names[number % len(names)]

    def submit(self, session_id, info=None, *, repeat=False):
        """A task of a session; its id."""
        task = f"t{next(self.tasks)}"
        request = TaskRequest(
            id=task, app_id="a", function="run", input={}, setup={}, session_id=session_id, **COMMON
        )
        spec = TaskSpec(id=task, needs=Needs(), **COMMON)
        self.run(self.store.tasks.submit(request, spec, OWNER, session=info), repeat=repeat)
        return task

    @precondition(lambda self: len(self.sessions) < MAX_SESSIONS)
    @rule(repeat=twice)
    def open(self, repeat):
        name = f"sess_{len(self.sessions)}"
        info = SessionInfo(
            id=name,
            user_id=OWNER.user_id,
            app_id="a",
            app="a/b",
            version_id="v",
            idle_s=IDLE_S,
            spec=TaskSpec(id="", needs=Needs(), **COMMON),
        )
        self.sessions[name] = Model(calls=1, open={self.submit(name, info, repeat=repeat)})

    @some
    @rule(number=pick, repeat=twice)
    def call(self, number, repeat):
        name = self.session_of(number)
        model = self.sessions[name]
        if model.over is not None:
            with pytest.raises(OVER[model.over]):
                self.submit(name, repeat=repeat)
            return
        model.open.add(self.submit(name, repeat=repeat))
        model.calls, model.late = model.calls + 1, False

    @rule()
    def call_nobody(self):
        with pytest.raises(SessionNotFound):
            self.submit("sess_never")

    @some
    @rule(number=pick, repeat=twice)
    def keep(self, number, repeat):
        name = self.session_of(number)
        model = self.sessions[name]
        call = self.store.sessions.keep(name)
        if model.over is not None:
            with pytest.raises(OVER[model.over]):
                self.run(call, repeat=repeat)
            return
        self.run(call, repeat=repeat)
        model.late = False

    @some
    @rule(number=pick, which=pick, repeat=twice)
    def settle(self, number, which, repeat):
        """A task of it has ended; told again, nothing happens."""
        name = self.session_of(number)
        model = self.sessions[name]
        known = sorted(model.open | model.settled)
        task = known[which % len(known)]
        self.run(self.store.sessions.settle(name, task), repeat=repeat)
        if task in model.open:
            model.open.discard(task)
            model.settled.add(task)
            if model.end is None:
                model.late = False

    @some
    @rule(number=pick, why=st.sampled_from(list(SessionEnd)), repeat=twice)
    def end(self, number, why, repeat):
        name = self.session_of(number)
        model = self.sessions[name]
        done = self.run(self.store.sessions.end(name, why), repeat=repeat)
        if why is SessionEnd.EXPIRED and model.over is None:
            assert not done, "its idle time is not over"
            return
        assert done
        model.end = model.over or why

    @some
    @rule(number=pick)
    def time_passes(self, number):
        """More than the idle time of one session: by the server's clock, whoever looks at it."""
        name = self.session_of(number)
        model = self.sessions[name]
        if model.end is not None:
            return
        key, index = f"stoker:{{{self.pool}}}:session:{name}", f"stoker:{{{self.pool}}}:sessions"
        self.run(self.connection.command("HSET", key, "expires", 1))
        if not model.open:
            self.run(self.connection.command("ZADD", index, 1, name))
        model.late = True

    @some
    @rule(number=pick, leads=st.booleans(), repeat=twice)
    def bind(self, number, leads, repeat):
        name = self.session_of(number)
        worker = f"box-cpu-{number}"
        call = self.store.sessions.bind(self.epoch + (not leads), name, "box", worker)
        if not leads:
            with pytest.raises(ProtocolRefusal, match="NOT_LEADER"):
                self.run(call, repeat=repeat)
            return
        self.run(call, repeat=repeat)
        self.sessions[name].worker = worker

    @invariant()
    def the_server_agrees_with_the_model(self):
        if not hasattr(self, "store"):
            return
        for name, model in self.sessions.items():
            found = self.run(self.store.sessions.read(name))
            assert found.end == model.over, name
            assert set(found.open_tasks) == model.open
            assert (found.call_count, found.worker_id) == (model.calls, model.worker)
            assert found.last_task_id in model.open | model.settled

    @invariant()
    def each_session_has_its_place(self):
        """An active one in the index, to be closed when its time is over; one that is over has an end itself."""
        if not hasattr(self, "store"):
            return
        prefix = f"stoker:{{{self.pool}}}"
        indexed = {
            i.decode() for i in self.run(self.connection.command("ZRANGE", f"{prefix}:sessions", 0, -1))
        }
        assert indexed == {name for name, model in self.sessions.items() if model.end is None}
        due = set(self.run(self.store.sessions.idle_over()))
        assert due == {n for n, m in self.sessions.items() if m.end is None and m.over is SessionEnd.EXPIRED}
        for name, model in self.sessions.items():
            ends = self.run(self.connection.command("PTTL", f"{prefix}:session:{name}"))
            assert (ends > 0) == (model.end is not None)

    def teardown(self):
        if not hasattr(self, "store"):
            return
        try:
            self.everything_ends()
        finally:
            self.run(self.store.close())
            self.loop.close()

    def everything_ends(self):
        """Whatever the story was: tasks can be cancelled and settled, sessions be closed."""
        for name, model in self.sessions.items():
            for task in sorted(model.open):
                assert self.run(self.store.tasks.cancel(task)) is S.CANCELLED
                self.run(self.store.sessions.settle(name, task))
            self.run(self.store.sessions.end(name, SessionEnd.ENDED))
        assert self.run(self.store.sessions.active()) == []
