"""Who follows a document hears of its changes."""

import asyncio

import pytest

from stoker.settings import GatewaySettings
from stoker_gateway.streams import Hub, StreamCut

NEVER_S = 3600
"""How long a stream is silent before its reader looks anyway: longer than a test may take."""


@pytest.fixture
def hub(tmp_path):
    return Hub(None, GatewaySettings(data_dir=tmp_path))


async def test_a_reader_is_woken_by_a_change_of_its_document_and_of_no_other(hub):
    changes = hub.document_changes("flowrun", "r1", NEVER_S)
    await anext(changes)
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    hub._wake_documents("flowrun:r2")
    await asyncio.sleep(0)
    assert not waiting.done()
    hub._wake_documents("flowrun:r1")
    await waiting
    await changes.aclose()
    assert not hub._documents


async def test_a_change_while_the_reader_reads_is_not_missed(hub):
    changes = hub.document_changes("flowrun", "r1", NEVER_S)
    await anext(changes)
    hub._wake_documents("flowrun:r1")
    await anext(changes)
    await changes.aclose()


async def test_who_hears_nothing_looks_all_the_same(hub):
    changes = hub.document_changes("flowrun", "r1", 0)
    await anext(changes)
    await anext(changes)
    await changes.aclose()


async def test_a_gateway_that_ends_breaks_the_stream_off(hub):
    changes = hub.document_changes("flowrun", "r1", NEVER_S)
    await anext(changes)
    hub.close()
    with pytest.raises(StreamCut):
        await anext(changes)
