"""A lean HTTP/1.1 client and an open-loop load: the client shares two cores with the system it measures."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools


class _Answer:
    """Collects one response for httptools; `lines` gets those of a stream as they come."""

    def __init__(self, lines: asyncio.Queue[bytes] | None = None) -> None:
        self.body = bytearray()
        self.done = asyncio.get_running_loop().create_future()
        self._lines = lines

    def on_body(self, data: bytes) -> None:
        self.body += data
        if self._lines is not None:
            *whole, rest = self.body.split(b"\n")
            self.body = bytearray(rest)
            for line in whole:
                self._lines.put_nowait(bytes(line))

    def on_message_complete(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.answer: _Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer and not self.answer.done.done():
            self.answer.done.set_exception(ConnectionError(f"closed by the server ({exc})"))

    async def ask(self, head: bytes, lines: asyncio.Queue[bytes] | None = None) -> tuple[int, bytes]:
        self.answer = _Answer(lines)
        self.parser = httptools.HttpResponseParser(self.answer)
        self.transport.write(head)
        await self.answer.done
        return self.parser.get_status_code(), bytes(self.answer.body)


class Client:
    """Keep-alive connections to one gateway, as many as calls are under way."""

    def __init__(self, base_url: str, key: str) -> None:
        parts = urlsplit(base_url)
        self._address = (parts.hostname, parts.port)
        self._head = (
            f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nUser-Agent: inference-sdk-py/0.36.0\r\n"
        )
        self._idle: list[_Connection] = []

    async def call(self, method: str, path: str, body: bytes = b"", extra: str = "") -> tuple[int, bytes]:
        connection = await self._connection()
        answer = await connection.ask(self._request(method, path, body, extra))
        self._idle.append(connection)
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[asyncio.Queue[bytes]]:
        """The lines of a stream of JSON, which is left at the end of the block. A server that ends it first ends nothing here."""
        connection = await self._connection()
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        request = self._request("GET", path, b"", "Accept: application/x-ndjson\r\n")
        reading = asyncio.create_task(connection.ask(request, lines))
        try:
            yield lines
        finally:
            reading.cancel()
            connection.transport.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():  # the server closes what was idle for long
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        return connection

    def _request(self, method: str, path: str, body: bytes, extra: str) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{extra}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def run(self, body: bytes) -> dict:
        """Submit, follow the stream to the end; the task as its last line has it."""
        status, answer = await self.call("POST", "/apps/run", body)
        if status != 200:
            raise RuntimeError(answer.decode()[:300])
        task_id = json.loads(answer)["data"]["id"]
        _, lines = await self.call(
            "GET", f"/tasks/{task_id}/stream", extra="Accept: application/x-ndjson\r\n"
        )
        task = json.loads(lines.rstrip().rpartition(b"\n")[2])
        if task["status"] != 10:
            raise RuntimeError(f"task {task_id}: {task['error']}")
        return task

    def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()


@dataclass
class Latencies:
    """Milliseconds from the intended arrival."""

    start: list[float] = field(default_factory=list)
    result: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        return {
            f"{name}_{label}": round(quantile(values, q), 2)
            for name, values in (("start", self.start), ("result", self.result))
            for label, q in (("p50", 0.5), ("p99", 0.99))
        }


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def started_ms(task: dict) -> float:
    """When the function began, by the server's clock: this machine's."""
    from datetime import datetime

    at = next(event["event_time"] for event in task["events"] if event["status"] == 7)
    return datetime.fromisoformat(at).timestamp() * 1000


async def open_loop(rate: float, count: int, one: Callable[[], Awaitable[dict]]) -> Latencies:
    """`count` tasks that arrive at fixed times, whether or not the ones before have ended."""
    found = Latencies()
    wall, mono = time.time(), time.perf_counter()

    async def arrive(number: int) -> None:
        due = number / rate
        await asyncio.sleep(max(0.0, mono + due - time.perf_counter()))
        task = await one()
        found.result.append((time.perf_counter() - mono - due) * 1000)
        found.start.append(started_ms(task) - (wall + due) * 1000)

    await asyncio.gather(*(arrive(number) for number in range(count)))
    return found


async def closed_loop(inflight: int, count: int, one: Callable[[], Awaitable[object]]) -> float:
    """Tasks a second with so many under way."""
    left = iter(range(count))

    async def keep_busy() -> None:
        for _ in left:
            await one()

    begun = time.perf_counter()
    await asyncio.gather(*(keep_busy() for _ in range(inflight)))
    return count / (time.perf_counter() - begun)
