"""A shelf of folders under the key of their content: environments of apps, and the code of app versions.

A folder is complete or absent, for every process that shares the shelf:

    <key>/          the folder; written in place, because packages remember where they were installed
    .<key>.json     its size; it appears when the folder is complete, its time is that of the last use
    .<key>.lock     locked by who builds or removes the folder, and by all that a build has started
    .<key>.log      the lines of the last build, for those who wait for it
    .<key>.failed   why the last build failed

Who uses a folder holds a shared lock on its `.json`; the kernel frees the locks of a process that dies.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker_worker.logs import OnLine
from stoker_worker.threads import unbroken

LOCK_POLL_S: Final = 0.1
"""Between two looks of one who waits for a build; the kernel tells nobody of a lock that is free."""
_BLOCK_BYTES: Final = 512  # the unit of st_blocks, stat(2)
_PARTS: Final = (".json", ".new", ".log", ".failed", ".part")

Build = Callable[["Site"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a build happens.

    `folder` does not exist yet; `part` is a file for what is fetched; `lock` is a descriptor that whatever the
    build starts should inherit, so that nobody builds here again before all of it has ended.
    """

    folder: Path
    part: Path
    lock: int
    on_line: OnLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A complete folder. `size_bytes` was measured when it was built."""

    shelf: "Shelf"
    key: str
    size_bytes: int
    used_ns: int


class Use:
    """A folder in use: nobody removes it before `close`."""

    def __init__(self, key: str, folder: Path, descriptor: int) -> None:
        self.key = key
        self.folder = folder
        self._descriptor = descriptor

    def share(self) -> "Use":
        """Another use of the same folder, with an end of its own."""
        return Use(self.key, self.folder, os.dup(self._descriptor))

    def close(self) -> None:
        """End the use; it counts as the last one. May be called twice."""
        if self._descriptor >= 0:
            _touch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class Shelf:
    """The folders below one path. Several processes may share it.

    Args:
        path: the shelf's own folder; made when it is needed.
        is_sound: whether a complete folder can still be used; one that cannot is built again.
        revive: makes the error of a build that another task did, of its message; None = failures are not
            shared, because another task may succeed with the same key.
    """

    def __init__(
        self,
        path: Path,
        *,
        is_sound: Callable[[Path], bool] = Path.is_dir,
        revive: Callable[[str], StokerError] | None = None,
    ) -> None:
        self.path = path
        self._is_sound = is_sound
        self._revive = revive

    def keys(self) -> tuple[str, ...]:
        """Keys of the complete folders."""
        return tuple(sorted(key for key in self._known(".json") if self.find(key)))

    def find(self, key: str) -> Path | None:
        """The folder if it is complete. It may be removed at any time: who needs it calls `use`."""
        folder = self.path / key
        return folder if self._part(key, ".json").exists() and self._is_sound(folder) else None

    def use(self, key: str) -> Use | None:
        """Hold a folder; None when it is absent, or is being removed now."""
        descriptor = _try_lock(self._part(key, ".json"), shared=True, create=False)
        if descriptor is None:
            return None
        folder = self.path / key
        if not self._is_sound(folder):
            os.close(descriptor)
            return None
        _touch(descriptor)
        return Use(key, folder, descriptor)

    async def make(self, key: str, who: str, build: Build, on_line: OnLine) -> Use:
        """Hold a folder, and build it first when it is absent; of those who want it at once, one builds.

        The others see its lines from the first one on, and get its error.

        Args:
            key: the folder's.
            who: tells others who builds.
            build: writes the folder; whatever it leaves when it raises is removed, so nothing of it, a thread
                neither, may go on then.
            on_line: gets the lines of the build.

        Raises:
            Exception: what `build` raises, here or in the process that we waited for.
        """
        waiting = _Waiting(self, key, on_line)
        while True:
            if (held := self.use(key)) is not None:
                waiting.follow()
                return held
            self.path.mkdir(parents=True, exist_ok=True)
            lock = _try_lock(self._part(key, ".lock"))
            if lock is None:
                waiting.begin()
                waiting.follow()
                await asyncio.sleep(LOCK_POLL_S)  # bounded by the caller's time limit
                continue
            try:
                if self.find(key) is None:  # else another was faster
                    waiting.fail_with_it(self._revive)
                    await self._build(key, who, build, on_line, lock)
                    if (held := self.use(key)) is None:
                        raise StokerError(f"'{self.path / key}' was built, but it cannot be used.")
                    return held
            finally:
                os.close(lock)

    def entries(self) -> list[Entry]:
        """All complete folders with their size and last use."""
        return [entry for key in self._known(".json") if (entry := self._entry(key)) is not None]

    def evict(self, key: str) -> bool:
        """Remove a folder; False when somebody uses or builds it."""
        with self._alone(key) as alone:
            facts = self._part(key, ".json")
            descriptor = _try_lock(facts, create=False) if alone else None
            if descriptor is None:
                return False
            try:
                facts.unlink()  # from now on it is half a folder, also if we die here
                self._clear(key)
            finally:
                os.close(descriptor)
            return True

    def adopt(self, key: str) -> None:
        """Measure a folder and declare it complete; for who has filled it, and knows that nobody else does."""
        facts = self._part(key, ".new")
        facts.write_text(json.dumps({"size_bytes": size_of(self.path / key)}), encoding="utf-8")
        facts.rename(self._part(key, ".json"))

    def sweep(self) -> list[str]:
        """Remove what builds left half done that nobody works on any more; their keys."""
        swept = []
        for key in self._known(""):
            with self._alone(key) as alone:
                if alone and not self._part(key, ".json").exists():
                    if (self.path / key).exists():
                        swept.append(key)
                    self._clear(key)
        return swept

    async def _build(self, key: str, who: str, build: Build, on_line: OnLine, lock: int) -> None:
        folder = self.path / key
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} for {who}".encode(), 0)
        await unbroken(self._clear, key)
        with self._part(key, ".log").open("x", encoding="utf-8", errors="replace") as log:
            site = Site(folder=folder, part=self._part(key, ".part"), lock=lock, on_line=_both(on_line, log))
            try:
                await build(site)
                await unbroken(self.adopt, key)
            except BaseException as error:
                if not self._part(
                    key, ".json"
                ).exists():  # else it is complete, and others may use it already
                    await unbroken(shutil.rmtree, folder, ignore_errors=True)
                if self._revive is not None and isinstance(error, StokerError):
                    self._part(key, ".failed").write_text(error.message, encoding="utf-8")
                raise
            finally:
                site.part.unlink(missing_ok=True)

    def _entry(self, key: str) -> Entry | None:
        facts = self._part(key, ".json")
        try:
            size = int(json.loads(facts.read_text(encoding="utf-8"))["size_bytes"])
            return Entry(shelf=self, key=key, size_bytes=size, used_ns=facts.stat().st_mtime_ns)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return Entry(shelf=self, key=key, size_bytes=0, used_ns=0)  # damaged: the first to go

    def _known(self, suffix: str) -> set[str]:
        """Keys of all names here that end with `suffix`; "" = any name."""
        if not self.path.is_dir():
            return set()
        names = [path.name for path in self.path.iterdir()]
        if suffix:
            return {name[1 : -len(suffix)] for name in names if name.endswith(suffix)}
        return {name[1:].rsplit(".", 1)[0] if name.startswith(".") else name for name in names}

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[bool]:
        """Whether nobody builds or removes `key`; then nobody begins to, within."""
        path = self._part(key, ".lock")
        lock = _try_lock(path)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                path.unlink(missing_ok=True)
                os.close(lock)

    def _clear(self, key: str) -> None:
        shutil.rmtree(self.path / key, ignore_errors=True)
        for suffix in _PARTS:
            self._part(key, suffix).unlink(missing_ok=True)

    def _part(self, key: str, suffix: str) -> Path:
        return self.path / f".{key}{suffix}"


class _Waiting:
    """One who may have to wait for a build of another: tells its lines, and takes its failure over."""

    def __init__(self, shelf: Shelf, key: str, on_line: OnLine) -> None:
        self._on_line = on_line
        self._lock = shelf.path / f".{key}.lock"
        self._log = shelf.path / f".{key}.log"
        self._failed = shelf.path / f".{key}.failed"
        self._known_failure = _identity(self._failed)
        self._waits = False
        self._named = False
        self._file = (0, 0)  # the log that is followed
        self._told = 0  # bytes of it

    def begin(self) -> None:
        """There is a build; say once who does it, as soon as that is known."""
        self._waits = True
        if not self._named and (who := _read(self._lock).decode(errors="replace")):
            self._named = True
            self._on_line(LogType.BUILD, f"waiting for the build by {who}; its lines follow")

    def follow(self) -> None:
        """Tell the lines that came since the last call."""
        if not self._waits:
            return
        if (now := _identity(self._log)) != self._file:
            self._file, self._told = now, 0
        *lines, _ = _read(self._log, self._told).split(b"\n")
        for line in lines:
            self._told += len(line) + 1
            self._on_line(LogType.BUILD, line.decode(errors="replace"))

    def fail_with_it(self, revive: Callable[[str], StokerError] | None) -> None:
        """Raise the failure of the build that we waited for, if it failed."""
        if not self._waits or revive is None or _identity(self._failed) in {(0, 0), self._known_failure}:
            return
        self.follow()
        raise revive(_read(self._failed).decode(errors="replace"))


def size_of(folder: Path) -> int:
    """Bytes of disk below `folder`. A file with several links counts its share: uv links files of its cache."""
    total = 0
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    total += facts.st_blocks * _BLOCK_BYTES
                else:
                    total += facts.st_blocks * _BLOCK_BYTES // facts.st_nlink
    return total


def _both(on_line: OnLine, log: TextIO) -> OnLine:
    def take(kind: LogType, text: str) -> None:
        on_line(kind, text)
        log.write(text.replace("\n", " ") + "\n")
        log.flush()

    return take


def _identity(path: Path) -> tuple[int, int]:
    """Tells whether a file is another one now; (0, 0) = there is none."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return facts.st_ino, facts.st_ctime_ns if path.suffix == ".failed" else 1


def _read(path: Path, offset: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _try_lock(path: Path, *, shared: bool = False, create: bool = True) -> int | None:
    """A descriptor that holds the lock of a file; None when another has it, or there is no file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:  # else it was removed just now
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _touch(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.utime(descriptor)
