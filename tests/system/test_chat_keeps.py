"""What a chat keeps while it lives: the files that it names, and the agents that work for it."""

import asyncio
import time

import pytest
from agent_scene import ANN, MODEL
from helpers import PATIENCE_S, eventually

from stoker.agents import ending
from stoker.agents.beginning import begin_all, change_chat, commit, with_ids
from stoker.agents.chat import CHAT_PREFIX, KIND, CallStatus
from stoker.agents.chats import load_chat, save_chat
from stoker.agents.ending import DELETED, forget
from stoker.agents.records import AGENT_KIND, Agent, agent_id, version_of, write_agent
from stoker.agents.step import Said, steps_now
from stoker.core.errors import NotFound
from stoker.core.messages import StoredFile
from stoker.core.states import TaskState
from stoker.llm.contract import LlmOutput
from stoker.protocol.files import USE_GRACE_MS
from stoker_jobs.agent_steps import step_chat

HELPER = {"name": "helper", "type": "agent", "agent": {"ref": "team/helper"}}
FILE = "a" * 26


async def test_the_output_of_a_task_that_a_chat_names_is_kept_with_it(scene):
    store = scene.store
    made = StoredFile(
        id=FILE, secret="s", owner_id=ANN.user_id, filename="f.png", content_type="image/png", size=1,
        created_ms=1, role="output", task_id="gone", attempt=1, uploaded=True,
    )  # fmt: skip
    await store.files.put(made)
    later_ms = int(time.time() * 1000) + 2 * USE_GRACE_MS
    assert not await store.files.is_used(FILE, later_ms)
    await scene.called("none")
    said = Said(text="Look", images=(f"http://gateway/files/{FILE}/secret/f.png",))
    await change_chat(scene.desk, "c", lambda steps, chat: steps.say(chat, said))
    assert await store.files.is_used(FILE, later_ms)


async def helper_at_work(scene):
    """A chat that waits for a stored agent; the agent's id, and that of its chat."""
    version = version_of({"core_app_ref": MODEL, "system_prompt": "Help."}, 1)
    helper = Agent(
        id=agent_id("team", "helper"), namespace="team", name="helper", owner_id=ANN.user_id, versions=(version,)
    )  # fmt: skip
    await write_agent(scene.store, helper)
    await scene.called("helper", '{"message": "please"}', tools=[HELPER])
    before = await load_chat(scene.store, "c")
    await commit(scene.desk, steps_now(scene.settings), before, before.chat)
    [call] = (await scene.chat()).open_calls
    child_id = call.execution_id.removeprefix(CHAT_PREFIX)
    assert (await scene.chat(child_id)).busy
    return helper.id, child_id


async def test_an_agent_that_works_for_a_chat_goes_on_when_it_is_deleted(scene):
    helper_id, _ = await helper_at_work(scene)
    await scene.store.documents.delete(AGENT_KIND, helper_id, ANN.user_id)
    kept = await load_chat(scene.store, "c")
    assert await begin_all(scene.desk, steps_now(scene.settings), kept, kept.chat)
    [call] = (await scene.chat()).open_calls
    assert call.status is CallStatus.IN_PROGRESS


async def test_the_chat_of_an_agent_that_is_deleted_ends_the_call_that_waits_for_it(scene):
    _, child_id = await helper_at_work(scene)
    task_id = (await scene.chat(child_id)).turn.task_id
    read_before = await load_chat(scene.store, "c")
    await forget(scene.desk, child_id, ANN.user_id)
    assert await scene.results() == [("failed", DELETED)]
    assert (await scene.store.tasks.read(task_id)).state is TaskState.CANCELLED
    answer = await scene.store.tasks.read((await scene.chat()).turn.task_id)
    assert answer.request.input["text"] == DELETED

    await step_chat(scene.desk, "c")
    await begin_all(scene.desk, steps_now(scene.settings), read_before, read_before.chat)  # a step on its way
    with pytest.raises(NotFound):
        await scene.chat(child_id)


async def test_what_an_agent_had_answered_is_told_also_when_its_chat_is_deleted_at_once(scene):
    _, child_id = await helper_at_work(scene)
    said = LlmOutput(response="It is 4.")
    await change_chat(scene.desk, child_id, lambda steps, chat: steps.answered(chat, chat.turn.id, said))
    await forget(scene.desk, child_id, ANN.user_id)  # before a step has told the chat that waits
    assert await scene.results() == [("completed", "It is 4.")]


async def test_what_begins_for_a_chat_while_it_is_deleted_is_ended(scene, monkeypatch):
    monkeypatch.setattr(ending, "UNBORN_PAUSES_S", (0.05,) * 1000)
    await scene.called("none")
    steps = steps_now(scene.settings)
    before = await load_chat(scene.store, "c")
    chat = with_ids(scene.desk, steps, before.chat)
    written = await save_chat(scene.store, before, chat, scene.settings, steps.now_ms, wake=False)
    deleting = asyncio.create_task(forget(scene.desk, "c", ANN.user_id))

    async def gone():
        return not await scene.store.documents.count(KIND, ANN.user_id)

    await eventually(gone, "the chat's deletion")
    await begin_all(scene.desk, steps, written, before.chat)  # of the step that was on its way
    async with asyncio.timeout(PATIENCE_S):
        await deleting
    assert (await scene.store.tasks.read(chat.turn.task_id)).state is TaskState.CANCELLED


async def test_a_chat_is_deleted_by_its_owner_alone(scene):
    await scene.called("none")
    with pytest.raises(NotFound):
        await forget(scene.desk, "c", "eve")
    assert (await scene.chat()).busy


async def test_of_many_that_change_a_chat_at_once_each_has_its_turn(scene):
    """What a tool gave would be asked for again where it could not be told."""
    await scene.called("none")
    await asyncio.gather(
        *(
            change_chat(
                scene.desk, "c", lambda steps, chat, number=number: steps.say(chat, Said(text=f"{number}"))
            )
            for number in range(40)
        )
    )
    said = {message.text for message in (await scene.chat()).messages if message.role == "user"}
    assert said >= {str(number) for number in range(40)}
