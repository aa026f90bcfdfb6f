"""Uploads: signed addresses, and bytes that wait on this machine's disk until a file is whole.

What came so far lies in the spool, one file an upload, where nobody can read it; a whole file moves into the
file store at once. An upload that broke goes on from the spool's end (docs/decisions/0014-resumable-uploads.md).
The spool is this gateway's own: at another one an upload starts over.
"""

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from stoker.core.errors import Conflict, FilesUnavailable, Forbidden, InvalidRequest, TooLarge
from stoker.core.events import Event
from stoker.core.messages import StoredFile
from stoker.files import FileStore, file_key
from stoker.log import get_logger
from stoker_gateway.numbers import whole

DEFAULT_TYPE: Final = "application/octet-stream"
"""Of a file about which nobody says more."""

WRITE_BYTES: Final = 1024 * 1024
"""What is gathered before the disk is asked: a thread's turn costs more than a network chunk is worth."""
SWEEP_S: Final = 600
_SLACK_S: Final = 60

P = ParamSpec("P")
T = TypeVar("T")
log = get_logger("gateway")


class UploadBroken(InvalidRequest):
    """The connection ended before the file did. HEAD on the upload address tells how far it came."""

    code = "upload_broken"


class Uploads:
    """The uploads of this gateway process."""

    def __init__(self, store: FileStore, spool: Path, *, max_bytes: int, ttl_s: float) -> None:
        self._store = store
        self._spool = spool
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)

    def check_size(self, size: int) -> None:
        """Refuse a file that is too large before its upload.

        Raises:
            TooLarge: says the limit.
        """
        if size > self._max_bytes:
            raise TooLarge(
                f"The file has {size} bytes; at most {self._max_bytes} are taken (STOKER_MAX_UPLOAD_BYTES)."
            )

    async def offset(self, file: StoredFile) -> int:
        """How many bytes of a file are here. Ends a request that still writes: whoever asks wants to go on."""
        async with self._turn(file.id).take():
            return self._spooled(file.id)

    async def write(self, file: StoredFile, offset: int, chunks: AsyncIterator[bytes], *, limit: int) -> int:
        """Put bytes at `offset` of the spooled file, and drop what was behind it; the new size.

        Args:
            offset: where they go; not beyond what is here.
            limit: the size that the file may reach, in bytes.

        Raises:
            Conflict: `offset` is not where the spool ends, or another request took over.
            InvalidRequest: more bytes than the limit; the spool keeps none of the file.
            TooLarge: the limit was the largest file that is taken.
            FilesUnavailable: the disk is full, or broken.
        """
        turn = self._turn(file.id)
        async with turn.take() as number:
            have = self._spooled(file.id)
            if offset and offset != have:
                raise Conflict(f"Upload-Offset is {offset}, but {have} bytes are here.", offset=have)
            out = self._open(file.id, offset)
        with out:
            async for block in gathered(chunks):
                async with turn.lock:
                    turn.check(number)
                    self._check_room(file, offset + len(block), limit)
                    await _on_disk(_write_all, out, block)
                    offset += len(block)
        return offset

    def _check_room(self, file: StoredFile, size: int, limit: int) -> None:
        if size > limit:
            self.drop(file.id)
            self.check_size(size)
            raise InvalidRequest(f"More than the {limit} bytes came that were announced.")

    async def finish(self, file: StoredFile, size: int) -> str:
        """Move a whole file of `size` bytes from the spool into the store; its SHA-256, hexadecimal.

        Raises:
            Conflict: the spool has not these bytes any more: another request began anew, moved them or dropped them.
            FilesUnavailable: the store does not take it now; the spool keeps it.
        """
        path, turn = self._path(file.id), self._turn(file.id)
        async with turn.lock:
            if not path.exists() or self._spooled(file.id) != size:
                raise Conflict("Another request goes on with this upload.")
            turn.next()  # not before: who began anew goes on
            digest = await _on_disk(_write_through, path)
            await self._store.take(file_key(file.id), path)
            return digest

    def drop(self, file_id: str) -> None:
        """Forget what came of a file so far."""
        self._path(file_id).unlink(missing_ok=True)

    def sweep(self, wall_s: float) -> int:
        """Remove spooled files whose addresses have expired; how many."""
        oldest_s = wall_s - self._ttl_s - _SLACK_S
        stale = [path for path in self._spool.iterdir() if _modified_s(path) < oldest_s]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _turn(self, file_id: str) -> "_Turn":
        return self._turns.setdefault(file_id, _Turn())

    def _path(self, file_id: str) -> Path:
        return self._spool / file_id

    def _spooled(self, file_id: str) -> int:
        try:
            return self._path(file_id).stat().st_size
        except FileNotFoundError:
            return 0

    def _open(self, file_id: str, offset: int) -> BinaryIO:
        try:
            out = self._path(file_id).open("r+b" if offset else "wb", buffering=0)
            out.seek(offset)
        except OSError as error:
            raise _full(error) from error
        return out


