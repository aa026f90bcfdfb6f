"""The interface of a file store, its keys, and how the settings choose one.

A store holds whole files or nothing: what is being written can be read by nobody. It knows no records, no
owners and no addresses; those are the gateway's.
"""

from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from stoker.core.errors import Bug
from stoker.settings import FilesSettings

CHUNK_BYTES: Final = 256 * 1024
"""What is read at once: large enough that the work per chunk does not count, small beside a process."""
DATA_PREFIX: Final = "data/"
"""Below it lie the bytes of `StoredFile` records. Whoever keeps other things takes a prefix of their own."""


class Held(Struct, frozen=True, kw_only=True):
    """A file of a store. `size` in bytes; `modified_s`: wall clock, seconds since 1970."""

    key: str
    size: int
    modified_s: float


class FileStore(Protocol):
    """Bytes by key. A key is a relative path of plain names, at most 200 characters (`check_key`).

    Every method raises FilesUnavailable when the store does not answer or refuses us.
    """

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> int:
        """Store a stream; its size. A file of that key is replaced at once when the stream has ended.

        A stream that raises leaves nothing behind. Memory: a few MB whatever comes.
        """
        ...

    async def take(self, key: str, path: Path) -> None:
        """Move a whole local file into the store. `path` is gone afterwards; after an error it is still there."""
        ...

    async def size(self, key: str) -> int:
        """The size of a file in bytes.

        Raises:
            NotFound: the store has no such file.
        """
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """`length` bytes from `start` on (None: all that follow), in chunks. Beyond the end there is nothing.

        Raises:
            NotFound: at the first chunk: the store has no such file.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget a file; one that is not there is no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[Held]:
        """Every file whose key begins with `prefix`, a folder that ends in ``/``, in no order.

        A local directory also shows what a process that died left half-written, under keys that end in `.part`.
        """
        ...


def open_files(settings: FilesSettings) -> FileStore:
    """The store that the settings name: `files_url`, or the files directory when that is empty.

    Nothing is connected yet; a store that cannot be reached is met at its first use.
    """
    from stoker.files.local import LocalFiles  # noqa: PLC0415 - the implementations import this module

    if not settings.files_url:
        return LocalFiles(settings.files_dir)
    from stoker.files.s3 import S3Files  # noqa: PLC0415 - its library loads 20 MB that a local store never needs

    return S3Files(settings)


def file_key(file_id: str) -> str:
    """Where the bytes of a `StoredFile` lie: in 1024 folders by the first of its random characters."""
    return f"{DATA_PREFIX}{file_id[:2]}/{file_id}"


def check_key(key: str) -> str:
    """A key, when it is one.

    Raises:
        Bug: keys are made by our own code; nothing of a caller may get into one unchecked.
    """
    parts = key.split("/")
    plain = all(part and not part.startswith(".") and part.isascii() and part.isprintable() for part in parts)
    if not plain or len(key) > 200 or any(char in key for char in '\\#?*%"<>|'):
        raise Bug(f"{key!r} is no key of a file store")
    return key
