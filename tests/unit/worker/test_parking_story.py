"""Parking under whatever comes: random stories of tasks, deaths, failures and shortages on one GPU.

Whatever happens: the device is never overcommitted, an instance is loaded or parked and never both, what lives is known
and what is not known does not live, and every task ends.
"""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorders import until
from unit.worker.test_parking import GIB, HOST, MODEL_GIB, ParkScene

from stoker.core.states import ResidentState
from stoker.core.states import TaskState as S
from stoker_worker.host_memory import HostMemory
from stoker_worker.instance_errors import InstanceFailed

pytestmark = pytest.mark.unit

KEYS = "abc"
SHORT = HostMemory(total_bytes=200 * GIB, free_bytes=5 * GIB)

steps = st.one_of(
    *[st.tuples(st.just("run"), st.sampled_from(KEYS))] * 6,
    st.tuples(st.just("kill"), st.sampled_from(KEYS)),
    st.tuples(st.just("evict"), st.sampled_from(KEYS)),
    st.tuples(st.just("fails"), st.sampled_from(["", "park", "unpark", "setup"])),
    st.tuples(st.just("keeps"), st.sampled_from(["0", "2", "12"])),
    st.tuples(st.just("host"), st.sampled_from(["short", "enough"])),
)


class Story:
    def __init__(self, folder):
        self.scene = ParkScene(folder, parking_max_bytes=45 * GIB)
        self.scene.residency._ledger.learn("c", MODEL_GIB * GIB)
        self.tasks = 0

    async def do(self, what, value):
        scene = self.scene
        match what:
            case "run":
                self.tasks += 1
                await scene.run(setup_key=value, task_id=f"t{self.tasks}")
                assert scene.outcome.state is (S.FAILED if self.failed_setup() else S.COMPLETED)
            case "kill":
                for residence in self.living(value):
                    residence.instance.exited.set()
                    scene.device.end(residence.instance.pgid)
            case "evict":
                scene.residency.evict(value, "ordered")
            case "fails":
                scene.machine.fails = {value: InstanceFailed("no", value)} if value else {}
            case "keeps":
                scene.machine.keeps = int(value)
            case "host":
                scene.memory = SHORT if value == "short" else HOST
                scene.lot.check()
        await self.settled()
        self.holds()

    def failed_setup(self):
        return "setup" in self.scene.machine.fails and "setup" in self.scene.machine.steps

    def living(self, key):
        residency = self.scene.residency
        found = [residency._residents.get(key), residency.bay._parked.get(key)]
        return [residence for residence in found if residence is not None and residence.instance is not None]

    async def settled(self):
        def still():
            states = set(self.scene.residents().values())
            dead = [r for key in KEYS for r in self.living(key) if r.instance.exited.is_set()]
            return states <= {ResidentState.IDLE} and not dead

        await until(still)

    def holds(self):
        scene = self.scene
        loaded, parked = set(scene.residents()), set(scene.parked())
        assert not loaded & parked
        known = {r.instance for key in KEYS for r in self.living(key)}
        assert {process for process in scene.machine.processes if not process.exited.is_set()} == known
        assert {stay.setup_key for stay in scene.lot._stays.values()} == parked
        used = sum(scene.device.groups.get(process.pgid, 0) for process in known)
        assert used + scene.device.driver <= 24 * GIB
        if scene.memory is SHORT:
            assert not parked


@settings(max_examples=60)
@given(st.lists(steps, min_size=5, max_size=20))
def test_whatever_comes_what_lives_is_known_and_fits(story):
    async def play():
        with tempfile.TemporaryDirectory() as folder:
            told = Story(Path(folder))
            for what, value in story:
                await told.do(what, value)
            await told.scene.residency.stop_all("the story is over")
            assert all(process.exited.is_set() for process in told.scene.machine.processes)

    asyncio.run(play())
