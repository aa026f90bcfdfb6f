"""Files in an S3-compatible store, through obstore (docs/decisions/0013-file-stores.md)."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from stoker.core.errors import FilesUnavailable, NotFound
from stoker.files.store import CHUNK_BYTES, Held, check_key
from stoker.settings import FilesSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig  # not there at run time

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""One ranged read. No connection stays open while a slow client drinks, and a slow one costs this much memory."""
PART_BYTES: Final = 5 * 1024 * 1024
"""The smallest part of a multipart upload (S3 takes no smaller one but the last)."""
MAX_PARTS: Final = 10_000
"""Parts of one multipart upload, S3's limit."""
CONCURRENT_PARTS: Final = 2
REQUEST_S: Final = 120
"""One request: a part, a window, or a deletion."""
RETRY_S: Final = 30
_MAX_FILE_BYTES: Final = 5 * 1024**4
_LIST_BATCH: Final = 500
_FAILURES: Final = (BaseError, OSError, ValueError)


class S3Files:
    """A `FileStore` in a bucket. Large files go up in parts; a part that fails is tried again."""

    def __init__(self, settings: FilesSettings) -> None:
        place = urlsplit(settings.files_url)
        self._name = settings.files_url
        self._store = S3Store(
            place.netloc,
            prefix=f"{place.path}/{settings.files_folder}".strip("/") or None,
            client_options=_client_options(settings),
            retry_config=_RETRIES,
            **_config(settings),
        )

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> int:
        """See `FileStore.put`."""
        size = 0
        failed: list[BaseException] = []

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            try:
                async for chunk in chunks:
                    size += len(chunk)
                    yield chunk
            except BaseException as error:
                failed.append(error)  # obstore tells it as an error of its own
                raise

        try:
            await obstore.put_async(
                self._store,
                check_key(key),
                counted(),
                chunk_size=PART_BYTES,
                max_concurrency=CONCURRENT_PARTS,
            )
        except _FAILURES as error:
            if failed:
                raise failed[0] from error
            raise self._unavailable(error) from error
        return size

    async def take(self, key: str, path: Path) -> None:
        """See `FileStore.take`."""
        size = (await asyncio.to_thread(path.stat)).st_size
        try:
            await obstore.put_async(
                self._store,
                check_key(key),
                path,
                chunk_size=part_bytes(size),
                max_concurrency=CONCURRENT_PARTS,
            )
        except _FAILURES as error:
            raise self._unavailable(error) from error
        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def size(self, key: str) -> int:
        """See `FileStore.size`."""
        try:
            return int((await obstore.head_async(self._store, check_key(key)))["size"])
        except FileNotFoundError as error:
            raise _missing() from error
        except _FAILURES as error:
            raise self._unavailable(error) from error

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `FileStore.get`. Each window is a request of its own."""
        end = await self.size(key)
        if length is not None:
            end = min(end, start + length)
        while start < end:
            stop = min(start + WINDOW_BYTES, end)
            try:
                window = await obstore.get_range_async(self._store, check_key(key), start=start, end=stop)
            except FileNotFoundError as error:
                raise _missing() from error
            except _FAILURES as error:
                raise self._unavailable(error) from error
            start = stop
            view = memoryview(window)
            for at in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[at : at + CHUNK_BYTES])

    async def delete(self, key: str) -> None:
        """See `FileStore.delete`."""
        try:
            await obstore.delete_async(self._store, check_key(key))
        except FileNotFoundError:
            return
        except _FAILURES as error:
            raise self._unavailable(error) from error

    async def list(self, prefix: str) -> AsyncIterator[Held]:
        """See `FileStore.list`."""
        try:
            async for batch in obstore.list(self._store, prefix, chunk_size=_LIST_BATCH):
                for meta in batch:
                    yield Held(
                        key=meta["path"], size=meta["size"], modified_s=meta["last_modified"].timestamp()
                    )
        except _FAILURES as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> FilesUnavailable:
        """What callers read; the library's own text names addresses of the inside, so it is for the log alone."""
        return FilesUnavailable(
            f"The file store {self._name} does not answer or refuses ({type(error).__name__}). "
            "Try again in a moment."
        )


def part_bytes(size: int) -> int:
    """How large the parts of a file are, so that they are never too many."""
    return max(PART_BYTES, -(-min(size, _MAX_FILE_BYTES) // MAX_PARTS))


def _client_options(settings: FilesSettings) -> "ClientConfig":
    return {
        "allow_http": settings.files_endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=10),
        "timeout": timedelta(seconds=REQUEST_S),
    }


_RETRIES: "Final[RetryConfig]" = {"max_retries": 5, "retry_timeout": timedelta(seconds=RETRY_S)}


def _config(settings: FilesSettings) -> dict[str, Any]:
    """What is set, under the library's names. Credentials that are not set come from AWS_* or the machine's role."""
    config = {
        "endpoint": settings.files_endpoint,
        "region": settings.files_region,
        "access_key_id": settings.files_access_key,
        "secret_access_key": settings.files_secret_key.get_secret_value(),
    }
    return {name: value for name, value in config.items() if value}


def _missing() -> NotFound:
    return NotFound("File not found: nothing was uploaded to it, or it was deleted")
