"""Downloads one file to disk: redirects, repeats, resumption, bounds. Policy and transport are beside it.

A broken connection goes on where it broke, when the server can prove that the rest belongs to the same bytes.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from stoker.outbound import PERMITS, AddressRefused, checked_client, port_of
from stoker_worker import fetch_answer
from stoker_worker.backoff import Backoff
from stoker_worker.fetch_answer import Version
from stoker_worker.fetch_policy import FetchFailed, FetchPolicy, shown
from stoker_worker.threads import unbroken

TRIES: Final = 5
"""In a row without progress. With the pauses between them some 8 s: longer outages are the caller's to repeat."""
PROGRESS_BYTES: Final = 1024 * 1024
"""A try that brought as much was worth it: the count of tries begins anew."""
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 8.0
MAX_REDIRECTS: Final = 5
WRITE_BYTES: Final = 1024 * 1024
TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
"""Seconds without a byte, and for a connection; the whole is bounded by who calls."""
AGENT: Final = "stoker-worker"
_PATIENCE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes that are here, and those of the whole file, if known."""


class _Again(Exception):
    """This try failed in a way that another may not."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came. `fresh_s`: how long a copy may serve without a question; None = no copy may be kept."""

    size: int
    content_type: str
    version: Version
    fresh_s: float | None


