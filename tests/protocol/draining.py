"""Engines that leave, drain before, or are to register again, as a part of the state machine in `protocol.lifecycle`."""

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from stoker.core.errors import Conflict
from stoker.core.ids import new_id
from stoker.core.messages import DrainOrder, EngineReport

ENGINES = ("one", "two")
engines = st.sampled_from(ENGINES)


@dataclass
class Engine:
    """What an engine believes, and whether the server counts it as alive."""

    session: str = ""
    alive: bool = False
    silent: bool = False
    drains: bool = False
    recalled: bool = False
    holds: dict[str, int] = field(default_factory=dict)


class Draining:
    """Rules that look at `engines` of the machine."""

    @rule(name=engines, repeat=st.booleans())
    def drain(self, name, repeat):
        """It gets nothing new from here on, until a new process registers."""
        engine = self.engines[name]
        call = self.store.scheduling.drain(name, DrainOrder(reason="r"))
        if (engine.alive and not engine.silent) or (engine.drains and self.has_left(name)):
            self.run(call, repeat=repeat)
            engine.drains = True
        else:
            with pytest.raises(Conflict):
                self.run(call, repeat=repeat)

    @rule(name=engines, repeat=st.booleans())
    def recall(self, name, repeat):
        """The scheduler found a server that may have forgotten something."""
        self.run(self.connection.command("SET", f"stoker:{{{self.pool}}}:history", "another"))
        self.run(self.store.scheduling.recall(self.epoch, new_id(), [name]), repeat=repeat)
        engine = self.engines[name]
        engine.recalled = engine.recalled or engine.alive

    @rule(name=engines)
    def report(self, name):
        """What a daemon says of itself undoes no drain."""
        if self.engines[name].alive:
            self.run(self.store.engines.report(name, self.engines[name].session, EngineReport()))

    @rule(name=engines)
    def leave(self, name):
        self.run(self.store.engines.deregister(name, self.engines[name].session))
        engine = self.engines[name]
        self.engines[name] = Engine(session=engine.session, drains=engine.drains, recalled=engine.recalled)

    def shows_whether_it_drains(self, view):
        model = self.engines[view.info.id]
        assert not model.alive or view.status == ("draining" if model.drains else "running")

    def has_left(self, name):
        return self.run(self.store.engines.get(name)).status == "stopped"

    def takes_tasks(self, name):
        engine = self.engines[name]
        return engine.alive and not engine.silent and not engine.drains and not engine.recalled
