"""App folders as bundles: one .tar.gz whose content hash is the version's id; unpacked only if it is harmless.

The same files give the same id, whatever their times, owners and order. Symbolic links are followed: apps share
helpers by linking to files beside their folder.
"""

import gzip
import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

from stoker.core.errors import CallerError

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
"""Never part of a version: caches, environments, and files that hold secrets by custom."""
MAX_FILES: Final = 20_000
MAX_BYTES: Final = 2 * 1024**3
"""Unpacked. Weights belong into the app's setup; a bundle above this is a mistake or an attack."""
_CHUNK: Final = 1024 * 1024


class BadBundle(CallerError):
    """The app's bundle cannot be used."""

    code = "bad_bundle"


def pack(folder: Path) -> tuple[Path, str]:
    """Pack an app's folder.

    Returns:
        A new file in the temporary directory, to be removed by the caller, and the version's id (64 hex digits).

    Raises:
        BadBundle: a file is no file, links go in a circle, or there is too much.
    """
    files = sorted(_files(folder), key=lambda entry: entry[0])
    handle, name = tempfile.mkstemp(prefix="stoker-bundle-", suffix=".tar.gz")
    target = Path(name)
    try:
        with os.fdopen(handle, "wb") as raw:
            version_id = _write(raw, files)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target, version_id


def unpack(bundle: Path, target: Path) -> None:
    """Unpack a bundle into a new folder.

    Raises:
        BadBundle: it is damaged, too large, or holds anything but files and folders below `target`.
    """
    target.mkdir(parents=True)
    try:
        with tarfile.open(bundle, "r:gz") as archive:
            _extract(archive, target)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, OSError) as error:
        raise BadBundle(f"The app's bundle cannot be unpacked: {error}") from error


def _write(raw: IO[bytes], files: list[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    with (
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=cast("IO[bytes]", packed), mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files:
            with path.open("rb") as source:
                facts = os.fstat(source.fileno())
                entry = tarfile.TarInfo(name)
                entry.size = facts.st_size
                entry.mode = 0o755 if facts.st_mode & 0o100 else 0o644
                archive.addfile(entry, source)
            digest.update(f"{name}\0{entry.mode:o}\0{_hash_of(path)}\n".encode())
    return digest.hexdigest()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name in the bundle, path) of each file that is part of the app."""
    patterns = (*ALWAYS_IGNORED, *_read_ignore(folder / IGNORE_FILE))
    size = 0
    for count, (name, path) in enumerate(_walk(folder, "", patterns, ()), start=1):
        size += path.stat().st_size
        if count > MAX_FILES or size > MAX_BYTES:
            raise BadBundle(
                f"'{folder}' holds more than {MAX_FILES} files or {MAX_BYTES // 1024**3} GiB; "
                f"name what is not part of the app in {IGNORE_FILE}"
            )
        yield name, path


def _walk(
    folder: Path, prefix: str, patterns: tuple[str, ...], above: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    real = os.path.realpath(folder)
    if real in above:
        raise BadBundle(f"'{folder}' is a link to a folder that contains it")
    for entry in sorted(folder.iterdir()):
        name = prefix + entry.name
        if is_ignored(name, patterns, is_dir=entry.is_dir()):
            continue
        if entry.is_dir():
            yield from _walk(entry, f"{name}/", patterns, (*above, real))
        elif entry.is_file():
            yield name, entry
        elif entry.is_symlink():
            raise BadBundle(f"'{entry}' is a link to '{entry.readlink()}', which does not exist")
        else:
            raise BadBundle(f"'{entry}' is neither a file nor a folder")


def is_ignored(name: str, patterns: tuple[str, ...], *, is_dir: bool) -> bool:
    """Whether a gitignore-like pattern takes `name` (relative, with slashes) out; the last match decides."""
    ignored = False
    for pattern in patterns:
        negated, rule = pattern.startswith("!"), pattern.removeprefix("!")
        if rule.endswith("/") and not is_dir:
            continue
        rule = rule.rstrip("/")
        subject = name if "/" in rule else name.rsplit("/", 1)[-1]  # a rule with a slash begins at the top
        if re.fullmatch(_as_regex(rule.lstrip("/")), subject):
            ignored = not negated
    return ignored


def _as_regex(rule: str) -> str:
    """`*` and `?` stay within one folder, `**` does not."""
    found = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]/]+\])", rule)
    return "".join(
        found.get(part)
        or (part.replace("[!", "[^") if part[:1] == "[" and part[-1:] == "]" else re.escape(part))
        for part in parts
    )


def _read_ignore(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _extract(archive: tarfile.TarFile, target: Path) -> None:
    """Write plain files and folders; modes are ours, owners and times are not taken over."""
    size = 0
    for count, entry in enumerate(archive, start=1):
        size += entry.size
        if count > MAX_FILES or size > MAX_BYTES:
            raise BadBundle(
                f"The bundle holds more than {MAX_FILES} files or {MAX_BYTES // 1024**3} GiB unpacked."
            )
        path = _place(entry.name, target)
        if entry.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        source = archive.extractfile(entry) if entry.isreg() else None
        if source is None:
            raise BadBundle(f"The bundle holds {entry.name!r}, which is neither a file nor a folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with source, path.open("xb") as file:
            while data := source.read(_CHUNK):
                file.write(data)
        path.chmod(0o755 if entry.mode & 0o100 else 0o644)


def _place(name: str, target: Path) -> Path:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise BadBundle(f"The bundle holds the path {name!r}, which leads out of its folder.")
    return target.joinpath(*parts)
