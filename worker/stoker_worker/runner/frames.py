"""Frames between the daemon and an app's process: four bytes of length (big-endian), then that many of JSON.

Sans-IO: bytes in, payloads out; what a payload says is up to the two ends. Standard library only, because
the app's own interpreter runs this file too.
"""

import struct

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Above this a peer is broken, not busy: results are limited to a few MB, inputs to what the gateway takes."""

_HEADER = struct.Struct(">I")


class FrameTooLarge(Exception):
    """A frame is longer than `MAX_FRAME_BYTES`."""


def pack(payload: bytes) -> bytes:
    """One frame.

    Raises:
        FrameTooLarge: the payload is above the limit.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a message of {len(payload)} bytes; at most {MAX_FRAME_BYTES} are possible")
    return _HEADER.pack(len(payload)) + payload


class Decoder:
    """Collects bytes and gives back whole payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._buffer += data

    def next(self) -> "bytes | None":
        """The next whole payload, or None when more bytes are needed.

        Raises:
            FrameTooLarge: the peer announced a frame above the limit.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        (length,) = _HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES:
            raise FrameTooLarge(f"a message of {length} bytes; at most {MAX_FRAME_BYTES} are possible")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return payload
