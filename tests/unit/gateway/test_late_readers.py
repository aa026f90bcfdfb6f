"""Who begins to follow a task that others follow already hears of a change that only they were told."""

import asyncio

import pytest
from msgspec import structs
from virtual_time import in_virtual_time

from stoker.core.messages import TaskRequest, TaskView
from stoker.core.states import TaskState
from stoker.settings import GatewaySettings
from stoker_gateway.dialect import Dialect
from stoker_gateway.dto import stream_lines
from stoker_gateway.streams import Hub, framed

NDJSON = Dialect(ndjson=True)
READ = TaskView(
    request=TaskRequest(
        id="t", app_id="a", app="infsh/echo", version_id="v", function="run", input={}, setup={},
        setup_key="s", env_key="e",
    ),
    state=TaskState.SCHEDULED, attempt=1, created_ms=1, updated_ms=1, cursor="1-0",
)  # fmt: skip
RUNNING = structs.replace(READ, state=TaskState.RUNNING, cursor="2-0")
ENDED = structs.replace(READ, state=TaskState.COMPLETED, cursor="3-0")


@pytest.fixture
def hub(tmp_path):
    return Hub(None, GatewaySettings(data_dir=tmp_path))


def follow(hub):
    """The stream of somebody who read the task before any announcement."""
    return hub.events(READ, 0, NDJSON, "u")


def event(view):
    [line] = framed(stream_lines(view, NDJSON, "u"), view, NDJSON)
    return line


@in_virtual_time
async def test_an_ending_that_came_before_the_reader_is_told_at_once(hub):
    with hub._watching("t") as (watch, _):
        watch.update(ENDED)
        hub.heard.add("t")
        stream = follow(hub)
        assert [await anext(stream), await anext(stream)] == [event(READ), event(ENDED)]
        await stream.aclose()


@in_virtual_time
async def test_a_change_that_came_before_the_reader_is_told_by_the_next_read(hub):
    with hub._watching("t") as (watch, other):
        watch.update(RUNNING)
        hub.heard.add("t")
        other.clear()
        stream = follow(hub)
        assert await anext(stream) == event(READ)
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert hub._dirty == {"t"}
        watch.update(RUNNING)
        assert await following == event(RUNNING)
        assert not other.is_set()  # who has it already is left alone
        await stream.aclose()
    assert not hub._watches
