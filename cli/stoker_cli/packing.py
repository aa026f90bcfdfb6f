"""An app's folder as a bundle: which files are part of it, and one .tar.gz that is the same for the same files.

Symbolic links are followed, since apps share helpers by linking to files beside their folder; they may lead to
anything in the folder's repository (the nearest folder above with `.git`), or in the folder above the app where
there is no repository, and nowhere else: a deploy must not carry off what lies around on a machine.
"""

import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import pathspec

from stoker.bundles import DEFAULT_LIMITS, MAX_NAME_BYTES, BadBundle, Entry, Limits, file_mode, version_id_of

IGNORE_FILE: Final = ".infshignore"
ALWAYS_IGNORED: Final = (
    ".git",
    ".hg",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    "*.pyc",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".DS_Store",
    ".env",
    ".env.*",
)
"""Not part of a version unless the ignore file takes it back with `!`: caches, environments, files of secrets."""
PROBLEMS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a file cannot be part of a bundle; `name` is relative to the folder."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of an app: (name in the bundle, path) by name, and what is wrong."""

    folder: Path
    files: tuple[tuple[str, Path], ...]
    problems: tuple[Problem, ...]
    size: int


def list_files(folder: Path, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """Find the files of an app's folder, and everything that keeps it from being packed.

    Raises:
        OSError: the folder itself cannot be read.
    """
    walk = _Walk(folder, limits)
    files = tuple(sorted(walk.files()))
    return Listing(folder=folder, files=files, problems=tuple(walk.problems), size=walk.size)


def pack(folder: Path, into: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[Path, str]:
    """Pack an app's folder.

    Args:
        folder: the app's.
        into: a folder for the bundle; the caller's, so that the caller knows when it can go.
        limits: of size and count.

    Returns:
        A new file in `into`, and the version's id (64 hex digits).

    Raises:
        BadBundle: names every file that cannot be packed.
    """
    return write(list_files(folder, limits), into)


def write(listing: Listing, into: Path) -> tuple[Path, str]:
    """Pack the files of a listing; see `pack`."""
    if listing.problems:
        shown = "; ".join(f"{problem.name}: {problem.text}" for problem in listing.problems[:PROBLEMS_SHOWN])
        more = len(listing.problems) - PROBLEMS_SHOWN
        raise BadBundle(
            f"'{listing.folder}' cannot be packed: {shown}" + (f"; and {more} more" if more > 0 else "")
        )
    handle, name = tempfile.mkstemp(prefix="bundle-", suffix=".tar.gz", dir=into)
    target = Path(name)
    try:
        with os.fdopen(handle, "wb") as raw:
            version_id = _write(raw, listing.files)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target, version_id


def _write(raw: IO[bytes], files: tuple[tuple[str, Path], ...]) -> str:
    entries = []
    with (
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=cast("IO[bytes]", packed), mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files:
            with path.open("rb") as source:
                facts = os.fstat(source.fileno())
                member = tarfile.TarInfo(name)
                member.size, member.mode = facts.st_size, file_mode(facts.st_mode)
                hashing = _Hashing(source)
                try:
                    archive.addfile(member, cast("IO[bytes]", hashing))
                except OSError as error:
                    raise BadBundle(
                        f"'{path}' changed while it was packed ({error}). Deploy again."
                    ) from error
            entries.append(
                Entry(name=name, mode=member.mode, sha256=hashing.digest.hexdigest(), size=member.size)
            )
    return version_id_of(entries)


class _Hashing:
    """A file that is hashed while it is read, so that hash and archive agree whatever happens to it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


class _Walk:
    """One walk through a folder; collects problems instead of stopping at the first."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._root = boundary(folder)
        self.problems: list[Problem] = []
        self._ignored = self._patterns()
        self._count = 0
        self.size = 0

    def _patterns(self) -> pathspec.GitIgnoreSpec:
        lines = _read_ignore(self._folder / IGNORE_FILE)
        try:
            return pathspec.GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *lines])
        except ValueError as error:
            self._problem(IGNORE_FILE, f"a pattern is not valid: {error}")
            return pathspec.GitIgnoreSpec.from_lines(ALWAYS_IGNORED)

    def files(self) -> Iterator[tuple[str, Path]]:
        """(name, path) of each file; ends where the folder turns out to be too large."""
        for name, path, size in self._walk(self._folder, "", ()):
            self._count += 1
            self.size += size
            if self._count > self._limits.max_files or self.size > self._limits.max_bytes:
                self._problem(
                    "",
                    f"more than {self._limits.max_files} files or {self._limits.max_bytes} bytes; name what "
                    f"is no part of the app in {IGNORE_FILE}, or raise max_app_bytes",
                )
                return
            yield name, path

    def _walk(self, folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, Path, int]]:
        real = os.path.realpath(folder)
        if real in above:
            self._problem(prefix.rstrip("/"), "a link to a folder that contains it")
            return
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            if not prefix:
                raise
            self._problem(prefix, f"cannot be read: {error.strerror}")
            return
        for entry in entries:
            name = prefix + entry.name
            if self._ignored.match_file(f"{name}/" if entry.is_dir() else name):
                continue
            mode = self._mode(name, entry)
            if mode is None:
                continue
            if stat.S_ISDIR(mode.st_mode):
                yield from self._walk(entry, f"{name}/", (*above, real))
            elif stat.S_ISREG(mode.st_mode):
                yield name, entry, mode.st_size
            else:
                self._problem(name, f"a {_kind(mode.st_mode)}, neither a file nor a folder")

    def _mode(self, name: str, entry: Path) -> os.stat_result | None:
        """What an entry is behind its links; None, with a problem, when it cannot be packed."""
        try:
            facts = entry.stat()
            size = len(name.encode())
        except UnicodeEncodeError:
            self._problem(ascii(name), "a name that is not UTF-8")
            return None
        except OSError as error:
            self._problem(name, _why_not(entry, error))
            return None
        if size > MAX_NAME_BYTES:
            self._problem(name[:60], f"a path of {size} bytes; at most {MAX_NAME_BYTES}")
        elif entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(self._root):
            self._problem(
                name,
                f"a link to '{os.path.realpath(entry)}', outside of '{self._root}': copy it into the folder",
            )
        elif not os.access(entry, os.R_OK):
            self._problem(name, "cannot be read: no permission")
        else:
            return facts
        return None

    def _problem(self, name: str, text: str) -> None:
        self.problems.append(Problem(name=name or ".", text=text))


def boundary(folder: Path) -> Path:
    """The folder that links must not leave: the repository of `folder`, else the folder above it."""
    real = Path(os.path.realpath(folder))
    return next((path for path in (real, *real.parents) if (path / ".git").exists()), real.parent)


def _why_not(entry: Path, error: OSError) -> str:
    if not entry.is_symlink():
        return f"cannot be read: {error.strerror}"
    target = entry.readlink()
    if isinstance(error, FileNotFoundError):
        return f"a link to '{target}', which does not exist"
    return f"a link to '{target}', which cannot be followed: {error.strerror}"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFSOCK: "socket",
        stat.S_IFIFO: "named pipe",
        stat.S_IFBLK: "device",
        stat.S_IFCHR: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _read_ignore(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
