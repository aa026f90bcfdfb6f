"""The daemon against a real server, with a scheduler that the test plays and apps that are recorded."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest
from helpers import PATIENCE_S
from recorders import LogTaker, MachineRecorder, log_spool, order, until

from stoker.core.errors import Conflict, IncompatibleVersion, NotFound
from stoker.core.messages import (
    DrainOrder,
    EngineInfo,
    EvictOrder,
    Needs,
    Owner,
    TaskSpec,
    WorkerInfo,
)
from stoker.core.protocol_version import PROTOCOL_VERSION, Speaks
from stoker.core.states import TaskState as S
from stoker.embedded import EmbeddedServer
from stoker.protocol import AssignOrder, Store, WakeKind
from stoker.protocol.scheduling import Scheduling
from stoker_worker.daemon import Daemon
from stoker_worker.execution import Tools
from stoker_worker.instance import RunResult
from stoker_worker.log_upload import LogUploader
from stoker_worker.spool import Spool
from stoker_worker.telemetry import Sensors

LEASE_S = 3.0


class Environments:
    def environment_keys(self):
        return ("e",)


class Scene:
    """A daemon with two workers, and its scheduler."""

    def __init__(self, store, folder):
        self.store = store
        self.folder = folder
        self.machine = MachineRecorder(RunResult(output={"ok": 1}, files=[]))
        self.stop = asyncio.Event()
        self.epoch = 0
        self.daemon = None
        self.running = None

    async def start(self, lease_s=LEASE_S, drain_grace_s=5.0):
        workers = tuple(WorkerInfo(id=f"box-cpu-{i}", index=i) for i in range(2))
        info = EngineInfo(id="box", name="box", version="0", hostname="h", workers=workers)
        tools = Tools(
            store=self.store.engines,
            engine_id="box",
            spool=Spool(self.folder / "spool"),
            logs=log_spool(self.folder),
            machine=self.machine,
            setup_timeout_s=60,
            run_timeout_s=60,
            upload_timeout_s=60,
        )
        self.daemon = Daemon(
            info,
            self.store.engines,
            tools,
            Sensors(lease_s / 6),
            Environments(),
            LogUploader(tools.logs, LogTaker()),
            lease_s=lease_s,
            drain_grace_s=drain_grace_s,
        )
        await self.daemon.start()
        self.running = asyncio.ensure_future(self.daemon.run(self.stop))
        self.epoch = await self.store.scheduling.lead("me", 30, self.epoch or None) or self.epoch

    async def end(self):
        self.stop.set()
        async with asyncio.timeout(20):
            await self.running

    async def kill(self):
        """End the daemon without any goodbye."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def submit(self, task_id="t1", worker=0, **changes):
        request = order(task_id, **changes).task
        spec = TaskSpec(
            id=task_id,
            setup_key=request.setup_key,
            version_id="v",
            env_key="e",
            app="infsh/echo",
            needs=Needs(),
        )
        await self.store.tasks.submit(request, spec, Owner(user_id="u", key_id="k"))
        await self.assign(task_id, worker)

    async def assign(self, task_id="t1", worker=0):
        wanted = AssignOrder(task_id=task_id, engine_id="box", worker_id=f"box-cpu-{worker}")
        (result,) = await self.store.scheduling.assign_many(self.epoch, [wanted])
        assert result.refusal == ""

    async def task(self, task_id="t1"):
        return await self.store.tasks.read(task_id)

    async def engine(self):
        return await self.store.engines.get("box")

    async def state(self, wanted, task_id="t1"):
        """Wait until a task is in a state."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.task(task_id)).state is not wanted:
                pass

    async def reported(self, condition):
        """Wait until what the engine says of itself meets a condition."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(await self.engine()):
                pass


@pytest.fixture
async def scene(store, tmp_path):
    made = Scene(store, tmp_path)
    yield made
    if made.running is not None and not made.running.done():
        await made.kill()


def states(view):
    """What a task went through since it was assigned."""
    return [S(state) for attempt, state, _ in view.history if attempt]


async def test_a_task_comes_back_completed_and_its_instance_is_reported(scene):
    await scene.start()
    await scene.submit()
    await scene.state(S.COMPLETED)
    view = await scene.task()
    assert bytes(view.output) == b'{"ok":1}'
    assert states(view) == [
        S.SCHEDULED, S.PREPARING, S.SERVING, S.SETTING_UP, S.RUNNING, S.COMPLETED,
    ]  # fmt: skip
    await scene.reported(lambda engine: [r.setup_key for r in engine.report.residents] == ["s"])
    assert (await scene.engine()).report.environments == ("e",)


async def test_the_second_task_is_warm(scene):
    await scene.start()
    await scene.submit("t1")
    await scene.state(S.COMPLETED, "t1")
    await scene.submit("t2")
    await scene.state(S.COMPLETED, "t2")
    assert states(await scene.task("t2")) == [S.SCHEDULED, S.RUNNING, S.COMPLETED]


async def test_heartbeats_carry_telemetry(scene):
    await scene.start(lease_s=1.0)
    await scene.reported(lambda engine: engine.telemetry is not None)
    assert (await scene.engine()).telemetry.ram_total_bytes > 0


