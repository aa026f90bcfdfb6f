"""The gateway as a worker sees it: fetch the code of a task's app, store the files of its result.

Each request carries the attempt's token, so a worker reaches only what its own tasks need. Transport errors
and answers that ask for patience are repeated a few times; any other refusal ends the step with its reason.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from stoker.core.errors import StokerError
from stoker.core.messages import Assignment
from stoker_worker.backoff import Backoff
from stoker_worker.instance import OutFile

TRIES: Final = 6
"""With the pauses between them about 3 s: a gateway that `stoker up` starts again is back within that."""
TIMEOUT_S: Final = 30.0
CHUNK_BYTES: Final = 256 * 1024
_GATEWAY_UPLOADS: Final = "/upload/"
_PATIENCE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class GatewayRefused(StokerError):
    """The gateway did not answer as it should."""

    code = "gateway_refused"


class _Slot(Struct, frozen=True):
    """Where one file goes, as the gateway answers."""

    upload_url: str
    uri: str


class _NewFile(Struct, frozen=True):
    filename: str
    content_type: str
    size: int
    field: str


_slots = msgspec.json.Decoder(list[_Slot])
_encode = msgspec.json.Encoder().encode


class Gateway:
    """HTTP to the gateway. `base_url` is asked anew after a failure: a restarted gateway may have moved."""

    def __init__(
        self, base_url: Callable[[], str], transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._base_url = base_url
        # The proxies of the environment are for the outside; the gateway is ours.
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, transport=transport)

    async def close(self) -> None:
        await self._client.aclose()

    async def fetch_bundle(self, order: Assignment, target: Path) -> None:
        """Download the app version of a task as a tar.gz.

        Raises:
            GatewayRefused: not reachable after `TRIES`, or refused; says which address and why.
        """

        async def download(base: str) -> None:
            request = self._client.build_request(
                "GET", f"{base}/internal/tasks/{order.task.id}/bundle", headers=_authorization(order)
            )
            async with _streaming(self._client, request) as answer:
                with target.open("wb") as file:
                    async for chunk in answer.aiter_bytes(CHUNK_BYTES):
                        file.write(chunk)

        await self._patiently(download)

    async def store(self, order: Assignment, files: Sequence[OutFile]) -> list[str]:
        """Upload files of a result; their addresses, in the same order.

        Raises:
            GatewayRefused: as above.
        """
        slots: list[_Slot] = []
        body = _encode({"files": [_NewFile(f.filename, f.content_type, f.size, f.pointer) for f in files]})

        async def announce(base: str) -> None:
            request = self._client.build_request(
                "POST",
                f"{base}/internal/tasks/{order.task.id}/files",
                content=body,
                headers=_authorization(order) | {"content-type": "application/json"},
            )
            async with _streaming(self._client, request) as answer:
                slots[:] = _slots.decode(await answer.aread())

        await self._patiently(announce)
        for file, slot in zip(files, slots, strict=True):
            await self._put(file, slot)
        return [slot.uri for slot in slots]

    async def _put(self, file: OutFile, slot: _Slot) -> None:
        async def upload(base: str) -> None:
            request = self._client.build_request(
                "PUT",
                _reachable(base, slot.upload_url),
                content=_chunks(Path(file.path)),
                headers={"content-type": file.content_type, "content-length": str(file.size)},
            )
            async with _streaming(self._client, request):
                pass

        await self._patiently(upload)

    async def _patiently(self, call: Callable[[str], Awaitable[None]]) -> None:
        """`call` with the gateway's address, again while that may help."""
        backoff = Backoff(first_s=0.1)
        for left in range(TRIES - 1, -1, -1):
            base = self._base_url()
            try:
                await call(base)
            except httpx.HTTPStatusError as error:
                answer = error.response
                if left and answer.status_code in _PATIENCE:
                    await backoff.wait()
                    continue
                raise GatewayRefused(
                    f"The gateway at {base} answered {answer.status_code} to "
                    f"{answer.request.method} {answer.request.url.path}: {answer.text[:300]}"
                ) from error
            except httpx.TransportError as error:
                if not left:
                    raise GatewayRefused(
                        f"The gateway at {base} cannot be reached ({type(error).__name__}: {error}). "
                        "Check STOKER_INTERNAL_URL on the worker's machine."
                    ) from error
                await backoff.wait()
            else:
                return


def _reachable(base: str, url: str) -> str:
    """The upload address as this machine reaches it: clients may know the gateway by another name.

    An address elsewhere (an S3 of its own) is used as it is.
    """
    parts = urlsplit(url)
    if not parts.path.startswith(_GATEWAY_UPLOADS):
        return url
    return f"{base}{parts.path}?{parts.query}" if parts.query else base + parts.path


def _authorization(order: Assignment) -> dict[str, str]:
    return {"authorization": f"Bearer {order.token}"}


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


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    """A file's bytes, read beside the event loop: a disk may be slow."""
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
