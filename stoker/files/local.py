"""Files in a local directory. A file is written beside its place and renamed, so a name holds a whole file."""

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from stoker.core.errors import FilesUnavailable, NotFound
from stoker.files.store import CHUNK_BYTES, Held, check_key

PARTIAL_SUFFIX: Final = ".part"
_LIST_BATCH: Final = 500


class LocalFiles:
    """A `FileStore` in a folder that this process owns alone, or shares over a network file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, key: str) -> Path:
        return self._folder / check_key(key)

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> int:
        """See `FileStore.put`."""
        target = self.path(key)
        partial = _beside(target)
        size = 0
        try:
            with _told():
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                out = partial.open("wb")
            with out:
                async for chunk in chunks:  # what it raises is the sender's
                    size += len(chunk)
                    with _told():
                        await asyncio.to_thread(out.write, chunk)
                with _told():
                    await asyncio.to_thread(write_through, out)
            with _told():
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return size

    async def take(self, key: str, path: Path) -> None:
        """See `FileStore.take`. A rename where the file system is the same."""
        target = self.path(key)
        with _told():
            await asyncio.to_thread(_move, path, target)

    async def size(self, key: str) -> int:
        """See `FileStore.size`."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError as error:
            raise _missing() from error
        except OSError as error:
            raise _unavailable(error) from error

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `FileStore.get`."""
        try:
            with self.path(key).open("rb") as file:
                file.seek(start)
                left = os.fstat(file.fileno()).st_size - start if length is None else length
                while left > 0 and (chunk := await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))):
                    left -= len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise _missing() from error
        except OSError as error:
            raise _unavailable(error) from error

    async def delete(self, key: str) -> None:
        """See `FileStore.delete`."""
        with _told():
            self.path(key).unlink(missing_ok=True)

    async def list(self, prefix: str) -> AsyncIterator[Held]:
        """See `FileStore.list`."""
        found = _walk(self._folder, self.path(prefix.rstrip("/")))
        while batch := await asyncio.to_thread(lambda: list(islice(found, _LIST_BATCH))):
            for held in batch:
                yield held


def _walk(root: Path, folder: Path) -> Iterator[Held]:
    """The files below a folder. Those being written are among them: who looks for what was left needs them."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                facts = path.lstat()
            except FileNotFoundError:
                continue  # deleted meanwhile
            if stat.S_ISREG(facts.st_mode):
                yield Held(
                    key=path.relative_to(root).as_posix(), size=facts.st_size, modified_s=facts.st_mtime
                )


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


def write_through(file: BinaryIO) -> None:
    """Have the bytes of a file on the disk: a rename may be there after a power cut, and they not."""
    file.flush()
    os.fsync(file.fileno())


def _move(path: Path, target: Path) -> None:
    """Move a file, whole or not at all; by a copy where the file systems differ."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    partial = _beside(target)
    try:
        with path.open("rb") as source, partial.open("wb") as out:
            shutil.copyfileobj(source, out, CHUNK_BYTES)
            write_through(out)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    path.unlink()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell what the disk refuses in the store's words."""
    try:
        yield
    except OSError as error:
        raise _unavailable(error) from error


def _missing() -> NotFound:
    return NotFound("File not found: nothing was uploaded to it, or it was deleted")


def _unavailable(error: OSError) -> FilesUnavailable:
    # The path stays out of the text: callers of the API read it.
    return FilesUnavailable(f"The files directory cannot be used ({error.strerror or type(error).__name__}).")
