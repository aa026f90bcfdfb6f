"""The loops that feed the streams."""

import asyncio
import contextlib

import pytest
from recorders import until

from stoker.settings import GatewaySettings
from stoker_gateway import streams
from stoker_gateway.streams import Hub


class Channel:
    """A store whose channel fails at the first subscription in a way that nobody expects."""

    def __init__(self):
        self.subscribed = 0

    @contextlib.asynccontextmanager
    async def announcements(self):
        self.subscribed += 1
        if self.subscribed == 1:
            raise ValueError("nonsense")
        yield self

    async def next(self, _timeout_s):
        await asyncio.Event().wait()


@pytest.fixture
async def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "RETRY_S", 0)
    hub = Hub(Channel(), GatewaySettings(data_dir=tmp_path))
    running = asyncio.ensure_future(hub.run())
    yield hub
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_loops_that_end_by_an_error_begin_anew(hub):
    await until(lambda: hub._store.subscribed == 2)
    assert hub.restarts == 1


async def test_who_follows_a_document_looks_again_when_the_loops_have_begun_anew(hub):
    changes = hub.document_changes("flowrun", "r1", 3600)  # beyond a test's time: only the loops wake it
    await anext(changes)
    await anext(changes)
    await changes.aclose()


@pytest.mark.parametrize("steps", range(8))
async def test_an_error_at_the_same_time_hides_no_cancellation(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(streams, "RETRY_S", 0)
    running = asyncio.ensure_future(Hub(Channel(), GatewaySettings(data_dir=tmp_path)).run())
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running], timeout=10)
    assert running.cancelled()
