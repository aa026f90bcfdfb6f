"""A task that somebody waits for cannot be deleted: it would run once more. A gateway on a real server, steps by hand."""

import pytest
from agent_scene import MODEL, AgentScene
from gateways import gateway_settings, running

from stoker.core.errors import NotFound
from stoker.core.states import TaskState
from stoker_jobs.agent_steps import step_chat
from stoker_jobs.flow_steps import advance_run

GRAPH = {
    "nodes": [{"id": "input", "type": "input"}, {"id": "a", "type": "app"}],
    "node_data": {"a": {"app": MODEL}},
    "input": {"a": {"text": {"Value": "hi"}}},
    "output_mappings": {},
}


def data(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@pytest.fixture
async def scene(tmp_path, store):
    made = AgentScene(store, tmp_path / "jobs")
    await made.deploy_model()
    return made


@pytest.fixture
async def http(tmp_path, s3_server, store):
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        yield gateway.client


@pytest.fixture(params=["chat", "flow run"])
async def awaited(request, http, scene):
    """A task that has ended, and the step of who waits for it, not taken yet."""
    if request.param == "chat":
        body = {"agent_config": {"core_app_ref": MODEL}, "input": {"text": "hi"}}
        message = data(await http.post("/agents/run", json=body))["assistant_message"]
        task_id, step = message["task_id"], (step_chat, message["chat_id"])
    else:
        flow = data(await http.post("/flows", json={"name": "One"}))["id"]
        data(await http.post(f"/flows/{flow}", json=GRAPH))
        run_id = data(await http.post("/flowruns", json={"flow": flow}))["id"]
        await advance_run(scene.desk, run_id)
        run = data(await http.get(f"/flowruns/{run_id}"))
        task_id, step = run["node_tasks"]["a"]["task_id"], (advance_run, run_id)
    assert await scene.store.tasks.cancel(task_id) is TaskState.CANCELLED
    return request.param, task_id, step


async def test_a_task_is_deleted_when_who_waited_for_it_has_gone_on(http, scene, awaited):
    name, task_id, (step, document) = awaited
    refused = await http.delete(f"/tasks/{task_id}")
    assert refused.status_code == 409
    assert f"The {name} {document} waits for this task" in refused.json()["detail"]
    await step(scene.desk, document)
    data(await http.delete(f"/tasks/{task_id}"))
    await step(scene.desk, document)
    with pytest.raises(NotFound):
        await scene.store.tasks.read(task_id)
