"""Steps of flow runs on a real server: whatever breaks off where, nothing is lost and nothing is done twice."""

import asyncio
import contextlib
import itertools
import threading

import msgspec
import pytest
from msgspec import structs
from protocol_scene import Scene

from stoker.core.apps import App, AppFunction, AppVersion
from stoker.core.errors import DocumentChanged, NotFound, StoreUnavailable
from stoker.core.messages import FlowRef, Outcome, Owner, StoredFile, Waiter
from stoker.core.states import TERMINAL, TaskState
from stoker.flows import records
from stoker.flows.plan import AppCall, Kind, Plan, PlanNode, Rule, Source
from stoker.flows.records import FLOW, RUN
from stoker.flows.run import RunNode
from stoker.protocol import AssignOrder, Store
from stoker.protocol.documents import Change
from stoker.protocol.files import USE_GRACE_MS
from stoker.protocol.outbox import Nudge
from stoker.runs.registry import Registry
from stoker.runs.submit import Origin, RunBody, Submitter
from stoker.settings import JobsSettings
from stoker_jobs import flow_steps
from stoker_jobs.desk import Desk
from stoker_jobs.flow_steps import advance_run

pytestmark = pytest.mark.long

OWNER = Owner(user_id="ann", key_id="k1")
WRITES = {"put_document", "submit", "carry", "cancel"}
MOST = 40
"""Steps of a run; each needs far fewer."""


def node(name, *after):
    inputs = {one: Source(node=one, path="n") for one in after} or {"n": Source(node="input", path="n")}
    return PlanNode(
        id=name, kind=Kind.APP, after=after, inputs=inputs, app=AppCall(app_id="echo", ref="ns/echo")
    )


