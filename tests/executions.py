"""One worker for the tests of executions, and what is told to its attempts."""

import asyncio

from recorders import MachineRecorder, NoDevices, StoreRecorder, log_spool, order, until

from stoker.core.messages import WorkerInfo
from stoker_worker.execution import Execution, Stop, StopKind, Tools
from stoker_worker.instance import RunResult
from stoker_worker.residency import Residency
from stoker_worker.spool import Spool

WORKER = WorkerInfo(id="box-cpu-0", index=0, max_residents=2)
CANCEL = Stop(kind=StopKind.CANCEL, reason="cancelled by its caller", grace_s=10)
RETURN = Stop(kind=StopKind.RETURN, reason="drain")
DISOWN = Stop(kind=StopKind.DISOWN, reason="stale")
COLD = ["prepare", "start", "setup", "run"]


def recording_tools(folder):
    """Tools whose store and machine record what they are asked; runs end well."""
    return Tools(
        store=StoreRecorder(),
        engine_id="box",
        spool=Spool(folder),
        logs=log_spool(folder),
        machine=MachineRecorder(RunResult(output={"ok": 1}, files=[])),
        setup_timeout_s=60,
        run_timeout_s=60,
        upload_timeout_s=60,
    )


class Scene:
    """One worker, and attempts that run on it."""

    def __init__(self, folder):
        self.tools = recording_tools(folder)
        self.store, self.machine = self.tools.store, self.tools.machine
        self.residency = Residency(WORKER, NoDevices(), lambda: None)
        self.settled = []

    def execution(self, **changes):
        return Execution(order(**changes), "1-0", self.tools, self.settled.append)

    async def run(self, **changes):
        """Run one attempt; what the store was told of it."""
        seen = len(self.store.calls)
        await self.execution(**changes).run(WORKER, self.residency)
        return self.store.calls[seen:]

    async def begin(self, hold, **changes):
        """Run an attempt up to a step that lasts until `machine.go` is set."""
        self.machine.holds = hold
        execution = self.execution(**changes)
        running = asyncio.ensure_future(execution.run(WORKER, self.residency))
        await until(lambda: hold in self.machine.steps)
        return execution, running

    @property
    def outcome(self):
        name, outcome = self.store.calls[-1]
        assert name == "finish"
        return outcome

    def residents(self):
        return {resident.setup_key: resident.state for resident in self.residency.snapshot()}


def states(calls):
    return [call[1] for call in calls if call[0] in ("accept", "transition")]
