"""The files of a result on their way to the gateway: checked, each path once, a few at a time, from the disk."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError
from stoker.core.messages import Assignment, LogType
from stoker_worker.files import Gateway, NewFile, Slot
from stoker_worker.instance import OutFile
from stoker_worker.logs import OnLine
from stoker_worker.outcomes import OutputFileMissing, OutputFileUnreadable, UploadFailed
from stoker_worker.pointers import dotted

PARALLEL: Final = 4
"""Uploads of one task at a time: more would share the same network."""
ANNOUNCED: Final = 100
"""Files of one announcement."""
CHUNK_BYTES: Final = 256 * 1024
LARGE_BYTES: Final = 100 * 1024 * 1024
"""From this size on the log tells how far an upload is."""
_TOLD_PARTS: Final = 10
_MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Source:
    """A path of a result, and what it is sent as. `field` as people write it."""

    path: Path
    named: str
    field: str
    size: int
    new: NewFile


class Outputs:
    """Sends the files of results."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def store(
        self, order: Assignment, files: Sequence[OutFile], on_line: OnLine
    ) -> list[dict[str, object]]:
        """Send every file of a result; what stands for each in the output, in the same order.

        A path that several fields name is sent once. When one file fails, the others are given up.

        Raises:
            OutputFileMissing: names the field.
            OutputFileUnreadable: names the field, and why.
            UploadFailed: the gateway did not take a file.
        """
        sources = await asyncio.to_thread(_sources, files)
        try:
            slots = await self._announce(order, list(sources.values()))
            await self._send(list(zip(sources.values(), slots, strict=True)), on_line)
        except (OutputFileMissing, OutputFileUnreadable):
            raise
        except StokerError as error:
            raise UploadFailed(f"The result's files could not be stored: {error.message}") from error
        uris = {path: slot.uri for path, slot in zip(sources, slots, strict=True)}
        return [_address(file, uris[file.path], sources[file.path].size) for file in files]

    async def _announce(self, order: Assignment, sources: Sequence[_Source]) -> list[Slot]:
        slots: list[Slot] = []
        for at in range(0, len(sources), ANNOUNCED):
            slots += await self._gateway.announce(order, [s.new for s in sources[at : at + ANNOUNCED]])
        return slots

    async def _send(self, pairs: Sequence[tuple[_Source, Slot]], on_line: OnLine) -> None:
        room = asyncio.Semaphore(PARALLEL)

        async def send(source: _Source, slot: Slot) -> None:
            async with room:
                tell = _Progress(source, on_line)
                await self._gateway.upload(slot, source.size, lambda at: _chunks(source, at, tell))

        try:
            async with asyncio.TaskGroup() as group:
                for source, slot in pairs:
                    group.create_task(send(source, slot))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None


class _Progress:
    """Says in the log how far a large upload is, ten times at most."""

    def __init__(self, source: _Source, on_line: OnLine) -> None:
        self._source = source
        self._on_line = on_line
        self._step = max(1, source.size // _TOLD_PARTS)
        self._next = self._step

    def __call__(self, sent: int) -> None:
        size = self._source.size
        if size < LARGE_BYTES or sent < self._next:
            return
        self._next = (sent // self._step + 1) * self._step
        self._on_line(
            LogType.TASK,
            f"Uploading '{self._source.new.filename}': {sent // _MB} of {size // _MB} MB "
            f"({100 * sent // size} %)",
        )


def _sources(files: Sequence[OutFile]) -> dict[str, _Source]:
    """The paths of a result, each once, under the first field that names it."""
    found: dict[str, _Source] = {}
    for file in files:
        if file.path not in found:
            found[file.path] = _source(file)
    return found


def _source(file: OutFile) -> _Source:
    """A file that can be read now.

    Raises:
        OutputFileMissing, OutputFileUnreadable: names the field.
    """
    field, path = field_name(file.pointer), Path(file.path)
    named = file.named or file.path  # the app's own /tmp has another name for us
    try:
        facts = path.stat()
        if stat.S_ISREG(facts.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise OutputFileMissing(
            f"The output field {field} names '{named}', which does not exist. Write the file before you return it."
        ) from None
    except OSError as error:
        raise _unreadable(field, named, error.strerror or type(error).__name__) from error
    if not stat.S_ISREG(facts.st_mode):
        kind = "a directory" if stat.S_ISDIR(facts.st_mode) else "no regular file"
        raise _unreadable(field, named, f"it is {kind}")
    new = NewFile(file.filename, file.content_type, facts.st_size, file.pointer)
    return _Source(path, named, field, facts.st_size, new)


async def _chunks(source: _Source, offset: int, tell: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The bytes from an offset on, beside the event loop: a disk may be slow.

    Raises:
        OutputFileUnreadable: the file went away, or became shorter, since it was announced.
    """
    try:
        file = await asyncio.to_thread(source.path.open, "rb")
        with file:
            os.lseek(file.fileno(), offset, os.SEEK_SET)
            while offset < source.size:
                chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, source.size - offset))
                if not chunk:
                    raise _unreadable(
                        source.field, source.named, f"it became shorter than {source.size} bytes meanwhile"
                    )
                yield chunk
                offset += len(chunk)
                tell(offset)
    except OSError as error:
        raise _unreadable(source.field, source.named, error.strerror or type(error).__name__) from error


def _unreadable(field: str, path: str, why: str) -> OutputFileUnreadable:
    return OutputFileUnreadable(f"The output field {field} names '{path}', which cannot be read: {why}.")


def _address(file: OutFile, uri: str, size: int) -> dict[str, object]:
    return {"uri": uri, "content_type": file.content_type, "size": size, "filename": file.filename}


def field_name(pointer: str) -> str:
    """A JSON pointer as people write a field: /images/0 -> 'images.0'."""
    return repr(dotted(pointer)) if pointer else "(the output itself)"