async def test_a_cancel_reaches_a_running_task(scene):
    scene.machine.holds = "run"
    await scene.start()
    await scene.submit()
    await scene.state(S.RUNNING)
    await scene.store.tasks.cancel("t1", grace_ms=2000)
    await scene.state(S.CANCELLED)
    assert "cancel 2" in scene.machine.steps


async def test_a_cancel_of_what_waits_on_the_worker_ends_it_at_once(scene):
    scene.machine.holds = "run"
    await scene.start()
    await scene.submit("t1")
    await scene.state(S.RUNNING, "t1")
    await scene.submit("t2")
    await scene.store.tasks.cancel("t2")
    await scene.state(S.CANCELLED, "t2")
    assert (await scene.task("t1")).state is S.RUNNING


async def test_an_evict_order_unloads_an_idle_instance(scene):
    await scene.start()
    await scene.submit()
    await scene.state(S.COMPLETED)
    evict = EvictOrder(worker_id="box-cpu-0", setup_key="s", reason="room")
    await scene.store.scheduling.send("box", evict)
    await scene.reported(lambda engine: engine.report.residents == ())
    assert scene.machine.steps[-1] == "stop: room"


async def test_a_drain_finishes_what_runs_hands_back_the_rest_and_leaves(scene):
    scene.machine.holds = "run"
    await scene.start()
    await scene.submit("t1")
    await scene.state(S.RUNNING, "t1")
    await scene.submit("t2")
    scene.stop.set()
    await scene.state(S.QUEUED, "t2")
    assert (await scene.engine()).status == "draining"
    scene.machine.go.set()
    await scene.end()
    assert (await scene.task("t1")).state is S.COMPLETED
    assert (await scene.engine()).status == "stopped"
    assert scene.machine.steps[-1] == "stop: the worker is stopping"


async def test_a_drain_longer_than_the_lease_keeps_it(scene):
    scene.machine.holds = "run"
    await scene.start(lease_s=3.0)
    await scene.submit()
    await scene.state(S.RUNNING)
    scene.stop.set()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await until(lambda: loop.time() - begun > 3.5)
    assert await scene.store.scheduling.expired() == []
    scene.machine.go.set()
    await scene.end()
    assert (await scene.task()).state is S.COMPLETED


async def test_what_outlasts_the_grace_goes_back_to_the_queue(scene):
    scene.machine.holds = "run"
    await scene.start(drain_grace_s=0)
    await scene.submit()
    await scene.state(S.RUNNING)
    await scene.end()
    view = await scene.task()
    assert view.state is S.QUEUED


async def test_a_drain_order_leaves_the_pool_but_not_the_process(scene):
    await scene.start()
    await scene.store.scheduling.drain("box", DrainOrder(reason="maintenance"))
    await scene.reported(lambda engine: engine.drained)
    assert not scene.running.done()
    await scene.store.scheduling.drain("box", DrainOrder(reason="again"))  # it has left for it
    await scene.end()
    with pytest.raises(NotFound):
        await scene.store.scheduling.drain("nobody", DrainOrder(reason="r"))


async def test_a_drain_finishes_what_runs_and_sends_what_waits_elsewhere(scene):
    scene.machine.holds = "run"
    await scene.start(lease_s=3.0)
    await scene.submit("t1")
    await scene.state(S.RUNNING, "t1")
    await scene.submit("t2")
    await scene.store.scheduling.drain("box", DrainOrder(reason="maintenance"))
    await scene.state(S.QUEUED, "t2")
    again = AssignOrder(task_id="t2", engine_id="box", worker_id="box-cpu-1")
    [result] = await scene.store.scheduling.assign_many(scene.epoch, [again])
    assert result.refusal == "ENGINE_GONE"
    assert (await scene.engine()).status == "draining"
    scene.machine.go.set()
    await scene.state(S.COMPLETED, "t1")
    await scene.reported(lambda engine: engine.drained)
    await scene.end()


async def test_a_drain_holds_for_a_daemon_that_was_declared_lost_before_it_read_of_it(scene):
    await scene.start(lease_s=1.0)
    dropped = []
    scene.daemon.on_drain = dropped.append
    await scene.store.scheduling.drain("box", DrainOrder(reason="maintenance"))
    await until(lambda: dropped)
    del scene.daemon.on_drain
    await scene.daemon._send_report()
    assert (await scene.engine()).status == "draining"  # whatever it says itself
    await scene.store._connection.command("ZADD", scene.store._keys.leases, 1, "box")
    assert await scene.store.scheduling.reap(scene.epoch, "box")
    await scene.reported(lambda engine: engine.drained)
    await scene.end()


async def test_an_engine_that_is_away_cannot_be_told_to_drain(scene):
    await scene.start()
    await scene.end()
    with pytest.raises(Conflict, match="'box' is not connected"):
        await scene.store.scheduling.drain("box", DrainOrder(reason="r"))