DIAMOND = Plan(
    nodes=(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c")),
    outputs={"n": Source(node="d", path="n")},
)


COMPUTES = Plan(nodes=(node("a"), PlanNode(id="b", kind=Kind.CONSTANT, rule=Rule(value=1))))


def later():
    """What says that there is no time to compute at first, and then always."""
    looks = itertools.count()
    return lambda: lambda: next(looks) > 0


def desk_of(store, tmp_path):
    settings = JobsSettings(data_dir=tmp_path, pool=store.pool, retention_s=3600)
    registry = Registry(store)
    submitter = Submitter(store, registry, settings, base_url="http://gateway")
    return Desk(store=store, settings=settings, submitter=submitter, registry=registry)


async def deploy(store, name, flow=None):
    function = AppFunction(name="run")
    version = AppVersion(
        id=f"{name}1", short_id="v", app_id=name, created_ms=0, functions={"run": function}, flow=flow
    )
    app = App(
        id=name, short_id=name, namespace="ns", name=name, owner_id="ann", current_version_id=version.id
    )
    await store.catalog.add_app(app)
    await store.catalog.put_version(version)


class Stage:
    """A pool with an app, a flow of four nodes of it, and a machine that ends every task at once."""

    def __init__(self, store, tmp_path):
        self.store, self.desk = store, desk_of(store, tmp_path)
        self.scene = Scene(store)

    async def set_up(self, plan=DIAMOND):
        await self.scene.set_up(lease_s=3600)  # nothing here is about time
        await self.store.scheduling.lead("me", 3600, self.scene.epoch)
        await self.store.tasks.cancel("t1")
        await deploy(self.store, "echo")
        parts = {records.plan_part("v"): records.dumps(plan)}
        await self.store.documents.put(FLOW, "f1", "ann", 0, Change(body=b"{}", parts=parts))
        await deploy(self.store, "flow", FlowRef(flow_id="f1", version_id="v"))
        return self

    async def replan(self, plan):
        flow = await self.store.documents.get(FLOW, "f1")
        change = Change(body=flow.body, parts={records.plan_part("v"): records.dumps(plan)})
        await self.store.documents.put(FLOW, "f1", "ann", flow.revision, change)

    async def begin(self):
        view, _ = await self.desk.submitter.submit(RunBody(app="ns/flow", input={"n": 1}), OWNER)
        return view.request.id

    async def task_ids(self):
        found, _ = await self.store.tasks.after("ann", None, 1000)
        return [task_id for _, task_id in found]

    async def tasks(self, run_id):
        views = await self.store.tasks.read_many(await self.task_ids(), with_logs=False)
        return [
            view for view in views if view.request.waiter == Waiter(kind=RUN, id=run_id, part=view_part(view))
        ]

    async def work(self, state=TaskState.COMPLETED):
        """Run every task that waits, to its end."""
        orders = [
            AssignOrder(task_id=spec.id, engine_id="box", worker_id="box-cpu-0")
            for spec in await self.store.scheduling.pending()
        ]
        await self.store.scheduling.assign_many(self.scene.epoch, orders)
        _, found = await self.store.engines.inbox("box", "0", 1)
        for entry, order in found:
            given = order.task.input
            await self.store.engines.accept(order, "box", entry, TaskState.RUNNING)
            output = msgspec.Raw(msgspec.json.encode({"n": sum(given.values())}))
            await self.store.engines.finish(order, "box", Outcome(state=state, output=output, error="no"))

    async def play(self, run_id, looks=0):
        """Take steps until the run has ended, and `looks` more, as the document's time would."""
        for _ in range(MOST):
            with contextlib.suppress(StoreUnavailable):
                await advance_run(self.desk, run_id)
            if (await self.store.tasks.read(run_id)).state in TERMINAL:
                break
            await self.work()
        for _ in range(looks):
            with contextlib.suppress(StoreUnavailable):
                await advance_run(self.desk, run_id)
        return await self.store.tasks.read(run_id)

    async def look_at_due(self):
        """Take the step of each run whose time may yet come."""
        for due in await self.store.documents.take_due(everything=True):
            await advance_run(self.desk, due.id)


def view_part(view):
    return view.request.waiter.part if view.request.waiter else ""


@pytest.fixture
async def stage(store, tmp_path):
    return await Stage(store, tmp_path).set_up()


class Breaks:
    """Breaks one writing script off: before it was run, or after it."""

    def __init__(self, monkeypatch, connection, number, how):
        self.left, self.how = number, how
        self.original = connection.script
        monkeypatch.setattr(connection, "script", self.script)

    async def script(self, name, keys, args, **options):
        if name not in WRITES:
            return await self.original(name, keys, args, **options)
        self.left -= 1
        if self.left == 0 and self.how == "before":
            raise StoreUnavailable
        result = await self.original(name, keys, args, **options)
        if self.left == 0:
            raise StoreUnavailable
        return result


async def test_a_run_goes_through_its_nodes(stage):
    run_id = await stage.begin()
    view = await stage.play(run_id)
    assert (view.state, bytes(view.output)) == (TaskState.COMPLETED, b'{"n":2}')
    assert sorted(view_part(one) for one in await stage.tasks(run_id)) == ["a", "b", "c", "d"]
    assert await stage.store.documents.take_due(everything=True) == []


@pytest.mark.parametrize("how", ["before", "after"])
async def test_wherever_a_step_breaks_off_nothing_is_lost_and_nothing_is_done_twice(stage, monkeypatch, how):
    for number in itertools.count(1):
        run_id = await stage.begin()
        with monkeypatch.context() as patched:
            breaks = Breaks(patched, stage.store._connection, number, how)
            view = await stage.play(run_id, looks=2)  # the first may be what breaks off
        assert (view.state, bytes(view.output)) == (TaskState.COMPLETED, b'{"n":2}'), number
        views = await stage.tasks(run_id)
        assert sorted(map(view_part, views)) == ["a", "b", "c", "d"], number
        assert {(one.state, one.attempt) for one in views} == {(TaskState.COMPLETED, 1)}
        assert await stage.store.documents.take_due(everything=True) == []
        if breaks.left > 0:  # beyond the last write
            assert number > 10
            return


@pytest.mark.parametrize("dies", [False, True], ids=["", "and its step dies"])
@pytest.mark.parametrize(
    "plan", [DIAMOND, COMPUTES], ids=["apps", "and a rule that is left to the next step"]
)
async def test_wherever_a_run_is_cancelled_no_task_of_it_stays(stage, monkeypatch, plan, dies):
    await stage.replan(plan)
    seen = set()
    for number in itertools.count(1):
        run_id = await stage.begin()
        with monkeypatch.context() as patched:
            patched.setattr(flow_steps, "_time_to_compute", later())
            cancels = Cancels(patched, stage, number, run_id, dies=dies)
            view = await stage.play(run_id)
        if dies:
            await stage.look_at_due()
            with monkeypatch.context() as patched:  # what was never submitted is not looked for for ever
                patched.setattr(flow_steps, "UNBORN_S", 0)
                await stage.look_at_due()
        seen.add(view.state)
        assert seen <= {TaskState.CANCELLED, TaskState.COMPLETED}
        assert all(one.state in TERMINAL or one.cancel_requested for one in await stage.tasks(run_id)), number
        assert await stage.store.documents.take_due(everything=True) == []
        await stage.work()
        if cancels.left > 0:  # beyond the last write
            assert number > 5
            assert TaskState.CANCELLED in seen
            return


class Cancels(Breaks):
    """Cancels a run just before one writing script of a step, and has another step see that first. `dies`: right after it."""

    def __init__(self, monkeypatch, stage, number, run_id, *, dies):
        super().__init__(monkeypatch, stage.store._connection, number, "after" if dies else "")
        self.stage, self.run_id = stage, run_id

    async def script(self, name, keys, args):
        self.left -= name in WRITES
        if name not in WRITES or self.left != 0:
            return await self.original(name, keys, args)
        await self.stage.store.tasks.cancel(self.run_id)
        await advance_run(self.stage.desk, self.run_id)
        result = await self.original(name, keys, args)
        if self.how == "after":
            raise StoreUnavailable
        return result


async def test_steps_at_the_same_time_do_no_more_than_one(stage, redis_server, tmp_path):
    other = await Store.open(redis_server.url, stage.store.pool)
    desks = (stage.desk, desk_of(other, tmp_path))
    try:
        run_id = await stage.begin()
        for _ in range(MOST):
            await asyncio.gather(*(advance_run(desk, run_id) for desk in desks * 3))
            if (await stage.store.tasks.read(run_id)).state in TERMINAL:
                break
            await stage.work()
        assert (await stage.store.tasks.read(run_id)).state is TaskState.COMPLETED
        assert sorted(view_part(one) for one in await stage.tasks(run_id)) == ["a", "b", "c", "d"]
    finally:
        await other.close()


async def test_a_node_whose_app_is_gone_fails_the_run_with_the_reason(stage):
    run_id = await stage.begin()
    await advance_run(stage.desk, run_id)
    await stage.store.catalog.delete_app(await stage.store.catalog.get_app("echo"), 1)
    stage.desk.registry.forget()
    await stage.work()
    view = await stage.play(run_id)
    assert (view.state, view.error_code) == (TaskState.FAILED, records.APP_FAILED)
    assert "node 'b': App not found" in view.error


async def test_what_is_refused_when_another_step_had_submitted_it_before_goes_on(stage, monkeypatch):
    """Between the two its app is deleted, say."""
    run_id = await stage.begin()
    submit = stage.desk.submitter.submit

    async def second(*args, **named):
        await submit(*args, **named)
        raise NotFound("There is no app ns/echo.")

    monkeypatch.setattr(stage.desk.submitter, "submit", second)
    assert (await stage.play(run_id)).state is TaskState.COMPLETED


async def test_computing_that_takes_long_is_written_and_goes_on_after_the_steps_of_others(stage, monkeypatch):
    nodes = tuple(PlanNode(id=name, kind=Kind.CONSTANT, rule=Rule(value=1)) for name in ("a", "b"))
    await stage.replan(Plan(nodes=nodes))
    run_id = await stage.begin()
    await stage.store.outbox.open()
    turns = []
    monkeypatch.setattr(flow_steps, "_time_to_compute", lambda: lambda: bool(turns) and turns.pop())
    states, nudges = [], []
    for _ in range(2):
        turns.append(True)
        await advance_run(stage.desk, run_id)
        document = await stage.store.documents.get(RUN, run_id)
        states.append({name: str(one.state) for name, one in records.run_of(document.body).nodes.items()})
        found = await stage.store.outbox.read("me", 1)
        nudges.append([one.id for one in found if isinstance(one, Nudge)])
        if found:
            await stage.store.outbox.done(found)
    assert states == [{"a": "completed", "b": "pending"}, {"a": "completed", "b": "completed"}]
    assert nudges[0][-1] == run_id
    assert not nudges[1]
    assert (await stage.store.tasks.read(run_id)).state is TaskState.COMPLETED


async def test_others_of_the_same_job_go_on_while_a_run_computes(stage, monkeypatch):
    """Also where it decides once more, on what could not be submitted."""
    computing, heard = asyncio.Event(), threading.Event()
    loop, decide, decided = asyncio.get_running_loop(), flow_steps.decide_step, []

    def computes(*args):
        loop.call_soon_threadsafe(computing.set)
        decided.append(heard.wait(10))
        heard.clear()
        return decide(*args)

    async def neighbour():
        while True:
            await computing.wait()
            computing.clear()
            await stage.store.documents.get(FLOW, "f1")
            heard.set()

    run_id = await stage.begin()
    await advance_run(stage.desk, run_id)
    await stage.store.catalog.delete_app(await stage.store.catalog.get_app("echo"), 1)
    stage.desk.registry.forget()
    await stage.work()
    monkeypatch.setattr(flow_steps, "decide_step", computes)
    other = asyncio.create_task(neighbour())
    await advance_run(stage.desk, run_id)
    other.cancel()
    assert decided == [True, True]


async def test_a_step_that_lost_its_time_to_another_one_leaves_the_rest_to_the_next(stage, monkeypatch):
    """Its first write is refused, and with it what it has computed."""
    await stage.replan(COMPUTES)
    await stage.store.outbox.open()
    run_id = await stage.begin()
    await stage.store.outbox.done(await stage.store.outbox.read("me", 1))
    monkeypatch.setattr(flow_steps, "COMPUTE_S", 0)
    put, refused = stage.store.documents.put, []

    async def refuse_once(kind, document_id, owner_id, revision, change):
        if revision and not refused:  # the first write makes the document
            refused.append(revision)
            mine = records.run_of(change.body)
            without = structs.replace(mine, nodes=mine.nodes | {"b": RunNode()})
            await put(kind, document_id, owner_id, revision, Change(body=records.dumps(without).encode()))
            raise DocumentChanged
        return await put(kind, document_id, owner_id, revision, change)

    monkeypatch.setattr(stage.store.documents, "put", refuse_once)
    await advance_run(stage.desk, run_id)
    found = await stage.store.outbox.read("me", 1)
    assert [one.id for one in found if isinstance(one, Nudge)] == [run_id]
    assert (await stage.play(run_id)).state is TaskState.COMPLETED


async def test_merges_that_hold_each_other_end_by_what_is_stored_of_them(stage, monkeypatch):
    monkeypatch.setattr(flow_steps, "COMPUTE_S", 0)  # a step computes one, and reads those before it
    nodes = [PlanNode(id="n0", kind=Kind.CONSTANT, rule=Rule(value="\u00e4" * 10_000))]
    for number in range(1, 8):
        last = nodes[-1].id
        inputs = {"a": Source(node=last)}
        nodes.append(PlanNode(id=f"n{number}", kind=Kind.MERGE, after=(last,), inputs=inputs))
    await stage.replan(Plan(nodes=tuple(nodes)))
    view = await stage.play(await stage.begin())
    assert view.state is TaskState.FAILED
    assert "node 'n6': it gives " in view.error


async def test_a_flow_that_contains_itself_ends(stage):
    inner = AppCall(app_id="flow", ref="ns/flow")
    await stage.replan(Plan(nodes=(PlanNode(id="again", kind=Kind.APP, app=inner),)))
    run_id = await stage.begin()
    for _ in range(MOST):
        for task_id in await stage.task_ids():
            await advance_run(stage.desk, task_id)
    view = await stage.store.tasks.read(run_id)
    assert view.state is TaskState.FAILED
    assert "Does it contain itself?" in view.error


async def test_a_file_that_a_flow_names_itself_is_in_use_by_its_run(stage):
    made = StoredFile(
        id="a" * 26, secret="s", owner_id="ann", filename="f", content_type="", size=1, created_ms=1,
        role="output", task_id="gone", attempt=1, uploaded=True,
    )  # fmt: skip
    await stage.store.files.put(made)
    named = structs.replace(node("a"), inputs={"file": Source(value=f"http://h/files/{made.id}/s/f")})
    await stage.replan(Plan(nodes=(named,)))
    run_id = await stage.begin()
    await advance_run(stage.desk, run_id)
    [task] = await stage.tasks(run_id)
    await stage.store.tasks.cancel(task.request.id)
    await stage.store.tasks.delete(task.request.id)
    long_after = await stage.store.now_ms() + 2 * USE_GRACE_MS
    assert await stage.store.files.is_used(made.id, long_after)


async def test_a_run_of_a_flow_that_was_deleted_fails_and_says_so(stage):
    run_id = await stage.begin()
    await stage.store.documents.delete(FLOW, "f1", "ann")
    view = await stage.play(run_id)
    assert view.state is TaskState.FAILED
    assert "was deleted" in view.error


async def test_what_a_step_submits_is_the_callers(stage):
    run_id = await stage.begin()
    await advance_run(stage.desk, run_id)
    [task] = await stage.tasks(run_id)
    assert await stage.store.tasks.owner(task.request.id) == OWNER
    again, _ = await stage.desk.submitter.submit(
        RunBody(app="ns/echo"), OWNER, origin=Origin(task_id=task.request.id)
    )
    assert again.request.id == task.request.id
