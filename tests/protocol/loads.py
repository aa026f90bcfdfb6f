"""Orders to load that no task asks for, as a part of the state machine in `protocol.lifecycle`."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from protocol.draining import ENGINES

from stoker.core.errors import ProtocolRefusal, Unauthorized
from stoker.core.ids import new_id
from stoker.core.loads import PREFIX
from stoker.core.messages import LoadOrder, Owner, TaskRequest
from stoker.core.pins import LoadGrant


def order(load_id, engine):
    """An order to load on the engine's first worker, and what goes with it."""
    task = TaskRequest(
        id=load_id, app_id="a", app="a/b", version_id="v", function="", input=None, setup={}, setup_key="s", env_key="e"
    )  # fmt: skip
    grant = LoadGrant(
        engine_id=engine, app_id="a", app="a/b", version_id="v", setup_key="s", owner=Owner(user_id="u", key_id="k")
    )  # fmt: skip
    return LoadOrder(task=task, token="", worker_id=f"{engine}-cpu-0"), grant


class Loads:
    """Rules that look at `engines` of the machine."""

    @rule(engine=st.sampled_from(ENGINES), repeat=st.booleans(), former=st.booleans())
    def order_a_load(self, engine, repeat, former):
        """It reaches an engine that takes tasks, once, and from the one who leads alone."""
        load_id = new_id(PREFIX)
        made, grant = order(load_id, engine)
        epoch = self.former if former else self.epoch
        call = self.store.pins.load(epoch, made, grant)
        if former or not self.takes_tasks(engine):
            with pytest.raises(ProtocolRefusal) as refused:
                self.run(call, repeat=repeat)
            assert refused.value.refusal == ("NOT_LEADER" if former else "ENGINE_GONE")
            assert self.loads_of(engine) == []
            return
        self.run(call, repeat=repeat)
        [got] = self.loads_of(engine)
        assert got.task.id == load_id
        assert self.run(self.store.pins.check(load_id, got.token)) == grant
        with pytest.raises(Unauthorized):
            self.run(self.store.pins.check(load_id, "another"))
        self.run(self.connection.command("DEL", f"stoker:{{{self.pool}}}:load:{load_id}"))  # its time is over
        with pytest.raises(Unauthorized):
            self.run(self.store.pins.check(load_id, got.token))

    def loads_of(self, engine):
        """Orders to load in an inbox; they are gone from it then."""
        _, found = self.run(self.store.engines.inbox(engine, "0", 1))
        return [message for _, message in found if isinstance(message, LoadOrder)]