async def test_a_restart_ends_the_daemon_and_the_next_one_takes_tasks(scene):
    await scene.start()
    await scene.store.scheduling.drain("box", DrainOrder(reason="update", restart=True))
    await until(scene.running.done)
    await scene.start()
    await scene.submit()
    await scene.state(S.COMPLETED)
    assert (await scene.engine()).drain is None


async def test_a_daemon_that_returns_to_a_pool_of_another_age_ends_in_words(scene):
    await scene.start(lease_s=1.0)
    epoch = await update_control_plane(scene.store)
    await scene.store._connection.command("ZADD", scene.store._keys.leases, 1, "box")
    assert await scene.store.scheduling.reap(epoch, "box")
    with pytest.raises(IncompatibleVersion, match="Update the worker daemon"):
        await asyncio.wait_for(scene.running, 20)
    assert (await scene.engine()).status == "refused"


async def update_control_plane(store):
    """A scheduler leads that is two versions ahead."""
    ahead = Speaks(version=PROTOCOL_VERSION + 2, oldest=PROTOCOL_VERSION + 1, release="ahead")
    await store._connection.command("DEL", store._keys.leader)
    return await Scheduling(store._connection, store._keys, ahead).lead("me", 30)


async def test_an_engine_that_was_declared_lost_comes_back_and_drops_what_it_had(scene):
    scene.machine.holds = "run"
    await scene.start(lease_s=3.0)
    await scene.submit()
    await scene.state(S.RUNNING)
    connection = scene.store._connection
    await connection.command("ZADD", scene.store._keys.leases, 1, "box")
    assert await scene.store.scheduling.reap(scene.epoch, "box")
    await scene.store.scheduling.requeue(scene.epoch, "t1", "box", 1, "silent")
    await until(lambda: "cancel 0" in scene.machine.steps)
    await scene.reported(lambda engine: engine.status == "running")
    assert scene.daemon.held() == {}
    scene.machine.holds = ""
    await scene.assign()
    await scene.state(S.COMPLETED)
    assert (await scene.task()).attempt == 2


async def test_a_daemon_that_returns_gives_its_old_attempts_back(scene):
    scene.machine.holds = "run"
    await scene.start()
    await scene.submit()
    await scene.state(S.RUNNING)
    await scene.kill()
    last_id, _ = await scene.store.scheduling.wake("0", 1)
    await scene.start()
    _, events = await scene.store.scheduling.wake(last_id, 1000)
    orphaned = [event for event in events if event.kind is WakeKind.ORPHANED]
    assert [(event.task_id, event.attempt) for event in orphaned] == [("t1", 1)]


@pytest.fixture
async def own_server():
    """A server that the test may stop and start."""
    with tempfile.TemporaryDirectory(prefix="stoker-daemon-") as folder:
        server = EmbeddedServer(Path(folder))
        await server.start()
        yield server
        await server.stop()


async def test_while_the_server_is_away_tasks_run_on_and_their_ends_are_delivered_later(own_server, tmp_path):
    store = await Store.open(own_server.url, "away")
    scene = Scene(store, tmp_path)
    scene.machine.holds = "run"
    await scene.start(lease_s=3.0)
    await scene.submit("t1", worker=0)
    await scene.submit("t2", worker=1)
    await scene.state(S.RUNNING, "t1")
    await scene.state(S.RUNNING, "t2")
    await own_server.stop()
    loop = asyncio.get_running_loop()
    stopped = loop.time()
    await until(lambda: loop.time() - stopped > 3.5)  # longer than the lease
    assert "cancel 0" not in scene.machine.steps
    scene.machine.go.set()
    await until(lambda: len(scene.daemon._spool.load()) == 2)
    await own_server.start()
    await scene.state(S.COMPLETED, "t1")
    await scene.state(S.COMPLETED, "t2")
    assert scene.daemon._spool.load() == []
    await scene.kill()
    await store.close()


async def test_an_outcome_survives_the_daemon_that_could_not_deliver_it(own_server, tmp_path):
    store = await Store.open(own_server.url, "spool")
    scene = Scene(store, tmp_path)
    scene.machine.holds = "run"
    await scene.start()
    await scene.submit()
    await scene.state(S.RUNNING)
    await own_server.stop()
    scene.machine.go.set()
    await until(scene.daemon._spool.load)
    await scene.kill()
    await own_server.start()
    later = Scene(store, tmp_path)
    await later.start()
    await later.state(S.COMPLETED)
    assert (await later.task()).attempt == 1
    await later.kill()
    await store.close()


async def test_a_server_that_falls_silent_stops_its_tasks_before_the_lease_is_over(own_server, tmp_path):
    """It may be alive for others: the scheduler can hand the task on when the lease is over."""
    store = await Store.open(own_server.url, "silent")
    scene = Scene(store, tmp_path)
    scene.machine.holds = "run"
    await scene.start(lease_s=2.0)
    await scene.submit()
    await scene.state(S.RUNNING)
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        await until(lambda: "cancel 0" in scene.machine.steps)
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    await scene.state(S.QUEUED)
    assert (await scene.task()).attempt == 1
    await until(lambda: scene.daemon.held() == {})
    await scene.kill()
    await store.close()
