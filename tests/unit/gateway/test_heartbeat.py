"""Streams that have nothing to say show that they live."""

import asyncio
import contextlib

import pytest

from stoker.settings import GatewaySettings
from stoker_gateway import streams
from stoker_gateway.dialect import Dialect
from stoker_gateway.document_streams import follow
from stoker_gateway.heartbeat import Heartbeat
from stoker_gateway.streams import HEARTBEAT_LINE, Hub


def test_it_is_due_when_nothing_was_sent_for_so_long_and_then_not_again():
    now = [0.0]
    heartbeat = Heartbeat(10, clock=lambda: now[0])
    seen = []
    for now[0] in (5, 10, 15, 20, 29, 30):
        seen.append(heartbeat.due())
        if now[0] == 20:
            heartbeat.sent()
    assert seen == [False, True, False, True, False, True]


async def test_a_document_that_is_looked_at_more_often_than_it_changes_has_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "POLL_S", 0.0)
    settings = GatewaySettings.model_construct(data_dir=tmp_path, heartbeat_s=0.05, resend_s=1)
    hub = Hub(None, settings)

    async def read():
        return 1, {"id": "r1"}, False

    polling = asyncio.create_task(hub._poll_loop())
    chunks = follow(hub, settings, "flowrun", "r1", Dialect(ndjson=True), read)
    async with asyncio.timeout(60), contextlib.aclosing(chunks):
        assert b'"r1"' in await anext(chunks)
        assert [await anext(chunks), await anext(chunks)] == [HEARTBEAT_LINE, HEARTBEAT_LINE]
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
