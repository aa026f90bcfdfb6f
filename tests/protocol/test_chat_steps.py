"""Steps of chats, on Redis."""

import msgspec
import pytest
from batches import Batches
from protocol_scene import OWNER, Scene, request, spec

from stoker.agents import beginning
from stoker.agents.chat import KIND, Chat, MessageStatus
from stoker.agents.chats import load_chat, save_chat
from stoker.agents.config import read_config
from stoker.agents.orders import LOOK_AGAIN_S, must_tell_parent
from stoker.agents.step import Said, Steps
from stoker.core.errors import DocumentChanged, NotFound, StoreUnavailable
from stoker.core.messages import Outcome
from stoker.core.states import TaskState
from stoker.core.waiting import LOOK_UNBORN_S
from stoker.llm.contract import LlmOutput
from stoker.llm.contract import ToolCall as Asked
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


@pytest.fixture
def scene(store, tmp_path):
    settings = JobsSettings(data_dir=tmp_path)
    return Desk(store=store, settings=settings, submitter=None, registry=None)


async def begun(desk, chat_id="c", **fields):
    """A chat that waits for its first answer, whose task has no id yet; and one that is over when it has a parent."""
    steps = Steps(now_ms=await desk.store.now_ms())
    chat = Chat(id=chat_id, owner=OWNER, config=read_config({"core_app_ref": "a/b"}), **fields)
    chat = steps.say(chat, Said(text="hi"))
    chat = steps.stop(chat) if chat.parent_id else chat
    await save_chat(desk.store, None, chat, desk.settings, steps.now_ms, wake=False)


@pytest.fixture
def forestalled(monkeypatch):
    """Somebody who writes a chat each time between its being read and being written."""
    monkeypatch.setattr(beginning, "PAUSE_S", 0)
    pauses, own = [], agent_steps.pause_after

    async def noted(number):
        pauses.append(number)
        await own(number)

    monkeypatch.setattr(agent_steps, "pause_after", noted)

    def always(desk, chat_id):
        async def read_then_written(store, wanted):
            read = await load_chat(store, wanted)
            if wanted == chat_id:
                await save_chat(store, read, read.chat, desk.settings, 0, wake=False)
            return read

        monkeypatch.setattr(agent_steps, "load_chat", read_then_written)
        return pauses

    return always


async def test_a_step_that_others_forestall_each_time_has_failed_and_is_tried_again(scene, forestalled):
    await begun(scene)
    pauses = forestalled(scene, "c")
    with pytest.raises(DocumentChanged):
        await agent_steps.step_chat(scene, "c")
    assert pauses == list(range(beginning.TRIES))


async def test_a_chat_whose_parent_could_not_be_told_is_not_taken_for_told(scene, forestalled):
    await begun(scene, "p")
    await begun(scene, "c", parent_id="p", parent_call="call")
    pauses = forestalled(scene, "p")
    with pytest.raises(DocumentChanged):
        await agent_steps.step_chat(scene, "c")
    assert pauses == list(range(beginning.TRIES))
    assert must_tell_parent((await load_chat(scene.store, "c")).chat)


async def ended_task(store, output, **changes):
    """t1, whose attempt gave this."""
    scene = Scene(store)
    await scene.set_up()
    order = await scene.running()
    outcome = {"state": TaskState.COMPLETED, "output": msgspec.Raw(output)} | changes
    await store.engines.finish(order, "box", Outcome(**outcome))


async def test_a_step_reads_the_chat_and_what_has_ended_and_writes_it(scene, monkeypatch):
    """Each round trip is one that every chat waits for."""
    await ended_task(scene.store, b'{"response": "Hello."}')
    steps = Steps(now_ms=await scene.store.now_ms())
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b"}))
    chat = steps.asked(steps.say(chat, Said(text="hi")), "c-1", "t1")
    await save_chat(scene.store, None, chat, scene.settings, steps.now_ms, wake=False)
    batches = Batches(scene.store, monkeypatch)
    await agent_steps.step_chat(scene, "c")
    assert batches.names == [["HGETALL", "HGETALL"], ["HMGET"], ["EVALSHA"]]
    [_, answer] = (await load_chat(scene.store, "c")).chat.messages
    assert (answer.status, answer.text) == (MessageStatus.READY, "Hello.")


async def test_a_step_asks_no_second_time_for_calls_that_still_run(scene, monkeypatch):
    await ended_task(scene.store, b'{"ok": 1}')
    for name in ("t2", "t3"):
        await scene.store.tasks.submit(request(name), spec(name), OWNER)
    steps = Steps(now_ms=await scene.store.now_ms())
    tools = [{"name": "work", "type": "app", "app": {"ref": "a/b"}}]
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b", "tools": tools}))
    chat = steps.say(chat, Said(text="hi"))
    asked = tuple(Asked(id=f"m{number}", name="work", arguments="{}") for number in range(3))
    chat = steps.answered(chat, chat.turn.id, LlmOutput(tool_calls=asked))
    for call, name in zip(chat.turn.calls, ("t1", "t2", "t3"), strict=True):
        chat = steps.asked(chat, call.id, name)
    await save_chat(scene.store, None, chat, scene.settings, steps.now_ms, wake=False)
    batches = Batches(scene.store, monkeypatch)
    await agent_steps.step_chat(scene, "c")
    assert batches.names == [["HGETALL", "HGETALL"], ["HMGET", "HMGET", "HMGET"], ["EVALSHA"]]


