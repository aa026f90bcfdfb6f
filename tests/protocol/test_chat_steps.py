"""Steps of chats, on Redis."""

from protocol_scene import OWNER, request, spec

from stoker.agents.chat import Chat
from stoker.agents.chats import load_chat, save_chat
from stoker.agents.config import read_config
from stoker.agents.step import Said, Steps
from stoker.core.states import TaskState
from stoker.settings import JobsSettings
from stoker_jobs import agent_steps
from stoker_jobs.desk import Desk


async def test_a_task_that_is_submitted_after_its_run_was_stopped_is_cancelled(store, tmp_path, monkeypatch):
    """Who stops a run may be quicker than who began it, and submits its task after the chat was written."""
    settings = JobsSettings(data_dir=tmp_path)
    desk = Desk(store=store, settings=settings, submitter=None, registry=None)
    steps = Steps(now_ms=await store.now_ms())
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b"}))
    chat = steps.stop(steps.asked(steps.say(chat, Said(text="hi")), "c-1", "t1"))
    await save_chat(store, None, chat, settings, steps.now_ms, wake=False)
    await agent_steps.step_chat(desk, "c")
    await store.tasks.submit(request("t1"), spec("t1"), OWNER)
    later = Steps(now_ms=steps.now_ms + 60_000)
    monkeypatch.setattr(agent_steps, "steps_now", lambda _settings: later)
    await agent_steps.step_chat(desk, "c")
    assert (await store.tasks.read("t1")).state is TaskState.CANCELLED
    assert (await load_chat(store, "c")).chat.to_cancel == ()
