"""What a chat keeps while it lives: the files that it names, and the agents that work for it."""

import asyncio
import time

from agent_scene import ANN, MODEL

from stoker.agents.beginning import begin_all, change_chat, commit
from stoker.agents.chat import CHAT_PREFIX, CallStatus
from stoker.agents.chats import load_chat
from stoker.agents.records import AGENT_KIND, Agent, agent_id, version_of, write_agent
from stoker.agents.step import Said, steps_now
from stoker.core.messages import StoredFile
from stoker.protocol.files import USE_GRACE_MS

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


async def test_an_agent_that_works_for_a_chat_goes_on_when_it_is_deleted(scene):
    store = scene.store
    version = version_of({"core_app_ref": MODEL, "system_prompt": "Help."}, 1)
    helper = Agent(
        id=agent_id("team", "helper"), namespace="team", name="helper", owner_id=ANN.user_id, versions=(version,)
    )  # fmt: skip
    await write_agent(store, helper)
    await scene.called("helper", '{"message": "please"}', tools=[HELPER])
    steps = steps_now(scene.settings)
    before = await load_chat(store, "c")
    await commit(scene.desk, steps, before, before.chat)
    [call] = (await scene.chat()).open_calls
    assert (await scene.chat(call.execution_id.removeprefix(CHAT_PREFIX))).busy

    await store.documents.delete(AGENT_KIND, helper.id, ANN.user_id)
    kept = await load_chat(store, "c")
    assert await begin_all(scene.desk, steps, kept, kept.chat)
    [call] = (await scene.chat()).open_calls
    assert call.status is CallStatus.IN_PROGRESS


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
