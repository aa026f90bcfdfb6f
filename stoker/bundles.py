"""What a bundle of app code may be, and how one is read: a .tar.gz of plain files whose content is the version's id.

The gateway inspects an upload with this module and the worker unpacks with it, so both refuse the same things:
names that lead out of the folder, links and devices, one name twice, too many files, too many bytes, and streams
that grow out of proportion. Reading is one pass over the stream; what is held in memory is names, hashes and
the one small file that is asked for.
"""

import hashlib
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from stoker.core.errors import CallerError

MAX_FILES: Final = 20_000
MAX_BYTES: Final = 2 * 1024**3
"""Unpacked, unless the settings say otherwise. Weights belong into the app's setup, not into its code."""
MAX_NAME_BYTES: Final = 1024
MAX_RATIO: Final = 200
"""Unpacked to packed. Source code reaches 10, tables of zeros in tests 100, DEFLATE itself ends at 1032."""
RATIO_FREE_BYTES: Final = 16 * 1024**2
"""Below this size no ratio is too high: it does no harm."""
MAX_SECONDS: Final = 120.0
"""For reading one bundle: 2 GiB take some 4 s from the page cache, so this is for slow disks."""
_HEADER_BYTES: Final = 96 * 1024
"""What may stand between two files: padding, one header, and extended headers with a long name."""
_TRAILER_BYTES: Final = 1024 * 1024
"""tar fills its last record up; GNU tar's largest usual record is 512 KiB."""
_CHUNK: Final = 256 * 1024
_PACKED_CHUNK: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
"""zlib's way to ask for one gzip member with its checksum."""


class BadBundle(CallerError):
    """The app's bundle cannot be used."""

    code = "bad_bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a bundle may be, unpacked, and how long reading it may take."""

    max_bytes: int = MAX_BYTES
    max_files: int = MAX_FILES
    max_seconds: float = MAX_SECONDS


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Entry:
    """One file of a bundle; `mode` is 0o755 or 0o644, `sha256` of its bytes in hex."""

    name: str
    mode: int
    sha256: str
    size: int = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a bundle holds. `texts`: the bytes of the files that were asked for."""

    version_id: str
    entries: tuple[Entry, ...]
    texts: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


def version_id_of(entries: list[Entry]) -> str:
    """The id of a version with these files: 64 hex digits, whatever the order, times and owners."""
    digest = hashlib.sha256()
    for entry in sorted(entries):
        digest.update(f"{entry.name}\0{entry.mode:o}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def file_mode(mode: int) -> int:
    """The mode that a version remembers: executable or not."""
    return 0o755 if mode & 0o100 else 0o644


def inspect(
    bundle: Path, limits: Limits = DEFAULT_LIMITS, texts: tuple[str, ...] = (), max_text: int = 256 * 1024
) -> Contents:
    """Read a whole bundle and write nothing.

    Args:
        bundle: the .tar.gz.
        limits: its bounds.
        texts: names of files whose bytes are wanted, each at most `max_text` bytes.

    Raises:
        BadBundle: it is damaged, or holds what no bundle may hold.
    """
    entries: list[Entry] = []
    found: dict[str, bytes] = {}
    for name, mode, size, source in _read(bundle, limits):
        wanted = bytearray() if name in texts else None
        if wanted is not None and size > max_text:
            raise BadBundle(f"The bundle's {name} has {size} bytes; at most {max_text} are read.")
        digest = hashlib.sha256()
        for data in source:
            digest.update(data)
            if wanted is not None:
                wanted += data
        if wanted is not None:
            found[name] = bytes(wanted)
        entries.append(Entry(name=name, mode=mode, sha256=digest.hexdigest(), size=size))
    return Contents(version_id=version_id_of(entries), entries=tuple(entries), texts=found)


def unpack(bundle: Path, target: Path, limits: Limits = DEFAULT_LIMITS) -> str:
    """Unpack a bundle into a new folder; the id of the version that it holds.

    Raises:
        BadBundle: it is damaged, or holds what no bundle may hold. What was written so far stays.
        FileExistsError: `target` exists.
    """
    target.mkdir(parents=True)
    entries: list[Entry] = []
    for name, mode, size, source in _read(bundle, limits):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("xb") as file:
            for data in source:
                digest.update(data)
                file.write(data)
        path.chmod(mode)
        entries.append(Entry(name=name, mode=mode, sha256=digest.hexdigest(), size=size))
    return version_id_of(entries)


_File = tuple[str, int, int, Iterator[bytes]]


def _read(bundle: Path, limits: Limits) -> Iterator[_File]:
    """(name, mode, size, data) of each file in order; the data must be read before the next one."""
    try:
        with bundle.open("rb") as raw:
            stream = _Unpacked(raw, limits)
            # Only what a tar reader asks of a stream without positions is there.
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", errorlevel=2) as archive:
                yield from _files(archive, stream, limits)
            stream.drain()
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        raise BadBundle(f"The app's bundle cannot be unpacked: {error}") from error


def _files(archive: tarfile.TarFile, stream: "_Unpacked", limits: Limits) -> Iterator[_File]:
    seen = _Names()
    total = 0
    for count in range(1, limits.max_files + 2):
        stream.allow(_HEADER_BYTES)
        entry = archive.next()
        if entry is None:
            return
        cast("Any", archive).members.clear()  # what was read is not asked for again, and may be much
        if count > limits.max_files:
            raise BadBundle(f"The bundle holds more than {limits.max_files} files and folders.")
        name = _name_of(entry)
        if entry.isdir():
            continue  # folders come with their files; an empty one is no content
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
            raise BadBundle(f"The bundle holds {entry.name!r}, which is neither a plain file nor a folder.")
        seen.add(name)
        total += entry.size
        if entry.size < 0 or total > limits.max_bytes:
            raise BadBundle(f"The bundle holds more than {limits.max_bytes} bytes unpacked (max_app_bytes).")
        stream.allow(entry.size + _HEADER_BYTES)
        yield name, file_mode(entry.mode), entry.size, _data(archive, entry)


def _data(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    source = archive.extractfile(entry)
    left = entry.size
    while source is not None and left:
        data = source.read(min(left, _CHUNK))
        if not data:
            raise EOFError("it ends in the middle of a file")
        left -= len(data)
        yield data


def _name_of(entry: tarfile.TarInfo) -> str:
    """The entry's name without `.` parts.

    Raises:
        BadBundle: it leads out of the folder, or is none.
    """
    name = entry.name
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or (not path.parts and not entry.isdir()):
        raise BadBundle(f"The bundle holds the path {name!r}, which leads out of its folder.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadBundle(f"The bundle holds the path {name!r}, which is not UTF-8.") from None
    if size > MAX_NAME_BYTES:
        raise BadBundle(
            f"The bundle holds a path of {size} bytes ({name[:60]!r}...); at most {MAX_NAME_BYTES}."
        )
    return str(path)


class _Names:
    """The names of a bundle: each once, and none below a file."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str) -> None:
        folders = [str(parent) for parent in PurePosixPath(name).parents if parent.parts]
        if name in self._files:
            raise BadBundle(f"The bundle holds {name!r} twice.")
        if name in self._folders or not self._files.isdisjoint(folders):
            raise BadBundle(f"The bundle holds {name!r} as a file and as a folder.")
        self._files.add(name)
        self._folders.update(folders)