class Fetcher:
    """Fetches files over HTTP. One for a daemon; any number at the same time."""

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        max_bytes: int,
        transport: httpx.AsyncBaseTransport | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self.policy = policy
        self.max_bytes = max_bytes
        self.first_pause_s = first_pause_s
        self._client = checked_client(TIMEOUT, transport)

    async def close(self) -> None:
        await self._client.aclose()

    async def fetch(
        self, url: httpx.URL, path: Path, *, known: Version, on_progress: OnProgress
    ) -> Fetched | None:
        """Download a file to `path`; what an ended or stopped call left there is of no use.

        Args:
            url: http or https.
            path: of a new file.
            known: the version that the caller has; None is returned when the server still has the same.
            on_progress: called after each write.

        Raises:
            FetchFailed: says which address and why.
            OSError: the disk is full, or cannot be written.
        """
        with path.open("wb") as file:
            return await _Download(self, url, file, known, on_progress).run()

    @contextlib.asynccontextmanager
    async def answer(self, url: httpx.URL, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """The answer to a GET, redirects followed, each checked; its body is not read yet.

        Raises:
            FetchFailed: a URL or an address is refused, or there are too many redirects.
            httpx.TransportError: no connection, or a broken one.
        """
        for _ in range(MAX_REDIRECTS + 1):
            target = self.policy.judge(url)
            request = self._client.build_request(
                "GET",
                target.url,
                headers={"user-agent": AGENT, "accept-encoding": "identity"} | headers,
                extensions={PERMITS: lambda address, target=target: self.policy.permits(target, address)},
            )
            try:
                answer = await self._client.send(request, stream=True)
            except AddressRefused as refused:
                # The addresses themselves are the operator's to know, not the caller's.
                raise FetchFailed(
                    f"{shown(refused.url)} leads to an address that is not public; the operator of the worker may "
                    f"allow {refused.url.host}:{port_of(refused.url)} in STOKER_FETCH_ALLOW"
                ) from refused
            try:
                if not answer.has_redirect_location:
                    yield answer
                    return
                location = answer.headers["location"]
            finally:
                await answer.aclose()
            url = _joined(url, location)
        raise FetchFailed(f"{shown(url)} is the end of more than {MAX_REDIRECTS} redirects")


class _Download:
    """One file on its way. Steps of a try: ask, place, take, check."""

    def __init__(
        self, fetcher: Fetcher, url: httpx.URL, file: BinaryIO, known: Version, on_progress: OnProgress
    ) -> None:
        self._fetcher = fetcher
        self._url = url
        self._file = file
        self._known = known
        self._on_progress = on_progress
        self._version = Version()
        self._done = 0
        self._total: int | None = None
        self._hash = hashlib.sha256()
        self._stated: bytes = b""

    async def run(self) -> Fetched | None:
        backoff = Backoff(self._fetcher.first_pause_s, LAST_PAUSE_S)
        left = TRIES
        while True:
            before = self._done
            try:
                return await self._once()
            except (httpx.TransportError, _Again) as error:
                if self._done - before >= PROGRESS_BYTES:
                    left = TRIES
                    backoff.reset()
                left -= 1
                if not left:
                    raise FetchFailed(self._reason(error)) from error
                await asyncio.sleep(getattr(error, "after_s", 0.0))
                await backoff.wait()

    async def _once(self) -> Fetched | None:
        async with self._fetcher.answer(self._url, self._headers()) as answer:
            if answer.status_code == httpx.codes.NOT_MODIFIED and self._known.known and not self._done:
                return None
            self._place(answer)
            await self._take(answer)
        await self._check()
        return Fetched(
            size=self._done,
            content_type=fetch_answer.content_type(answer.headers),
            version=self._version,
            fresh_s=fetch_answer.fresh_s(answer.headers),
        )

    def _headers(self) -> dict[str, str]:
        if self._done and self._version.exact:
            return {"range": f"bytes={self._done}-", "if-range": self._version.exact}
        return self._known.conditions()

    def _place(self, answer: httpx.Response) -> None:
        """Decide where the bytes of an answer go: behind those that are here, or anew."""
        where = shown(answer.request.url)
        code = answer.status_code
        if code in _PATIENCE:
            raise _Again(
                f"{where} answered {code} {answer.reason_phrase}", fetch_answer.retry_after_s(answer.headers)
            )
        start = fetch_answer.starts_at(answer)
        misplaced = code == httpx.codes.PARTIAL_CONTENT and (start is None or start != self._done)
        if self._done and (misplaced or code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
            self._restart()
            raise _Again(f"{where} could not go on where it broke")
        if misplaced or code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
            raise FetchFailed(f"{where} answered {code} {answer.reason_phrase}".rstrip())
        if code == httpx.codes.OK:
            self._restart()
            self._version = fetch_answer.version_of(answer.headers)
            name, self._stated = fetch_answer.stated_hash(answer.headers) or ("sha256", b"")
            self._hash = hashlib.new(name)
        self._total = fetch_answer.whole_length(answer)
        self._bound(self._total or 0, where)

    async def _take(self, answer: httpx.Response) -> None:
        where = shown(answer.request.url)
        buffer = bytearray()
        try:
            async for chunk in answer.aiter_raw():
                buffer += chunk
                self._bound(self._done + len(buffer), where)
                if len(buffer) >= WRITE_BYTES:
                    await self._write(buffer)
        except httpx.TransportError:
            await self._write(buffer)
            raise
        await self._write(buffer)

    async def _write(self, buffer: bytearray) -> None:
        data = bytes(buffer)
        buffer.clear()
        await unbroken(self._put, data)
        self._done += len(data)
        self._on_progress(self._done, self._total)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        if self._stated:
            self._hash.update(data)

    async def _check(self) -> None:
        """Whether all bytes are here, and the right ones."""
        await unbroken(self._file.flush)
        if self._total is not None and self._done != self._total:
            raise _Again("the answer ended early")
        if self._stated and self._hash.digest() != self._stated:
            self._restart()
            raise _Again(f"{shown(self._url)} sent other bytes than its {self._hash.name} says")

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.new(self._hash.name)
        self._done = 0

    def _bound(self, size: int, where: str) -> None:
        limit = self._fetcher.max_bytes
        if size > limit:
            raise FetchFailed(
                f"{where} has {'at least ' if self._total is None else ''}{size} bytes; at most {limit} are "
                "fetched (STOKER_FETCH_MAX_BYTES)"
            )

    def _reason(self, error: Exception) -> str:
        if isinstance(error, _Again) and not self._done:
            return f"{error} ({TRIES} times)"
        where = shown(self._url)
        if self._done:
            of = "" if self._total is None else f" of {self._total}"
            return f"{where} broke off after {self._done}{of} bytes, {TRIES} times ({error or type(error).__name__})"
        return f"{where} cannot be reached, {TRIES} times ({error or type(error).__name__})"


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        told = location.partition("?")[0][:100]
        raise FetchFailed(f"{shown(url)} redirects to {told!r}, which is no address") from error
