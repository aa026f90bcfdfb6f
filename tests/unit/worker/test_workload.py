"""What an engine has taken on: queues, cancels, and what it gives back."""

import asyncio

import msgspec
import pytest
from executions import recording_tools
from recorders import DONE, NoDevices, order, until

from stoker.core.messages import CancelOrder, EvictOrder, WorkerInfo
from stoker.core.states import TaskState as S
from stoker_worker.spool import Spooled
from stoker_worker.workload import QUEUE_LIMIT, Workload

WORKERS = tuple(WorkerInfo(id=f"box-cpu-{i}", index=i) for i in range(2))


class Scene:
    """A workload that is not served until `serve`."""

    def __init__(self, folder):
        tools = recording_tools(folder)
        self.store, self.machine = tools.store, tools.machine
        self.workload = Workload(WORKERS, tools, NoDevices(), lambda: None)
        self.serving = None

    def serve(self):
        self.serving = asyncio.ensure_future(self.workload.serve())

    def assign(self, task_id="t1", attempt=1, worker=0, **changes):
        token = changes.pop("token", f"secret{attempt}")
        made = order(task_id, attempt, worker_id=f"box-cpu-{worker}", **changes)
        self.workload.on_assign(f"{attempt}-0", msgspec.structs.replace(made, token=token))

    def cancel(self, task_id="t1", attempt=1, **changes):
        self.workload.on_cancel(CancelOrder(task_id=task_id, attempt=attempt, **changes))

    def ended(self):
        return [call for call in self.store.calls if call[0] in ("finish", "hand_back")]


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    if made.serving is not None:
        made.serving.cancel()
    await made.workload.unload("test over")


async def test_what_is_assigned_is_held_until_the_store_knows_its_end(scene):
    scene.assign()
    assert scene.workload.held() == {"t1": 1}
    scene.serve()
    await scene.workload.empty()
    assert scene.workload.held() == {}


async def test_an_order_that_is_read_twice_runs_once(scene):
    scene.assign()
    scene.assign()
    scene.serve()
    await scene.workload.empty()
    assert scene.machine.steps.count("run") == 1


async def test_one_task_at_a_time_runs_on_a_worker(scene):
    scene.machine.holds = "run"
    scene.serve()
    scene.assign("t1")
    scene.assign("t2")
    scene.assign("t3", worker=1)
    await until(lambda: scene.machine.steps.count("run") == 2)
    await asyncio.sleep(0)
    assert scene.machine.steps.count("run") == 2
    scene.machine.go.set()
    await scene.workload.empty()
    assert len(scene.ended()) == 3


async def test_a_later_attempt_replaces_an_earlier_one(scene):
    scene.machine.holds = "run"
    scene.serve()
    scene.assign(attempt=1)
    await until(lambda: "run" in scene.machine.steps)
    scene.assign(attempt=2)
    await until(lambda: len(scene.ended()) == 1)
    assert scene.workload.held() == {}


async def test_an_attempt_that_a_new_primary_has_forgotten_gives_way_to_one_with_its_number(scene):
    """A failover may lose an assignment; the next one then counts from where the server stands."""
    scene.machine.holds = "run"
    scene.serve()
    scene.assign(attempt=2)
    await until(lambda: "run" in scene.machine.steps)
    scene.assign(attempt=2, token="of another server")
    assert len(scene.ended()) == 0
    scene.workload.disown(["t1"], "it was given to another worker")
    scene.machine.holds = ""
    scene.assign(attempt=2, token="of another server")
    await until(lambda: len(scene.ended()) == 1)
    assert scene.workload.held() == {}


async def test_a_cancel_of_another_attempt_does_nothing(scene):
    scene.assign(attempt=2)
    scene.cancel(attempt=1)
    scene.cancel("unknown")
    scene.serve()
    await scene.workload.empty()
    assert scene.ended()[0][1].state is S.COMPLETED


async def test_a_cancel_reaches_a_task_that_waits_behind_another(scene):
    scene.machine.holds = "run"
    scene.serve()
    scene.assign("t1")
    scene.assign("t2")
    await until(lambda: "run" in scene.machine.steps)
    scene.cancel("t2")
    await until(scene.ended)
    assert scene.ended() == [("hand_back", "cancelled by its caller")]
    assert scene.workload.held() == {"t1": 1}


async def test_a_forced_cancel_has_no_grace(scene):
    scene.machine.holds = "run"
    scene.serve()
    scene.assign()
    await until(lambda: "run" in scene.machine.steps)
    scene.cancel(force=True)
    await scene.workload.empty()
    assert "cancel 0" in scene.machine.steps


async def test_a_task_for_an_unknown_worker_is_handed_back_with_the_known_ones(scene):
    scene.assign(worker=7)
    await scene.workload.empty()
    assert scene.ended() == [("hand_back", "worker 'box-cpu-7' is unknown here; known: box-cpu-0, box-cpu-1")]


async def test_a_full_queue_hands_back(scene):
    for number in range(QUEUE_LIMIT + 1):
        scene.assign(f"t{number}")
    await until(scene.ended)
    assert scene.ended() == [("hand_back", f"worker 'box-cpu-0' has {QUEUE_LIMIT} tasks waiting")]


async def test_a_drain_hands_back_what_has_not_started_and_lets_the_rest_run(scene):
    scene.machine.holds = "run"
    scene.serve()
    scene.assign("running")
    scene.assign("waiting")
    await until(lambda: "run" in scene.machine.steps)
    scene.workload.refuse("draining")
    scene.workload.give_back("draining", running=False)
    scene.assign("late")
    await until(lambda: len(scene.ended()) == 2)
    assert scene.workload.held() == {"running": 1}
    scene.machine.go.set()
    await scene.workload.empty()
    assert [call[0] for call in scene.ended()] == ["hand_back", "hand_back", "finish"]


async def test_what_is_loading_has_not_started_its_function_and_is_handed_back(scene):
    scene.machine.holds = "setup"
    scene.serve()
    scene.assign()
    await until(lambda: "setup" in scene.machine.steps)
    scene.workload.give_back("draining", running=False)
    await scene.workload.empty()
    assert scene.ended() == [("hand_back", "draining")]


async def test_what_another_engine_owns_now_is_dropped_and_counted(scene):
    scene.machine.holds = "run"
    scene.serve()
    scene.assign()
    await until(lambda: "run" in scene.machine.steps)
    scene.workload.disown(["t1", "unknown"], "lost")
    await scene.workload.empty()
    assert (scene.ended(), scene.workload.stale) == ([], 1)


async def test_an_outcome_of_an_earlier_life_is_held_until_it_is_delivered(scene):
    scene.store.away = True
    scene.workload.replay(Spooled(order=order(), outcome=DONE))
    assert scene.workload.held() == {"t1": 1}
    scene.store.away = False
    await scene.workload.empty()
    assert scene.store.calls == [("finish", DONE)]


async def test_the_moves_before_an_outcome_of_an_earlier_life_go_out_first(scene):
    scene.workload.replay(Spooled(order=order(), outcome=DONE, moves=((S.RUNNING, ""),)))
    await scene.workload.empty()
    assert scene.store.calls == [("transition", S.RUNNING), ("finish", DONE)]


async def test_evicting_reaches_the_worker_that_is_named(scene):
    scene.serve()
    scene.assign()
    await scene.workload.empty()
    for worker in ("box-cpu-1", "nobody", "box-cpu-0"):
        scene.workload.on_evict(EvictOrder(worker_id=worker, setup_key="s", reason="room"))
    await until(lambda: not scene.workload.snapshot())
    assert scene.machine.steps[-1] == "stop: room"
