"""The daemon's end of the socket to an app's process: whole messages in, whole messages out."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from stoker_worker.runner.frames import Decoder, FrameTooLarge, pack


class Message(msgspec.Struct, frozen=True):
    """Anything that the runner says."""

    type: str
    run: int = 0  # which run it belongs to; 0 = none
    output: msgspec.Raw = msgspec.Raw(b"null")
    meta: msgspec.Raw = msgspec.Raw(b"null")
    files: list[dict[str, Any]] = []
    message: str = ""
    seq: int = 0
    namespace: str = ""
    shared_because: str = ""
    parks: bool = False  # of one that is ready: the app can leave the devices and come back
    fault: str = "app"
    vram_short: bool = False  # of a failure: GPU memory ran out
    fields: list[dict[str, str]] = []
    functions: dict[str, dict[str, Any]] = {}
    setup_schema: dict[str, Any] = {}


_decode: Final = msgspec.json.Decoder(Message).decode
_encode: Final = msgspec.json.Encoder().encode


class Link(asyncio.Protocol):
    """Our end of the socket: whole messages to `on_message`, the end of the connection to `closed`."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        self.broken = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's transport; uvloop's do not derive from asyncio.Transport, so nothing can be checked here.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            while (payload := self._decoder.next()) is not None:
                self._on_message(_decode(payload))
        except (FrameTooLarge, msgspec.DecodeError) as error:
            self.broken = f"the app's process sent something that is no message ({error})"
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol has it
        self.closed.set()

    def send(self, message: dict[str, Any]) -> None:
        """Queue a message; one to a process that is gone is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(_encode(message)))

    def close(self) -> None:
        """Close the socket; a runner that is still there ends itself."""
        if self._transport is not None:
            self._transport.close()
