"""Secrets of tools from the vault to the address that is called, and that they are nowhere else."""

import pytest
from agent_scene import MODEL, AgentScene

from stoker.agents.config import read_config
from stoker.agents.prepare import prepare
from stoker.agents.records import Agent
from stoker.core.audit import Actor
from stoker.core.errors import InvalidRequest
from stoker.vault import Vault
from stoker_jobs.tool_calls import call_tool

KEY = "very-secret-value-1"


def tool(receiver, **own):
    headers = {"X-Key": "${{secrets.KEY}}"}
    return {"name": "search", "type": "http", "http": {"url": receiver.url, "headers": headers} | own}


async def everything(store):
    """All that Redis holds, as text."""
    names = await store._connection.command("KEYS", "*")
    return str([await store._connection.command("DUMP", name) for name in names])


async def test_a_call_shows_the_secret_and_nobody_else_sees_it(scene, receiver):
    await scene.set_secret("KEY", KEY)
    await scene.called("search", tools=[tool(receiver)])
    receiver.answer = (200, "you sent {key}, or " + KEY.upper())
    await scene.call_address(call_tool, "c-1-0")
    assert receiver.requests[0][1]["X-Key"] == KEY
    assert await scene.results() == [("completed", "you sent [redacted:KEY], or " + KEY.upper())]
    assert (await scene.chat()).config.tools[0].headers == {"X-Key": "${{secrets.KEY}}"}
    assert KEY.upper() in await everything(scene.store)
    assert KEY not in await everything(scene.store)


async def test_the_present_value_is_shown_and_a_refusal_does_not_tell_it(scene, receiver):
    await scene.set_secret("KEY", "older-value")
    await scene.called("search", tools=[tool(receiver)])
    await scene.set_secret("KEY", KEY)
    receiver.answer = (403, "{key} may not")
    await scene.call_address(call_tool, "c-1-0")
    assert receiver.requests[0][1]["X-Key"] == KEY
    assert await scene.results() == [("failed", "127.0.0.1 answered with status 403: [redacted:KEY] may not")]


async def test_a_secret_that_was_deleted_is_named_and_nothing_is_called(scene, receiver):
    await scene.set_secret("KEY", KEY)
    await scene.called("search", tools=[tool(receiver)])
    await scene.secrets.delete(Actor(user_id="ann", key_id="k"), "KEY")
    await scene.call_address(call_tool, "c-1-0")
    [(status, result)] = await scene.results()
    assert status == "failed"
    assert "needs the secret KEY, which is missing" in result
    assert receiver.requests == []


async def test_a_secret_that_cannot_be_opened_is_named_and_nothing_is_called(scene, receiver):
    await scene.set_secret("KEY", KEY)
    await scene.called("search", tools=[tool(receiver)])
    settings = scene.desk.settings
    Vault("", settings.secrets_key_path).add_key()
    Vault("", settings.secrets_key_path).drop_old_keys()
    await scene.call_address(call_tool, "c-1-0")
    [(status, result)] = await scene.results()
    assert (status, receiver.requests) == ("failed", [])
    assert "The secret KEY was encrypted with the key" in result


async def test_an_agent_whose_secret_is_missing_is_refused_by_its_name(scene, receiver):
    config = read_config({"core_app_ref": MODEL, "tools": [tool(receiver)]})
    with pytest.raises(
        InvalidRequest, match=r"search: it refers to the secret KEY, which is missing\. Add it"
    ):
        await prepare(config, scene.desk, "ann")
    await scene.set_secret("KEY", KEY)
    assert (await prepare(config, scene.desk, "ann")).tools[0].secrets == {"KEY"}


async def test_another_users_agent_gets_no_secrets_unless_the_operator_says_so(scene, receiver, tmp_path):
    await scene.set_secret("KEY", KEY)
    config = read_config({"core_app_ref": MODEL, "tools": [tool(receiver)]})
    bobs = Agent(id="g", namespace="bob", name="spy", owner_id="bob", visibility="public")
    with pytest.raises(InvalidRequest, match="bob/spy belongs to another user, whose agents are not given"):
        await prepare(config, scene.desk, "ann", bobs)
    trusting = AgentScene(scene.store, tmp_path, verified_owners=("bob",))
    assert await prepare(config, trusting.desk, "ann", bobs)