class _Unpacked:
    """The decompressed stream of a bundle; gives no more than `allow` says, in proportion, and in time."""

    def __init__(self, raw: IO[bytes], limits: Limits) -> None:
        self._raw = raw
        self._inflate = zlib.decompressobj(_GZIP)
        self._taken = 0
        self._given = 0
        self._allowed = 0
        self._ends = time.monotonic() + limits.max_seconds
        self._max_seconds = limits.max_seconds
        self.allow(_HEADER_BYTES)

    def allow(self, size: int) -> None:
        """Let the next `size` bytes through, and what the reader looks ahead."""
        self._allowed = self._given + size + tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end.

        Raises:
            BadBundle: more than was allowed, out of proportion, or too slow.
            EOFError: the stream is cut off.
        """
        parts: list[bytes] = []
        missing = size
        while missing and not self._inflate.eof:
            if time.monotonic() > self._ends:
                raise BadBundle(f"Reading the bundle took longer than {self._max_seconds:g} s.")
            packed = self._packed()
            data = self._inflate.decompress(packed, missing)
            if not (packed or data or self._inflate.eof):
                raise EOFError("it ends too early")
            missing -= len(data)
            parts.append(data)
        self._given += size - missing
        if self._given > self._allowed:
            raise BadBundle("The bundle's headers are larger than any file name needs.")
        if self._given > RATIO_FREE_BYTES and self._given > MAX_RATIO * self._taken:
            raise BadBundle(f"The bundle grows to more than {MAX_RATIO} times its size when it is unpacked.")
        return b"".join(parts)

    def drain(self) -> None:
        """Read to the end, so that the checksum is looked at.

        Raises:
            BadBundle: something follows the archive.
        """
        self.allow(_TRAILER_BYTES)
        while data := self.read(_CHUNK):
            if data.strip(b"\0"):
                raise BadBundle("The bundle holds data after its end.")
        if self._inflate.unused_data or self._raw.read(1):
            raise BadBundle("The bundle holds data after its end.")

    def _packed(self) -> bytes:
        if tail := self._inflate.unconsumed_tail:
            return tail
        packed = self._raw.read(_PACKED_CHUNK)
        self._taken += len(packed)
        return packed
