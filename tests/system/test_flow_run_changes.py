"""Changes of flow runs over HTTP while their steps are taken: one gateway on a real server, steps by hand, no worker."""

import pytest
from gateways import gateway_settings, running

from stoker.core.errors import StoreUnavailable
from stoker.core.states import TaskState
from stoker.flows.records import RUN
from stoker.settings import JobsSettings
from stoker_jobs import flow_steps
from stoker_jobs.desk import desk_on
from stoker_jobs.flow_steps import advance_run

GRAPH = {
    "nodes": [{"id": "a", "type": "constant"}],
    "node_data": {"a": {"utility": {"preset": "constant", "constant": 1}}},
    "output_mappings": {"y": {"sourceNodeId": "a", "sourceFieldPath": "output", "outputFieldName": "y"}},
}


@pytest.fixture
async def http(tmp_path, s3_server, store):
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        yield gateway.client


@pytest.fixture
def desk(tmp_path, store):
    return desk_on(store, JobsSettings(data_dir=tmp_path, pool=store.pool))


def data(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@pytest.fixture
async def unfinished(http, desk, monkeypatch):
    """A flow that runs as an app, whose run has ended, and whose step broke off before its task was told; its id."""
    flow = data(await http.post("/flows", json={"name": "One", "namespace": "test"}))
    data(await http.post(f"/flows/{flow['id']}", json=GRAPH))
    data(await http.post(f"/flows/{flow['id']}/app"))
    task_id = data(await http.post("/run", json={"app": "test/one", "input": {}}))["id"]

    async def broken(*_):
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(flow_steps, "_close", broken)
        with pytest.raises(StoreUnavailable):
            await advance_run(desk, task_id)
    return task_id


@pytest.mark.parametrize("change", ["visibility", "cancel"])
async def test_a_run_that_is_changed_after_its_end_is_looked_at_until_its_task_has_ended(
    http, desk, unfinished, change
):
    before = data(await http.get(f"/flowruns/{unfinished}"))
    assert before["status_text"] == "completed"
    data(await http.post(f"/flowruns/{unfinished}/{change}", json={"visibility": "public"}))
    [due] = await desk.store.documents.take_due(everything=True)
    assert (due.kind, due.id) == (RUN, unfinished)
    await advance_run(desk, unfinished)
    task = await desk.store.tasks.read(unfinished)
    assert (task.state, bytes(task.output)) == (TaskState.COMPLETED, b'{"y":1}')
    assert await desk.store.documents.take_due(everything=True) == []


async def test_a_run_whose_task_is_gone_is_looked_at_no_more(desk, unfinished):
    await desk.store.carried.carry(unfinished, TaskState.COMPLETED)
    await desk.store.tasks.delete(unfinished)
    await advance_run(desk, unfinished)
    assert await desk.store.documents.take_due(everything=True) == []
