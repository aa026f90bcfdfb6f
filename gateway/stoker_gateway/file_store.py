"""Files in a local directory, and the signatures of upload addresses.

A file is written beside its place and renamed, so a name holds a whole file or none.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from stoker.core.errors import Forbidden, InvalidRequest, NotFound, TooLarge
from stoker.core.messages import StoredFile

UPLOAD_TTL_S: Final = 3600
CHUNK_BYTES: Final = 256 * 1024
_SECRET_BYTES: Final = 32


class FileStore:
    """The bytes behind `StoredFile` records."""

    def __init__(self, folder: Path, secret_file: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._secret = own_secret(secret_file)

    def path(self, file_id: str) -> Path:
        return self._folder / file_id[:2] / file_id

    def check_size(self, size: int) -> None:
        """Refuse a file that is too large before its upload.

        Raises:
            TooLarge: says the limit.
        """
        if size > self._max_bytes:
            raise TooLarge(
                f"The file has {size} bytes; at most {self._max_bytes} are taken (STOKER_MAX_UPLOAD_BYTES)."
            )

    def upload_url(self, base_url: str, file: StoredFile) -> str:
        """An address that takes this file's bytes for an hour, without a key."""
        expires = int(time.time()) + UPLOAD_TTL_S
        return f"{base_url}/upload/{file.id}?expires={expires}&signature={self._signature(file, expires)}"

    def check_upload(self, file: StoredFile, expires: str, signature: str) -> None:
        """Whether an upload address is one of ours and still good.

        Raises:
            Forbidden: it is not; ask for a new one.
        """
        good = expires.isdecimal() and hmac.compare_digest(signature, self._signature(file, int(expires)))
        if not good or int(expires) < time.time():
            raise Forbidden("The upload address is not valid any more. POST /files gives a new one.")

    async def save(self, file: StoredFile, chunks: AsyncIterator[bytes]) -> int:
        """Store a file's bytes as they come; its size.

        Raises:
            InvalidRequest: another size than was announced.
            TooLarge: more bytes than are taken.
        """
        target = self.path(file.id)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
        size = 0
        try:
            with partial.open("wb") as out:
                async for chunk in chunks:
                    size += len(chunk)
                    self.check_size(size)
                    await asyncio.to_thread(out.write, chunk)
            if file.size and size != file.size:
                raise InvalidRequest(f"{size} bytes came, {file.size} were announced. Send the file again.")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return size

    def open(self, file_id: str) -> tuple[BinaryIO, int]:
        """A stored file and its size.

        Raises:
            NotFound: nothing was uploaded, or it was deleted.
        """
        try:
            handle = self.path(file_id).open("rb")
        except FileNotFoundError as error:
            raise NotFound("File not found: nothing was uploaded to it, or it was deleted") from error
        return handle, os.fstat(handle.fileno()).st_size

    def delete(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)

    def _signature(self, file: StoredFile, expires: int) -> str:
        text = f"{file.id} {file.secret} {expires} {file.size}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def download_url(base_url: str, file: StoredFile) -> str:
    """The address of a file: unguessable, open without a key, with the name percent-encoded."""
    return f"{base_url}/files/{file.id}/{file.secret}/{quote(file.filename or 'file', safe='')}"


def own_secret(path: Path) -> bytes:
    """The secret in `path`; made at the first call, readable by its owner alone."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as out:
        secret = secrets.token_bytes(_SECRET_BYTES)
        out.write(secret)
    return secret


async def read_range(handle: BinaryIO, start: int, length: int) -> AsyncIterator[bytes]:
    """`length` bytes from `start`, beside the event loop; closes the file."""
    with handle:
        handle.seek(start)
        while length > 0 and (chunk := await asyncio.to_thread(handle.read, min(CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The (start, length) of a single-range header; None for none, or for one that is not understood.

    Raises:
        InvalidRequest: the range lies outside the file.
    """
    unit, _, spec = header.partition("=")
    first, dash, last = spec.partition("-")
    if unit != "bytes" or not dash or "," in spec or not (first + last).isdecimal():
        return None
    if not first:
        start = max(0, size - int(last))
        return start, size - start
    start, end = int(first), min(int(last), size - 1) if last else size - 1
    if start >= size or end < start:
        raise InvalidRequest(f"The range {spec} lies outside the file of {size} bytes.")
    return start, end - start + 1