async def test_how_far_tasks_have_come_is_read_without_what_they_were_asked(store, monkeypatch):
    await ended_task(store, b'{"ok": 1}')
    await store.tasks.submit(request("t2"), spec("t2"), OWNER)
    batches = Batches(store, monkeypatch)
    found = await store.tasks.standings(["t1", "t2", "none"])
    assert batches.names == [["HMGET", "HMGET", "HMGET"]]
    assert not any("request" in command for command in batches[0])
    assert {name: (one.state, one.output) for name, one in found.items()} == {
        "t1": (TaskState.COMPLETED, b'{"ok": 1}'),
        "t2": (TaskState.QUEUED, b"null"),
    }
    assert [await store.tasks.known(name) for name in ("t1", "none")] == [True, False]


async def test_how_far_a_task_of_a_session_has_come_names_the_session(store):
    await store.tasks.submit(request("t1"), spec("t1"), OWNER)
    key = store._keys.task("t1")
    asked = msgspec.json.encode(request("t1", session_id="s1"))
    await store._connection.command("HSET", key, "request", asked)
    assert (await store.tasks.standings(["t1"], with_sessions=True))["t1"].session_id == "s1"
    await store._connection.command("HSET", key, "request", "{")
    assert await store.tasks.standings(["t1"], with_sessions=True) == {}
    await store._connection.command("HSET", key, "state", "x")
    assert await store.tasks.standings(["t1"]) == {}


async def stopped_before_its_task(desk):
    """A chat whose run was stopped when whoever began it had not submitted its task yet."""
    steps = Steps(now_ms=await desk.store.now_ms())
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b"}))
    chat = steps.stop(steps.asked(steps.say(chat, Said(text="hi")), "c-1", "t1"))
    await save_chat(desk.store, None, chat, desk.settings, steps.now_ms, wake=False)


async def due_in_s(store):
    [(_, at_ms)] = await store._connection.command("ZRANGE", store._keys.due_documents, 0, -1, "WITHSCORES")
    return (float(at_ms) - await store.now_ms()) / 1000


async def test_a_task_that_was_not_there_to_be_cancelled_is_soon_looked_for_again(scene):
    await stopped_before_its_task(scene)
    assert await due_in_s(scene.store) <= LOOK_UNBORN_S
    await scene.store._connection.command(
        "ZADD", scene.store._keys.due_documents, await scene.store.now_ms() + 60_000, f"{KIND} c"
    )
    await agent_steps.step_chat(scene, "c")
    assert await due_in_s(scene.store) <= LOOK_UNBORN_S
    assert (await load_chat(scene.store, "c")).chat.to_cancel == ("t1",)


async def test_what_is_refused_when_another_had_begun_it_before_goes_on(scene, monkeypatch):
    """Two steps submit the same task; between them its app is deleted."""
    steps = Steps(now_ms=await scene.store.now_ms())
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b"}))
    chat = steps.asked(steps.say(chat, Said(text="hi")), "c-1", "t1")
    kept = await save_chat(scene.store, None, chat, scene.settings, steps.now_ms, wake=False)

    async def refused(*_args):
        raise NotFound("There is no app a/b.")

    monkeypatch.setattr(beginning, "_begin", refused)
    assert not await beginning.begin_all(scene, steps, kept, None)
    assert (await load_chat(scene.store, "c")).chat.run.over
    again = await save_chat(
        scene.store, await load_chat(scene.store, "c"), chat, scene.settings, steps.now_ms, wake=False
    )
    await scene.store.tasks.submit(request("t1"), spec("t1"), OWNER)
    assert await beginning.begin_all(scene, steps, again, None)
    assert (await load_chat(scene.store, "c")).chat.busy


async def test_a_change_that_was_written_has_succeeded_also_when_nothing_can_be_begun_then(
    scene, monkeypatch
):
    """Its caller would make it twice; the jobs begin what it needs."""

    async def no_answer(*_args):
        raise StoreUnavailable

    monkeypatch.setattr(beginning, "begin_all", no_answer)
    steps = Steps(now_ms=await scene.store.now_ms())
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b"}))
    chat = await beginning.commit(scene, steps, None, steps.say(chat, Said(text="hi")))
    assert chat.turn.task_id
    assert (await load_chat(scene.store, "c")).chat.turn == chat.turn
    assert await due_in_s(scene.store) < LOOK_AGAIN_S
