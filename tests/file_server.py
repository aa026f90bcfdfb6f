"""An HTTP server on loopback that serves files well or badly, as its script says."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

CHUNK_BYTES = 256 * 1024


@dataclass
class Request:
    """What came."""

    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    """What goes back. `cut`: bytes of the body after which the connection ends; `hold`: it stays open instead."""

    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    hold: bool = False
    length: int | None = None
    file: Path | None = None


class FileServer:
    """Answers a path with the replies given for it, one after another; the last one stays.

    `requests` is what came; a reply may be a function of the request.
    """

    def __init__(self):
        self.replies = {}
        self.requests = []
        self.open = 0
        self.port = 0
        self._server = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def put(self, path, *replies):
        self.replies[path] = list(replies)
        return self.url + path

    def put_file(self, path, file):
        """Serve a file of any size; it never is in memory as a whole."""
        return self.put(path, Reply(headers={"ETag": '"1"'}, length=file.stat().st_size, file=file))

    def paths(self):
        return [request.path for request in self.requests]

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        self.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            self.open -= 1
            writer.close()

    async def _send(self, writer, path):
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines if line)
        }
        request = Request(first.split()[1], headers)
        self.requests.append(request)
        given = self.replies.get(request.path, [Reply("404 Not Found")])
        reply = given.pop(0) if len(given) > 1 else given[0]
        reply = reply(request) if callable(reply) else reply
        length = len(reply.body) if reply.length is None else reply.length
        fields = {"Content-Length": str(length), "Connection": "close"} | reply.headers
        text = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        writer.write(f"HTTP/1.1 {reply.status}\r\n{text}\r\n".encode("latin-1"))
        if reply.file is not None:
            await self._send(writer, reply.file)
            return
        writer.write(reply.body if reply.cut is None else reply.body[: reply.cut])
        await writer.drain()
        if reply.hold:
            await reader.read()  # until the other side gives up


def ranged(body, etag='"1"', **headers):
    """A reply that goes on where a request wants it to, as good servers do."""

    def reply(request):
        known = {"ETag": etag} | headers
        if request.headers.get("if-none-match") == etag:
            return Reply("304 Not Modified", known)
        wanted = request.headers.get("range", "")
        if not wanted or request.headers.get("if-range") != etag:
            return Reply(headers=known, body=body)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        spot = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        return Reply("206 Partial Content", known | spot, body[start:])

    return reply
