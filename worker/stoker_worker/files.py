"""The gateway as a worker sees it: fetch the code of a task's app, send the files of its result.

Each request carries the attempt's token, so a worker reaches only what its own tasks need. Transport errors
and answers that ask for patience are repeated for a while; any other refusal ends the step with its reason.
"""

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from stoker.core.errors import RequirementsNotMet, StokerError
from stoker.core.messages import Assignment
from stoker_worker.backoff import Backoff

PATIENCE_S: Final = 60.0
"""How long a question is repeated: a gateway that is started again, or a server behind it, is back within that."""
RESULT_PATIENCE_S: Final = 600.0
"""The same for a result, since its last byte that got there: an hour of work is worth more than a question."""
TIMEOUT_S: Final = 30.0
CHUNK_BYTES: Final = 256 * 1024
_GATEWAY_UPLOADS: Final = "/upload/"
_NOT_MET: Final = RequirementsNotMet.http
_PATIENCE: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which a repeat may go well; 409: another request of ours still holds the upload."""
_TUS: Final = {"tus-resumable": "1.0.0"}
_UPLOAD_TIMEOUT: Final = httpx.Timeout(TIMEOUT_S, read=300.0)
"""The answer to the last byte comes when the file is in the store: with S3 the gateway sends it there first."""


class GatewayRefused(StokerError):
    """The gateway did not answer as it should. `status` and `said`: what it answered, if it did."""

    code = "gateway_refused"

    def __init__(self, message: str = "", status: int = 0, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said

    @property
    def passing(self) -> bool:
        """Whether it may answer otherwise later."""
        return not self.status or self.status in _PATIENCE


class SecretsMissing(StokerError):
    """A secret that the app needs is gone."""

    code = RequirementsNotMet.code


class Slot(Struct, frozen=True):
    """Where one file goes, as the gateway answers."""

    upload_url: str
    uri: str


class NewFile(Struct, frozen=True):
    """A file that comes; `field` is its place in the output."""

    filename: str
    content_type: str
    size: int
    field: str


class _Missing(Struct, frozen=True):
    message: str = ""


class _Refusal(Struct, frozen=True):
    """The parts of an error body that are for people."""

    detail: str = ""
    errors: list[_Missing] = []


Read = Callable[[int], AsyncIterator[bytes]]
_slots = msgspec.json.Decoder(list[Slot])
_values = msgspec.json.Decoder(dict[str, str])
_refusal = msgspec.json.Decoder(_Refusal)
_encode = msgspec.json.Encoder().encode


class Gateway:
    """HTTP to the gateway. `base_url` is asked anew after a failure: a restarted gateway may have moved."""

    def __init__(
        self,
        base_url: Callable[[], str],
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        engine: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """Open no connection yet.

        Args:
            base_url: where the gateway is now.
            transport: of tests.
            clock: monotonic seconds.
            engine: headers that say which engine asks, for one that was enrolled.
            verify: whom to believe that they are the gateway.
        """
        self._base_url = base_url
        self._clock = clock
        self._engine = dict(engine or {})
        # The proxies of the environment are for the outside; the gateway is ours.
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S, trust_env=False, transport=transport, verify=verify
        )

    async def close(self) -> None:
        await self._client.aclose()

    def _authorization(self, token: str) -> dict[str, str]:
        """For the gateway's own routes alone: an upload may go elsewhere."""
        return {"authorization": f"Bearer {token}", **self._engine}

    async def fetch_bundle(self, order: Assignment, target: Path) -> None:
        """Download the app version of a task as a tar.gz.

        Raises:
            GatewayRefused: not reachable for `PATIENCE_S`, or refused; says which address and why.
        """

        async def download(base: str) -> None:
            request = self._client.build_request(
                "GET",
                f"{base}/internal/tasks/{order.task.id}/bundle",
                headers=self._authorization(order.token),
            )
            async with _streaming(self._client, request) as answer:
                with target.open("wb") as file:
                    async for chunk in answer.aiter_bytes(CHUNK_BYTES):
                        file.write(chunk)

        await self._patiently(download)

    async def fetch_secrets(self, order: Assignment) -> dict[str, str]:
        """The variables that the instance for a task is given, by name. They are not kept here.

        Raises:
            SecretsMissing: one was deleted while the task waited.
            GatewayRefused: as above.
        """
        values: dict[str, str] = {}

        async def ask(base: str) -> None:
            request = self._client.build_request(
                "GET",
                f"{base}/internal/tasks/{order.task.id}/secrets",
                headers=self._authorization(order.token),
            )
            async with _streaming(self._client, request) as answer:
                values.update(_values.decode(await answer.aread()))

        try:
            await self._patiently(ask)
        except GatewayRefused as error:
            if error.status == _NOT_MET:
                raise SecretsMissing(error.said) from error
            raise
        return values

    async def announce(self, order: Assignment, files: Sequence[NewFile]) -> list[Slot]:
        """Say which files of a result come; where they go, in the same order.

        Raises:
            GatewayRefused: not reachable for `RESULT_PATIENCE_S`, or refused.
        """
        slots: list[Slot] = []

        async def ask(base: str) -> None:
            request = self._client.build_request(
                "POST",
                f"{base}/internal/tasks/{order.task.id}/files",
                content=_encode({"files": files}),
                headers=self._authorization(order.token) | {"content-type": "application/json"},
            )
            async with _streaming(self._client, request) as answer:
                slots[:] = _slots.decode(await answer.aread())

        await self._patiently(ask, RESULT_PATIENCE_S)
        return slots

    async def put_log(self, task_id: str, attempt: int, token: str, first: int, body: bytes) -> None:
        """Store a chunk of an attempt's log: compressed blocks (`stoker.core.logs`) from line `first` on.

        Raises:
            GatewayRefused: as above.
        """

        async def upload(base: str) -> None:
            request = self._client.build_request(
                "PUT",
                f"{base}/internal/tasks/{task_id}/logs/{attempt}/{first}",
                content=body,
                headers=self._authorization(token) | {"content-type": "application/gzip"},
            )
            async with _streaming(self._client, request):
                pass

        await self._patiently(upload)

    async def upload(self, slot: Slot, size: int, read: Read) -> None:
        """Send a file's bytes. After a failure it goes on from what the gateway has (tus 1.0.0).

        Args:
            read: gives the bytes from an offset on, up to `size`; what it raises comes out of here.

        Raises:
            GatewayRefused: nothing got there for `RESULT_PATIENCE_S`, or refused.
        """
        offset = furthest = 0
        again = False
        backoff, until = Backoff(first_s=0.1), self._clock() + RESULT_PATIENCE_S

        async def step(base: str) -> None:
            nonlocal offset
            url = _reachable(base, slot.upload_url)
            if again:
                offset = await self._offset(url)
            if not again or offset < size:
                await self._send(url, offset, size, read(offset))

        while failure := await self._failure(step):
            again = True
            if offset > furthest:
                furthest, until = offset, self._clock() + RESULT_PATIENCE_S
                backoff.reset()
            if self._clock() >= until:
                raise failure
            await backoff.wait()

    async def _offset(self, url: str) -> int:
        request = self._client.build_request("HEAD", url, headers=_TUS, timeout=_UPLOAD_TIMEOUT)
        async with _streaming(self._client, request) as answer:
            return int(answer.headers.get("upload-offset", 0))

    async def _send(self, url: str, offset: int, size: int, chunks: AsyncIterator[bytes]) -> None:
        headers = _TUS | {
            "content-type": "application/offset+octet-stream",
            "content-length": str(size - offset),
            "upload-offset": str(offset),
        }
        request = self._client.build_request(
            "PATCH", url, content=chunks, headers=headers, timeout=_UPLOAD_TIMEOUT
        )
        async with _streaming(self._client, request):
            pass

    async def _patiently(
        self, call: Callable[[str], Awaitable[None]], patience_s: float = PATIENCE_S
    ) -> None:
        """`call` with the gateway's address, again while that may help."""
        backoff, until = Backoff(first_s=0.1), self._clock() + patience_s
        while failure := await self._failure(call):
            if self._clock() >= until:
                raise failure
            await backoff.wait()

    async def _failure(self, call: Callable[[str], Awaitable[None]]) -> "GatewayRefused | None":
        """What went wrong with `call` and may go well the next time; None when it went well.

        Raises:
            GatewayRefused: a repeat is of no use.
        """
        base = self._base_url()
        try:
            await call(base)
        except httpx.HTTPStatusError as error:
            answer = error.response
            refused = GatewayRefused(
                f"The gateway at {base} answered {answer.status_code} to "
                f"{answer.request.method} {answer.request.url.path}: {answer.text[:300]}",
                answer.status_code,
                _sentence(answer),
            )
            if answer.status_code in _PATIENCE:
                return refused
            raise refused from error
        except httpx.TransportError as error:
            return GatewayRefused(
                f"The gateway at {base} cannot be reached ({type(error).__name__}: {error}). "
                "Check STOKER_INTERNAL_URL on the worker's machine."
            )
        return None


def _reachable(base: str, url: str) -> str:
    """The upload address as this machine reaches it: clients may know the gateway by another name.

    An address elsewhere (an S3 of its own) is used as it is.
    """
    parts = urlsplit(url)
    if not parts.path.startswith(_GATEWAY_UPLOADS):
        return url
    return f"{base}{parts.path}?{parts.query}" if parts.query else base + parts.path


def _sentence(answer: httpx.Response) -> str:
    """What the gateway says to people in a refusal."""
    try:
        refusal = _refusal.decode(answer.content)
    except msgspec.DecodeError:
        return ""
    return refusal.detail or " ".join(missing.message for missing in refusal.errors)


@contextlib.asynccontextmanager
async def _streaming(client: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    """The answer to a request, its body not read yet; an error status raises with its text read."""
    answer = await client.send(request, stream=True)
    try:
        if answer.is_error:
            await answer.aread()
        answer.raise_for_status()
        yield answer
    finally:
        await answer.aclose()