class _Turn:
    """Whose turn it is to write a file: the last request's. Earlier ones meet a Conflict at their next block."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._number = 0

    def take(self) -> "_Taking":
        return _Taking(self)

    def next(self) -> int:
        self._number += 1
        return self._number

    def check(self, number: int) -> None:
        if number != self._number:
            raise Conflict("Another request goes on with this upload.")


class _Taking:
    """The lock of a turn, held by the request whose turn begins."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn

    async def __aenter__(self) -> int:
        await self._turn.lock.acquire()
        return self._turn.next()

    async def __aexit__(self, *_: object) -> None:
        self._turn.lock.release()


def upload_url(base_url: str, file: StoredFile) -> str:
    """An address that takes this file's bytes, without a key, until it expires."""
    expires = file.upload_until_ms // 1000
    return f"{base_url}/upload/{file.id}?expires={expires}&signature={signature(file, expires)}"


def signature(file: StoredFile, expires: int) -> str:
    """What makes an upload address ours: good for this file, size and type, until `expires`."""
    text = f"{file.id} {expires} {file.announced}"
    return hmac.new(file.upload_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def check_address(file: StoredFile, expires: str, given: str) -> int:
    """Whether an upload address is one of ours; until when it is good, in Unix seconds.

    Raises:
        Forbidden: it is not; ask for a new one.
    """
    until = whole(expires) if file.upload_key else None
    if until is None or not hmac.compare_digest(given.encode(), signature(file, until).encode()):
        raise Forbidden("The upload address is not one of ours. POST /files gives one.")
    return until


def check_announced(file: StoredFile, content_type: str, content_length: str) -> None:
    """Whether a PUT is what was announced, as far as its headers tell.

    Clients that do not know a file's type say that it is bytes, some in one of the two places only.

    Raises:
        InvalidRequest: names the header, and what was announced.
    """
    known = {plain_type(one) for one in (file.content_type, content_type) if one} - {DEFAULT_TYPE}
    if len(known) > 1:
        raise InvalidRequest(
            f"Content-Type is '{content_type}', but '{file.content_type}' was announced. "
            "Send the announced one, or announce the file again."
        )
    length = whole(content_length)
    if file.size >= 0 and length is not None and length != file.size:
        raise InvalidRequest(
            f"Content-Length is {content_length}, but {file.size} bytes were announced. "
            "Send the announced file, or announce it again."
        )


def plain_type(content_type: str) -> str:
    """A content type to compare: without spaces, and in one case."""
    return content_type.replace(" ", "").lower()


async def gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of `WRITE_BYTES` or a little more; when the stream breaks, all that came."""
    block = bytearray()
    try:
        async for chunk in chunks:
            block += chunk
            if len(block) >= WRITE_BYTES:
                yield bytes(block)
                block.clear()
    except UploadBroken:
        if block:
            yield bytes(block)
        raise
    if block:
        yield bytes(block)


async def sweep_loop(uploads: Uploads) -> None:
    """Remove stale uploads again and again, until cancelled."""
    while True:
        try:
            if removed := await asyncio.to_thread(uploads.sweep, time.time()):
                log.info(Event.UPLOADS_SWEPT, files=removed)
        except OSError as error:
            log.warning(Event.UPLOADS_SWEPT, files=0, reason=str(error))
        await asyncio.sleep(SWEEP_S)


async def _on_disk(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A blocking call on the spool, beside the event loop; to its end even when the request is cancelled.

    Raises:
        FilesUnavailable: the disk refuses.
    """
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
    except OSError as error:
        raise _full(error) from error


def _write_all(out: BinaryIO, block: bytes) -> None:
    """Write a whole block: an unbuffered file may take a part of it at a time."""
    view = memoryview(block)
    while view:
        view = view[out.write(view) :]


def _write_through(path: Path) -> str:
    """Have a file on the disk; its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _full(error: OSError) -> FilesUnavailable:
    return FilesUnavailable(f"The upload cannot be written ({error.strerror or type(error).__name__}).")
