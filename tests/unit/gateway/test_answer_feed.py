"""A streamed completion of the OpenAI door: what its reader is told of a task's increments, and how it ends."""

import asyncio
import json
from types import SimpleNamespace

import msgspec
import pytest
from virtual_time import in_virtual_time, pass_time

from stoker.core.errors import ModelFailed, NotFound, StoreUnavailable
from stoker.core.messages import DeltaBatch
from stoker.core.states import TaskState
from stoker.protocol.task_hash import Standing
from stoker.settings import GatewaySettings
from stoker_gateway.openai_answer import Completion
from stoker_gateway.routes.openai import Completing, streamed, whole
from stoker_gateway.streams import RETRY_S, Hub

pytestmark = pytest.mark.unit

RUNNING, COMPLETED = TaskState.RUNNING, TaskState.COMPLETED
A_MOMENT_S = 0.01
"""Of virtual time: readers have read all that there is."""


class Tasks:
    """The increments of one task, and who cancelled it."""

    def __init__(self):
        self.batches = []
        self.cancelled = []
        self.away = False

    async def deltas(self, _task_id, after, _count):
        if self.away:
            raise StoreUnavailable
        return [batch for batch in self.batches if int(batch.id) > int(after)]

    async def cancel(self, task_id, *, grace_ms):
        self.cancelled.append((task_id, grace_ms))


class Streaming:
    """A completion that is streamed, and its task."""

    def __init__(self, tmp_path):
        self.tasks = Tasks()
        store = SimpleNamespace(tasks=self.tasks)
        settings = GatewaySettings(data_dir=tmp_path)
        self.hub = Hub(store, settings)
        self.running = Completing(
            services=SimpleNamespace(store=store, hub=self.hub, settings=settings),
            task=SimpleNamespace(request=SimpleNamespace(id="t")),
            said=Completion("t", "a/b", 5),
            model="a/b",
            wants_usage=False,
        )
        self.events = []
        self.last = 0
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self):
        async for chunk in streamed(self.running):
            self.events += [line for line in chunk.decode().splitlines() if line.startswith("data: ")]

    def store(self, *deltas, attempt=1):
        """An attempt has written increments, and nobody was told yet."""
        raws = tuple(msgspec.Raw(json.dumps(delta).encode()) for delta in deltas)
        number = len(self.tasks.batches) + 1
        self.tasks.batches.append(
            DeltaBatch(id=str(number), attempt=attempt, first=self.last + 1, deltas=raws)
        )
        self.last += len(deltas)

    async def show(self, output, attempt=1, state=RUNNING, last=None):
        """The task is as told now, and readers have read it."""
        await pass_time(A_MOMENT_S)
        standing = Standing(
            state=state,
            attempt=attempt,
            output=json.dumps(output).encode(),
            error="",
            error_code="",
            delta_last=self.last if last is None else last,
        )
        self.hub._answers["t"].update(standing)
        await pass_time(A_MOMENT_S)

    async def end(self, output, **more):
        """The task has completed."""
        await self.show(output, state=COMPLETED, **more)
        await self.reading

    def chunks(self):
        *events, done = [event.removeprefix("data: ") for event in self.events]
        assert done == "[DONE]"
        return [json.loads(event) for event in events]

    def text(self):
        deltas = [chunk["choices"][0]["delta"] for chunk in self.chunks() if "choices" in chunk]
        return "".join(delta.get("content", "") for delta in deltas)

    def arguments(self):
        """Of the only call, as a client adds them up."""
        deltas = [chunk["choices"][0]["delta"] for chunk in self.chunks()]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        return "".join(call["function"]["arguments"] for call in calls)

    def ending(self):
        """Why it ended: the reason, or the message of an error."""
        last = self.chunks()[-1]
        return last["error"]["message"] if "error" in last else last["choices"][0]["finish_reason"]


def call(arguments, name="add"):
    return {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("streamed_as", "output", "reason"),
    [
        ({"response": "Hello.\n"}, {"response": "Hello."}, "stop"),
        ({"response": " Hello."}, {"response": "Hello."}, "stop"),
        ({"response": "<think>why</think>Hello."}, {"response": "Hello.", "reasoning": "why"}, "stop"),
        ({"reasoning": "why", "response": "Hello."}, {"response": "Hello."}, "stop"),
        ({"tool_calls": [call('{"a": 1}')]}, {"tool_calls": [call({"a": 1})]}, "tool_calls"),
    ],
    ids=["stripped", "space", "thoughts apart", "thoughts dropped", "arguments as an object"],
)
@in_virtual_time
async def test_an_app_may_end_with_another_spelling_of_what_it_streamed(
    tmp_path, streamed_as, output, reason
):
    streaming = Streaming(tmp_path)
    streaming.store(streamed_as)
    await streaming.show(streamed_as)
    await streaming.end(output)
    assert streaming.ending() == reason
    assert streaming.text() == streamed_as.get("response", "")


@in_virtual_time
async def test_the_last_increments_are_told_though_the_output_is_spelled_anew(tmp_path):
    streaming = Streaming(tmp_path)
    streaming.store({"response": " Hel"})
    await streaming.show({"response": " Hel"})
    streaming.store({"response": "lo."})
    await streaming.end({"response": "Hello."})
    assert (streaming.text(), streaming.ending()) == (" Hello.", "stop")


