"""Which files go and which stay, over both file stores; records and bytes go together."""

import time

import msgspec
import pytest
from stores import chunks, read

from stoker.core.errors import NotFound
from stoker.core.ids import derived_id
from stoker.core.messages import StoredFile, TaskId
from stoker.core.states import NodeState
from stoker.core.states import TaskState as S
from stoker.files import file_key, open_files
from stoker.flows import records
from stoker.flows.plan import AppCall, Kind, Plan, PlanNode, Source
from stoker.flows.records import RUN
from stoker.flows.run import Run, RunNode
from stoker.protocol import Store
from stoker.protocol.documents import Change
from stoker.protocol.files import USE_GRACE_MS, document_user
from stoker.runs.file_uses import note_uses
from stoker.settings import JobsSettings
from stoker_gateway.flows import Flows
from stoker_jobs import file_sweep
from stoker_jobs.desk import desk_on
from stoker_jobs.file_sweep import ABANDONED_MS, remove_expired, remove_orphans
from stoker_jobs.flow_steps import advance_run

NOW = int(time.time() * 1000)
LATER = NOW + USE_GRACE_MS * 2


class Scene:
    def __init__(self, store, files):
        self.store, self.files = store, files
        self._count = 0

    async def file(self, role="", task="", attempt=0, uploaded=True, created_ms=NOW):
        """A record, with bytes when it is uploaded; its id."""
        self._count += 1
        made = StoredFile(
            id=f"{self._count:a>26}".translate(str.maketrans("0189", "bcde")), secret="s", owner_id="u",
            filename="f", content_type="", size=1, created_ms=created_ms, role=role, task_id=task,
            attempt=attempt, uploaded=uploaded,
        )  # fmt: skip
        await self.store.files.put(made)
        if uploaded:
            await self.files.put(file_key(made.id), chunks(b"x"))
        return made.id

    async def task(self, task, state=S.COMPLETED, attempt=1, output=None):
        key = self.store._keys.task(TaskId(task))
        fields = ("state", int(state), "attempt", attempt, "output", msgspec.json.encode(output))
        await self.store._connection.command("HSET", key, *fields)

    async def forget(self, task):
        await self.store._connection.command("DEL", self.store._keys.task(TaskId(task)))

    async def there(self, *ids):
        """Which of these files can be read, checked for both halves."""
        found = []
        for one in ids:
            [record] = await self.store.files.get_many([one])
            try:
                await self.files.size(file_key(one))
                has_bytes = True
            except NotFound:
                has_bytes = False
            assert has_bytes == (record is not None and record.uploaded)
            found += [one] if record else []
        return found


@pytest.fixture
def scene(store, file_store):
    return Scene(store, file_store)


@pytest.fixture
async def scene_of(redis_server, file_store_settings):
    """A function that gives the scene of a pool; all of them keep their files in one place."""
    scenes = []

    async def of(pool):
        store = await Store.open(redis_server.url, pool)
        settings = file_store_settings.model_copy(update={"pool": pool})
        scenes.append(Scene(store, open_files(settings)))
        return scenes[-1]

    yield of
    for made in scenes:
        for record in await made.store.files.get_many(await made.store.files.oldest(0, 100)):
            await made.store.files.delete(record)
        await made.store.close()


async def test_outputs_go_with_their_task_and_uploads_stay(scene):
    upload = await scene.file(created_ms=NOW - 99 * ABANDONED_MS)
    kept, gone = await scene.file("output", "kept", 1), await scene.file("output", "gone", 1)
    await scene.task("kept")
    assert await remove_expired(scene.store, scene.files, NOW) == 1
    assert await scene.there(upload, kept, gone) == [upload, kept]
    assert await scene.store.files.count() == 2
    found, _ = await scene.store.files.after("u", None, 10)
    assert {file.id for file in found} == {upload, kept}


async def test_outputs_of_an_attempt_that_lost_or_failed_go(scene):
    lost, won = await scene.file("output", "t", 1), await scene.file("output", "t", 2)
    failed = await scene.file("output", "f", 1)
    await scene.task("t", attempt=2)
    await scene.task("f", S.FAILED)
    await remove_expired(scene.store, scene.files, NOW)
    assert await scene.there(lost, won, failed) == [won]


async def test_an_output_that_another_task_names_stays_as_long_as_that_task(scene):
    output = await scene.file("output", "first", 1)
    given = {"picture": f"http://h/files/{output}/s/f", "other": "http://h/files/none/s/f"}
    await note_uses(scene.store, given, TaskId("second"))
    assert await remove_expired(scene.store, scene.files, NOW) == 0
    await scene.task("second", S.QUEUED)
    assert await remove_expired(scene.store, scene.files, LATER) == 0
    assert await scene.there(output) == [output]
    await scene.forget("second")
    assert await remove_expired(scene.store, scene.files, LATER) == 1
    assert await scene.there(output) == []
    assert await scene.store._connection.command("KEYS", scene.store._keys.file_users("*")) == []


async def test_an_output_that_a_flow_run_names_stays_as_long_as_that_run(scene):
    output = await scene.file("output", "gone", 1)
    await note_uses(scene.store, {"file": f"/files/{output}/s/f"}, document_user("flowrun", "r1"))
    await scene.store.documents.put("flowrun", "r1", "u", 0, Change(body=b"{}"))
    assert await remove_expired(scene.store, scene.files, LATER) == 0
    await scene.store.documents.delete("flowrun", "r1", "u")
    assert await remove_expired(scene.store, scene.files, LATER) == 1
    assert await scene.there(output) == []


