"""Whom `stoker chat` asks: a gateway on a real server, whose models' answers are put into the chats."""

import asyncio
import contextlib

import msgspec
import pytest
from agent_scene import MODEL, AgentScene
from gateways import gateway_settings, running
from helpers import PATIENCE_S, eventually

from stoker.agents.beginning import change_chat
from stoker.agents.chat import CHAT_PREFIX, MessageStatus
from stoker.llm.contract import LlmOutput, ToolCall
from stoker_cli import chat
from stoker_cli.api import Api
from stoker_cli.chat import Talk
from stoker_cli.output import ExitCode
from stoker_jobs.agent_steps import step_chat

HELPER = {"name": "helper", "type": "agent", "agent": {"ref": "team/helper"}}
ASKS_FIRST = {"name": "rm", "type": "client", "client": {}, "require_approval": True}


class Play:
    """A gateway, and whoever answers for the models."""

    def __init__(self, gateway, scene):
        self.api = Api(gateway.url, gateway.settings.key_file.read_text().strip())
        self.scene = scene

    async def answer(self, chat_id, text="", **calls):
        """The model of a chat answers, with calls of tools and their arguments; the chat then."""
        output = LlmOutput(
            response=text,
            tool_calls=tuple(ToolCall(id=name, name=name, arguments=given) for name, given in calls.items()),
        )
        return await change_chat(
            self.scene.desk, chat_id, lambda steps, now: steps.answered(now, now.turn.id, output)
        )

    async def helper_asks(self, chat_id):
        """The chat asks the helper, and the helper's model calls a tool that needs approval; the helper's chat."""
        asked = await self.answer(chat_id, helper='{"message": "please"}')
        child_id = asked.open_calls[0].execution_id.removeprefix(CHAT_PREFIX)
        await self.answer(child_id, rm='{"path": "/tmp"}')
        return child_id

    async def model_is_asked(self, chat_id):
        return (await self.scene.chat(chat_id)).turn.status is MessageStatus.PENDING

    async def newest(self):
        items = (await self.api.get("/chats"))["items"]
        return items[0]["id"] if items else ""


@pytest.fixture
async def play(tmp_path, s3_server, store):
    scene = AgentScene(store, tmp_path / "jobs")
    await scene.deploy_model()
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        made = Play(gateway, scene)
        version = {"core_app_ref": MODEL, "tools": [ASKS_FIRST]}
        await made.api.post("/agents", {"namespace": "team", "name": "helper", "version": version})
        yield made
        await made.api.close()


async def test_a_person_decides_on_a_call_of_an_agent_that_works_for_the_chat(play, capsys):
    talk = Talk(play.api, {"agent_config": {"core_app_ref": MODEL, "tools": [HELPER]}}, quiet=False)
    asked = []

    async def ask(question):
        asked.append(question)
        return "y" if question.startswith("Allow") else "gone"

    talk.lines.ask = ask
    talking = asyncio.create_task(talk.say("Go"))
    await eventually(lambda: talk.chat_id or talking.done(), "the chat")
    child_id = await play.helper_asks(talk.chat_id)
    await eventually(lambda: play.model_is_asked(child_id), "both answers of the person")
    await play.answer(child_id, "It is gone.")
    await step_chat(play.scene.desk, child_id)
    await step_chat(play.scene.desk, talk.chat_id)
    await play.answer(talk.chat_id, "Done.")
    async with asyncio.timeout(PATIENCE_S):
        await talking
    assert asked == ["Allow rm for helper? [y/N] ", "Result of rm for helper: "]
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:4] == ["rm for helper {'path': '/tmp'}"] * 2
    assert shown[4:] == ["helper completed It is gone.", "Done."]


async def test_a_program_is_told_what_an_agent_waits_for_and_may_decide(play, capsys, monkeypatch):
    monkeypatch.setattr(chat, "connected", lambda: contextlib.nullcontext(play.api))
    body = {"agent_config": {"core_app_ref": MODEL, "tools": [HELPER]}}
    talking = asyncio.create_task(chat._chat(body, "Go", json=True))
    root = await eventually(play.newest, "the chat")
    child_id = await play.helper_asks(root)
    async with asyncio.timeout(PATIENCE_S):
        assert await talking is ExitCode.FAILED
    [call] = msgspec.json.decode(capsys.readouterr().out)["open_calls"]
    assert (call["function"]["name"], call["chat_message_id"].partition("-")[0]) == ("rm", child_id)
    await play.api.post(f"/tools/{call['id']}/reject", {})
    assert await play.model_is_asked(child_id)
