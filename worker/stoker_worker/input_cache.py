"""Input files that were fetched, kept for the next task that wants the same: `inputs/` of the cache directory.

An entry is `<key>.json`, which names its data file. It is replaced by a rename, so a reader finds an old entry
or a new one, whole. Its time of modification is that of its last use; when the directory is over its budget, the
entries that were not used for longest go. Runs get copies: an app may change its input, and an eviction takes
nothing from a run. Where the file system can share blocks (XFS, Btrfs), a copy costs nothing.

The methods block; call them beside the event loop.
"""

import contextlib
import errno
import os
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

KEEP_SHARE: Final = 4
"""A file over a quarter of the budget is not kept: it would push out all others."""
LOW_SHARE: Final = 0.9
"""An eviction makes some room, so that not each new file starts one."""
LEFT_OVER_S: Final = 24 * 3600
"""After this nobody writes to a partial file any more: a fetch is bounded by less."""
COPY_BYTES: Final = 64 * 1024 * 1024
_NO_SUPPORT: Final = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})


class Stopped(Exception):
    """A copy was told to stop."""


class Entry(Struct, frozen=True, kw_only=True):
    """A kept file. `checked_ms`: wall clock of the last answer of its server; fresh for `fresh_s` from then."""

    data: str
    size: int
    content_type: str = ""
    etag: str = ""
    modified: str = ""
    checked_ms: int = 0
    fresh_s: float = 0

    def fresh(self, now_ms: float) -> bool:
        """Whether it may serve without a question to its server."""
        return 0 <= now_ms - self.checked_ms < self.fresh_s * 1000


_decode: Final = msgspec.json.Decoder(Entry).decode


class InputCache:
    """The directory. Several daemons may share it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._unseen = max_bytes  # bytes added since the directory was measured: at first it never was
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the directory, readable by its owner alone, and remove what interrupted fetches left."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        kept = {entry.data for _, entry in self._entries()}
        for path in self._folder.iterdir():
            if path.suffix in {".part", ".data", ".new"} and path.name not in kept:
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > LEFT_OVER_S:
                        path.unlink()

    def new_part(self, key: str) -> Path:
        """A path for a file that is being fetched; remove it unless `keep` took it."""
        return self._folder / f"{key}.{secrets.token_hex(8)}.part"

    def takes(self, size: int) -> bool:
        """Whether a file of this size is worth keeping."""
        return size * KEEP_SHARE <= self._max_bytes

    def find(self, key: str) -> Entry | None:
        """The entry of a key, marked as used now; None when there is none, or its data is not as it was."""
        path = self._entry_path(key)
        try:
            entry = _decode(path.read_bytes())
            if (self._folder / entry.data).stat().st_size != entry.size:
                return None
            os.utime(path)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return entry

    def keep(self, key: str, part: Path, entry: Entry) -> Entry:
        """Take a fetched file in, in place of an older one of its key, and make room if it is needed."""
        old = self.find(key)
        data = part.with_suffix(".data")
        part.rename(data)
        kept = msgspec.structs.replace(entry, data=data.name)
        try:
            self.put(key, kept)
        except OSError:  # a full disk: what has no entry would count for nobody
            data.unlink(missing_ok=True)
            raise
        if old is not None:
            (self._folder / old.data).unlink(missing_ok=True)
        self._make_room(entry.size)
        return kept

    def put(self, key: str, entry: Entry) -> None:
        """Write an entry whose data is here."""
        new = self._folder / f"{key}.{secrets.token_hex(8)}.new"
        try:
            new.write_bytes(msgspec.json.encode(entry))
            new.replace(self._entry_path(key))
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def copy(self, entry: Entry, target: Path, stop: threading.Event) -> None:
        """Copy an entry's data to a new file.

        Raises:
            FileNotFoundError: it was evicted meanwhile.
            Stopped: `stop` was set.
            OSError: the disk is full.
        """
        with (self._folder / entry.data).open("rb") as source, target.open("xb") as file:
            copy_bytes(source, file, entry.size, stop)

    def _entry_path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _entries(self) -> list[tuple[Path, Entry]]:
        found = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                found.append((path, _decode(path.read_bytes())))
        return found

    def _make_room(self, added: int) -> None:
        """Evict by last use, when the directory may be over its budget."""
        with self._lock:
            self._unseen += added
            if self._unseen <= self._max_bytes // 10:
                return
            by_use = []
            for path, entry in self._entries():
                with contextlib.suppress(FileNotFoundError):
                    by_use.append((path.stat().st_mtime_ns, path, entry))
            total = sum(entry.size for _, _, entry in by_use)
            self._unseen = 0
            if total <= self._max_bytes:
                return
            for _, path, entry in sorted(by_use, key=lambda item: item[0]):
                if total <= self._max_bytes * LOW_SHARE:
                    return
                path.unlink(missing_ok=True)
                (self._folder / entry.data).unlink(missing_ok=True)
                total -= entry.size


def copy_bytes(source: BinaryIO, target: BinaryIO, size: int, stop: threading.Event) -> None:
    """Copy a file within the kernel, a piece at a time; nothing of it passes through this process.

    Raises:
        Stopped: `stop` was set.
        OSError: the disk is full.
    """
    left = size
    while left:
        if stop.is_set():
            raise Stopped
        try:
            count = os.copy_file_range(source.fileno(), target.fileno(), min(left, COPY_BYTES))
        except OSError as error:
            if error.errno not in _NO_SUPPORT or left != size:
                raise
            shutil.copyfileobj(source, target, 1024 * 1024)
            return
        if not count:
            return
        left -= count


def now_ms() -> int:
    """Wall clock, as entries have it."""
    return int(time.time() * 1000)
