"""A document as a stream: the whole of it now and at each change."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from stoker.core.errors import NotFound, StoreUnavailable
from stoker.settings import GatewaySettings
from stoker_gateway.dialect import Dialect
from stoker_gateway.dto import ascii_json
from stoker_gateway.heartbeat import Heartbeat
from stoker_gateway.streams import HEARTBEAT_COMMENT, HEARTBEAT_LINE, Hub

Shown = Callable[[], Awaitable[tuple[int, dict[str, Any], bool]]]
"""Reads a document: its revision, the event to send, whether it is the last."""


async def follow(
    hub: Hub, settings: GatewaySettings, kind: str, document_id: str, dialect: Dialect, read: Shown
) -> AsyncIterator[bytes]:
    """The body of a stream. It ends with the last event, and when the document is gone.

    Raises:
        StreamCut: the gateway ends.
    """
    sent, heartbeat = -1, Heartbeat(settings.heartbeat_s)
    async for _ in hub.document_changes(kind, document_id, settings.heartbeat_s):
        if heartbeat.due():  # the hub looks again every few seconds, and mostly nothing has changed
            yield HEARTBEAT_LINE if dialect.ndjson else HEARTBEAT_COMMENT
        try:
            revision, event, last = await read()
        except NotFound:
            return
        except StoreUnavailable:
            continue
        if revision != sent:
            sent = revision
            heartbeat.sent()
            yield framed(revision, event, dialect)
        if last:
            if not dialect.ndjson:
                yield b"event: done\ndata: {}\n\n"
            return


def framed(event_id: object, event: dict[str, Any], dialect: Dialect) -> bytes:
    """One event as it goes over the wire; server-sent ones have no name, as clients of documents expect."""
    line = ascii_json(event)
    return line + b"\n" if dialect.ndjson else b"id: %b\ndata: %b\n\n" % (str(event_id).encode(), line)