@pytest.mark.parametrize(
    ("told", "output"),
    [
        ({"response": "Hello"}, {"response": "Goodbye"}),
        ({"response": "Hello"}, {"response": ""}),
        ({"tool_calls": [call('{"a": 1}')]}, {"tool_calls": [call({"a": True})]}),
        ({"tool_calls": [call('{"a"')]}, {"tool_calls": [call({"a": 1})]}),
        ({"tool_calls": [call('{"a": 1}')]}, {"tool_calls": [call('{"a": 1}', name="subtract")]}),
        ({"tool_calls": [call('{"a": 1}')]}, {"response": "Hello"}),
    ],
    ids=["text", "no text", "arguments", "part of arguments", "tool", "no call"],
)
@in_virtual_time
async def test_another_attempt_that_answers_otherwise_is_an_error(tmp_path, told, output):
    streaming = Streaming(tmp_path)
    streaming.store(told)
    await streaming.show(told)
    await streaming.show(None, attempt=2, state=TaskState.QUEUED, last=0)
    await streaming.show({"reasoning": "new"}, attempt=2, last=1)
    await streaming.end(output, attempt=2)
    assert "another attempt answered otherwise" in streaming.ending()


@pytest.mark.parametrize("arguments", ["{}", '{"a":1}'])
@pytest.mark.parametrize("begun", ["", {}], ids=["text", "object"])
@in_virtual_time
async def test_arguments_that_are_not_written_yet_are_not_told_as_none(tmp_path, begun, arguments):
    streaming = Streaming(tmp_path)
    await streaming.show({"tool_calls": [call(begun)]})
    await streaming.end({"tool_calls": [call(arguments)]})
    assert (streaming.arguments(), streaming.ending()) == (arguments, "tool_calls")


@in_virtual_time
async def test_a_call_that_was_streamed_without_arguments_has_none_at_the_end(tmp_path):
    streaming = Streaming(tmp_path)
    streaming.store({"tool_calls": [call("")]})
    await streaming.show({"tool_calls": [call("")]})
    await streaming.end({"tool_calls": [call("{}")]})
    assert (streaming.arguments(), streaming.ending()) == ("{}", "tool_calls")


@in_virtual_time
async def test_another_attempt_may_go_on_with_the_same_words_and_end_with_another_spelling(tmp_path):
    streaming = Streaming(tmp_path)
    streaming.store({"response": "Hel"})
    await streaming.show({"response": "Hel"})
    await streaming.show({"response": "He"}, attempt=2, last=1)
    await streaming.show({"response": "Hello.\n"}, attempt=2, last=2)
    await streaming.end({"response": "Hello."}, attempt=2)
    assert (streaming.text(), streaming.ending()) == ("Hello.\n", "stop")


@in_virtual_time
async def test_increments_that_could_not_be_read_are_told_though_the_task_does_not_change_again(tmp_path):
    streaming = Streaming(tmp_path)
    streaming.store({"response": "Hel"})
    streaming.tasks.away = True
    await streaming.show({"response": "Hel"})
    streaming.tasks.away = False
    await pass_time(RETRY_S)
    assert '"content":"Hel"' in streaming.events[-1]
    await streaming.end({"response": "Hello."})
    assert (streaming.text(), streaming.ending()) == ("Hello.", "stop")
    assert not streaming.tasks.cancelled


@in_virtual_time
async def test_an_end_is_told_when_the_last_increments_can_be_read(tmp_path):
    streaming = Streaming(tmp_path)
    streaming.store({"response": " Hel"})
    await streaming.show({"response": " Hel"})
    streaming.store({"response": "lo."})
    streaming.tasks.away = True
    await streaming.show({"response": "Hello."}, state=COMPLETED)
    assert not streaming.reading.done()
    streaming.tasks.away = False
    await streaming.reading
    assert (streaming.text(), streaming.ending()) == (" Hello.", "stop")


class Request:
    """Its client waits."""

    async def receive(self):
        await asyncio.Event().wait()


class Failing:
    """A feed that fails."""

    def __init__(self, error):
        self._error = error

    async def parts(self):
        raise self._error
        yield


@pytest.mark.parametrize("error", [StoreUnavailable(), NotFound()], ids=["Redis away", "deleted"])
async def test_a_task_that_is_not_followed_to_its_end_is_cancelled(tmp_path, monkeypatch, error):
    streaming = Streaming(tmp_path)
    streaming.reading.cancel()
    monkeypatch.setattr(Completing, "feed", lambda _running: Failing(error))
    with pytest.raises(type(error)):
        await whole(Request(), streaming.running)
    await asyncio.sleep(0)
    assert [task_id for task_id, _ in streaming.tasks.cancelled] == ["t"]


async def test_a_task_that_failed_is_not_cancelled(tmp_path, monkeypatch):
    streaming = Streaming(tmp_path)
    streaming.reading.cancel()
    end = Standing(state=TaskState.FAILED, attempt=1, output=b"null", error="no", error_code="x")

    async def ended(_running):
        return end

    monkeypatch.setattr("stoker_gateway.routes.openai._ended", ended)
    with pytest.raises(ModelFailed, match="no"):
        await whole(Request(), streaming.running)
    await asyncio.sleep(0)
    assert not streaming.tasks.cancelled
