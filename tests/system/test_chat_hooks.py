"""Hooks of chats at the jobs' desk: what arrives, signed as webhooks are, and what the answer does."""

import asyncio
import hashlib
import hmac
import json

import httpx
import pytest
from agent_scene import AgentScene
from structlog.testing import capture_logs

from stoker.agents.chat import KIND, CallStatus
from stoker.core.audit import Actor
from stoker.core.messages import TaskId
from stoker.log import get_logger
from stoker.outbound import checked_client
from stoker.settings import GatewaySettings
from stoker_gateway.signing import Signing
from stoker_jobs.agent_steps import step_chat
from stoker_jobs.chat_hooks import ask_hook, delivery_id
from stoker_jobs.webhooks import Deliverer

MINE = {"name": "mine", "type": "client", "client": {}}


def hook(receiver, event="agent.tool_call", **more):
    return {"event": event, "type": "webhook", "handler": receiver.url + "/hook?token=abcdef", **more}


async def deliver(scene):
    """Make all tries that are due."""
    async with checked_client(httpx.Timeout(5)) as client:
        deliverer = Deliverer(scene.store, scene.settings, client, get_logger("test"))
        while await deliverer.take():
            await asyncio.gather(*deliverer._running)


async def test_a_hook_that_nobody_waits_for_is_a_delivery_and_is_told_once(scene, receiver):
    hooks = [hook(receiver, event, **{"async": True}) for event in ("agent.start", "agent.tool_call")]
    chat_id = await scene.called("mine", '{"a": 1}', tools=[MINE], hooks=hooks)
    assert [call.status for call in (await scene.chat()).open_calls] == [CallStatus.AWAITING_INPUT]
    for _ in range(3):
        await step_chat(scene.desk, chat_id)
        await deliver(scene)
    bodies = {json.loads(body)["event"]: json.loads(body) for _, _, body in receiver.requests}
    assert len(receiver.requests) == 2
    assert bodies["agent.start"]["message"] == "Go"
    assert bodies["agent.tool_call"]["tool"] == "mine"
    assert bodies["agent.tool_call"]["arguments"] == {"a": 1}
    headers = {h["X-Webhook-Event"]: h["X-Delivery-Id"] for _, h, _ in receiver.requests}
    assert headers["agent.tool_call"] == delivery_id(chat_id, "c-1-0-tool_call-1")
    assert (await scene.chat()).hooks == ()


async def test_a_delivery_of_a_chat_that_is_deleted_says_so(scene, receiver):
    hooks = [hook(receiver, **{"async": True})]
    chat_id = await scene.called("mine", tools=[MINE], hooks=hooks)
    await step_chat(scene.desk, chat_id)
    await scene.store.documents.delete(KIND, chat_id, "ann")
    await deliver(scene)
    assert [json.loads(body) for _, _, body in receiver.requests] == [{"event": "chat.gone", "chat_id": "c"}]


async def test_a_hook_that_is_waited_for_is_signed_and_lets_the_call_go_on(scene, receiver, tmp_path):
    _, secret = await Signing(scene.store, GatewaySettings(data_dir=tmp_path)).renew(
        Actor(user_id="ann", key_id="k"), 0
    )
    chat_id = await scene.called("mine", tools=[MINE], hooks=[hook(receiver)])
    assert [call.status for call in (await scene.chat()).open_calls] == [CallStatus.PENDING]
    await scene.call_address(ask_hook, "c-1-0-tool_call-0")
    [(_, headers, body)] = receiver.requests
    signed = headers["X-Webhook-Timestamp"].encode() + b"." + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-Webhook-Signature"] == "sha256=" + expected
    assert headers["X-Delivery-Id"] == delivery_id(chat_id, "c-1-0-tool_call-0")
    assert [call.status for call in (await scene.chat()).open_calls] == [CallStatus.AWAITING_INPUT]
    await scene.call_address(ask_hook, "c-1-0-tool_call-0")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, '{"decision": "deny", "reason": "not today"}'), "did not allow it: not today"),
        ((500, "broken"), "it could not be asked (127.0.0.1 answered with status 500: broken)"),
        (None, "it could not be asked (no answer within 0.2 s)"),
    ],
)
async def test_a_call_that_its_hook_does_not_allow_is_not_made_and_the_model_goes_on(
    scene, receiver, answer, says
):
    if answer is None:
        receiver.hold.clear()
    else:
        receiver.answer = answer
    await scene.called("mine", tools=[MINE], hooks=[hook(receiver, timeout=0.2 if answer is None else 20)])
    await scene.call_address(ask_hook, "c-1-0-tool_call-0")
    [(status, result)] = await scene.results()
    assert status == "cancelled"
    assert says in result
    turn = (await scene.chat()).turn
    assert (await scene.store.tasks.read(TaskId(turn.task_id))).request.input["tool_call_id"] == "m0"


async def test_what_may_not_be_reached_is_not_called(scene, receiver, tmp_path):
    strict = AgentScene(scene.store, tmp_path, webhook_allow=())
    await strict.called("mine", tools=[MINE], hooks=[hook(receiver)])
    await strict.call_address(ask_hook, "c-1-0-tool_call-0")
    assert receiver.requests == []
    assert "is not public" in (await strict.results())[0][1]


async def test_a_refusal_that_repeats_the_address_is_told_without_it(scene, receiver):
    """What follows the host may be a key, and whoever talks to the agent reads the reason."""
    receiver.answer = (404, "Cannot POST /hook?token=abcdef")
    await scene.called("mine", tools=[MINE], hooks=[hook(receiver)])
    with capture_logs() as logs:
        await scene.call_address(ask_hook, "c-1-0-tool_call-0")
    [(_, result)] = await scene.results()
    assert "could not be asked" in result
    assert "abcdef" not in f"{result} {logs}"