def node(name, *after, **inputs):
    call = AppCall(app_id="app", ref="ns/app")
    return PlanNode(id=name, kind=Kind.APP, app=call, after=after, inputs=inputs)


def run_of(**nodes):
    ran = {name: RunNode(state=NodeState.RUNNING, task_id=task) for name, task in nodes.items()}
    return Run(flow_id="f", flow_version_id="v", name="ns/f", key_id="k", nodes=ran)


async def test_what_a_node_gave_stays_until_the_node_that_waits_for_another_one_too(scene, tmp_path):
    """The run has taken it over, and its task may be deleted."""
    desk = desk_on(scene.store, JobsSettings(data_dir=tmp_path, pool=scene.store.pool))
    task_of = {name: derived_id(RUN, "r1", name, prefix=scene.store.id_prefix) for name in "abc"}
    output = await scene.file("output", task_of["a"], 1)
    await scene.task(task_of["a"], output={"file": f"http://h/files/{output}/s/f"})
    await scene.task(task_of["c"], S.RUNNING)
    nodes = (node("a"), node("c"), node("b", "a", "c", file=Source(node="a", path="file")))
    change = Change(
        body=records.dumps(run_of(a=task_of["a"], c=task_of["c"])).encode(),
        parts=records.run_parts(Plan(nodes=nodes), {}),
    )
    await scene.store.documents.put(RUN, "r1", "u", 0, change)
    await advance_run(desk, "r1")
    await scene.forget(task_of["a"])
    assert await remove_expired(scene.store, scene.files, LATER) == 0
    assert await scene.there(output) == [output]
    await scene.store.documents.delete(RUN, "r1", "u")
    assert await remove_expired(scene.store, scene.files, LATER) == 1


async def test_values_of_single_nodes_that_a_run_is_given_stay_as_long_as_the_run(scene):
    given, own = await scene.file("output", "gone", 1), await scene.file("output", "gone too", 1)
    plan = Plan(nodes=(node("a", file=Source(value={"uri": f"/files/{given}/s/f"})),))
    await Flows(scene.store, None, "").begin(run_of(), plan, {"file": f"/files/{own}/s/f"}, "u", "r1")
    assert await remove_expired(scene.store, scene.files, LATER) == 0
    assert await scene.there(given, own) == [given, own]
    await scene.store.documents.delete(RUN, "r1", "u")
    assert await remove_expired(scene.store, scene.files, LATER) == 2


async def test_nothing_is_noted_for_files_that_are_no_outputs(scene):
    upload = await scene.file()
    await note_uses(scene.store, [f"/files/{upload}/s/f", f"/files/{'z' * 26}/s/f"], TaskId("t"))
    assert await scene.store._connection.command("KEYS", scene.store._keys.file_users("*")) == []


async def test_a_file_whose_bytes_never_came_is_forgotten_a_day_later(scene):
    old = await scene.file(uploaded=False, created_ms=NOW - ABANDONED_MS - 1)
    fresh = await scene.file(uploaded=False)
    await remove_expired(scene.store, scene.files, NOW)
    assert await scene.there(old, fresh) == [fresh]


async def test_a_sweep_goes_through_more_than_a_batch(scene, monkeypatch):
    monkeypatch.setattr(file_sweep, "BATCH", 3)
    await scene.task("kept")
    ids = [await scene.file("output", "kept" if n % 2 else "gone", 1, created_ms=NOW + n) for n in range(10)]
    assert await remove_expired(scene.store, scene.files, NOW) == 5
    assert await scene.there(*ids) == ids[1::2]


async def test_bytes_without_a_record_go_a_day_later_and_other_things_stay(scene, monkeypatch):
    monkeypatch.setattr(file_sweep, "BATCH", 2)
    known = await scene.file()
    orphans = [f"data/aa/orphan{n}" for n in range(5)]
    for key in (*orphans, "logs/aa/of-a-task"):
        await scene.files.put(key, chunks(b"x"))
    assert await remove_orphans(scene.store, scene.files, NOW) == 0
    assert await remove_orphans(scene.store, scene.files, NOW + 2 * ABANDONED_MS) == 5
    assert {held.key async for held in scene.files.list("data/")} == {file_key(known)}
    assert await read(scene.files, "logs/aa/of-a-task") == b"x"


@pytest.mark.parametrize(("mine", "other"), [("default", "gpu"), ("gpu", "default"), ("gpu", "gpu-2")])
async def test_the_bytes_of_another_pool_in_the_same_place_stay(scene_of, mine, other):
    """A pool's records say nothing of another's files: all of them looked like orphans."""
    swept, kept = await scene_of(mine), await scene_of(other)
    file = await kept.file()
    assert await remove_orphans(swept.store, swept.files, NOW + 2 * ABANDONED_MS) == 0
    assert await kept.there(file) == [file]


async def test_what_a_writer_that_died_left_beside_a_file_goes_too(store, tmp_path):
    from stoker.files.local import LocalFiles

    files = LocalFiles(tmp_path / "files")
    partial = tmp_path / "files" / "data" / "aa" / "file.0011aabb.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    assert await remove_orphans(store, files, NOW + 2 * ABANDONED_MS) == 1
    assert not partial.exists()
