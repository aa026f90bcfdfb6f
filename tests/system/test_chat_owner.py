"""Who may follow a chat."""

import json

import pytest
from agent_scene import ANN, AgentScene
from gateways import gateway_settings, running

from stoker_gateway.routes.keys import NewKey, make_key


@pytest.fixture
async def gateway(tmp_path, s3_server, store):
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as made:
        yield made


async def test_a_chat_is_followed_by_its_owner_and_is_not_there_for_others(gateway, store, tmp_path):
    await AgentScene(store, tmp_path).called("none")
    text, key = make_key(ANN.user_id, NewKey(name="ann"))
    await store.keys.put(key)
    for chat_id in ("c", "none"):
        answer = await gateway.client.get(f"/chats/{chat_id}/stream")
        assert answer.status_code == 404
    headers = {"authorization": f"Bearer {text}", "accept": "application/x-ndjson"}
    async with gateway.open.stream("GET", "/chats/c/stream", headers=headers) as answer:
        assert answer.status_code == 200
        first = await anext(answer.aiter_lines())
    assert json.loads(first)["event"] == "chat_messages"
