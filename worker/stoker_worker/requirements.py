"""Reads the requirement files of an app: what is installed in which order, and which files that depends on.

Files are read, nothing is started. Paths in requirement files are relative to the app's folder, as pip has it
for paths given on its command line; `-r` and `-c` are relative to the file that they stand in.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

FILES: Final = ("requirements.txt", "requirements2.txt")
"""Installed one after the other; what the second one says wins."""
ALWAYS: Final = ("inferencesh", "pydantic")
"""Apps take these for granted; they are added where the requirements do not name them."""
COMPILED: Final = ".compiled"
"""What `uv pip compile` made of a requirement file when the app was deployed."""
MAX_INCLUDES: Final = 64
"""Files that one requirement file may include, directly or not; more is a mistake."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ADDRESS: Final = re.compile(r"(?:git|hg|svn|bzr)\+|[a-z]+://")
_INCLUDE: Final = re.compile(r"(?:-r|-c|--requirement|--constraints?)(?:\s+|=|(?=\S))(.+)")
_EDITABLE: Final = re.compile(r"(?:-e|--editable)(?:\s+|=)(.+)")
_COMPILED_FOR: Final = re.compile(r"^#.*--python-version[ =](\d+\.\d+)", re.MULTILINE)
_VIA_FILE: Final = re.compile(r"#\s+(?:via\s+)?-r\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One installation: a requirement file (None where the app has none) and names that are added to it."""

    title: str
    file: Path | None
    added: tuple[str, ...] = ()


def steps_of(app_dir: Path, version: str, compiled: str = "current") -> list[Step]:
    """The installations of an app, in order.

    Args:
        app_dir: the app's folder.
        version: the Python that it gets, as 3.11.
        compiled: whether the compiled files are installed instead: "always" where they exist, "never", or
            "current": those that still say what the requirement file says.
    """
    files = [_chosen(app_dir / name, version, compiled) for name in FILES]
    named = {name for file in files for name in _names(file)}
    added = tuple(name for name in ALWAYS if name not in named)
    steps = []
    for name, file in zip(FILES, files, strict=True):
        more = added if name == FILES[0] else ()
        if file.is_file() and (lines_of(file) or more):
            steps.append(Step(title=file.name, file=file, added=more))
        elif more:
            steps.append(Step(title=name, file=None, added=more))
    return steps


def lines_of(path: Path) -> list[str]:
    """Lines of a requirement file without comments; a line that ends in a backslash goes on in the next."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:  # absent, or a folder: the installer says so where it matters
        return []
    stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in re.sub(r"\\\r?\n", " ", text).splitlines())
    return [line for line in stripped if line]


def contents_of(app_dir: Path, file: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of all that an installation of `file` reads in the app's folder.

    These are the lines of the file, of the files that it includes, and the files of local folders that it names.
    """
    inside = app_dir.resolve()
    for included in _with_includes(file):
        yield _name_of(included, app_dir), "\n".join(lines_of(included)).encode()
        for line in lines_of(included):
            for path in _local_files(app_dir, line):
                if path.resolve().is_relative_to(inside):
                    yield _name_of(path, app_dir), path.read_bytes()


def editable_folders(app_dir: Path, files: Iterable[Path]) -> list[Path]:
    """Folders of the app that are installed in place: `-e ./folder`, relative to the app's folder."""
    inside = app_dir.resolve()
    found = []
    for file in files:
        for line in (line for included in _with_includes(file) for line in lines_of(included)):
            match = _EDITABLE.fullmatch(line)
            folder = _local_path(app_dir, match[1]) if match else None
            if folder is not None and folder.is_dir() and folder.resolve().is_relative_to(inside):
                found.append(folder.resolve().relative_to(inside))
    return found


def included_files(file: Path) -> list[Path]:
    """A requirement file and all that it includes with -r and -c, each once."""
    return list(_with_includes(file))


def package_of(line: str) -> str:
    """The normalised name of a requirement; empty for options and for addresses without a name."""
    found = _NAME.match(line)
    if found is None or _ADDRESS.match(line) or line.startswith(("./", "../", "/")):
        return ""
    return canonicalize_name(found[0])


def is_current(requirements: Path, compiled: Path, version: str) -> bool:
    """Whether a compiled file still says what its requirement file says, by what is in the two.

    It was made for this Python, pins each requirement to a version that the requirement allows, and names the
    file as the source of no other.
    """
    try:
        text = compiled.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    made_for = _COMPILED_FOR.search(text)
    if made_for is not None and made_for[1] != version:
        return False
    pins = _pins(text)
    wanted = _wanted(requirements, version)
    if wanted is None or not pins:
        return False
    direct = {name for name, pin in pins.items() if pin.direct}
    if direct and direct - {requirement_name(one) for one in wanted}:
        return False  # something was taken out of the requirements since
    return all(_is_pinned(one, pins) for one in wanted)


def requirement_name(requirement: Requirement) -> str:
    """Its normalised name."""
    return canonicalize_name(requirement.name)


@dataclass(slots=True)
class _Pin:
    """A line of a compiled file. `direct`: the comment below it names a file as what asks for it."""

    requirement: Requirement
    direct: bool = False


def _pins(text: str) -> dict[str, _Pin]:
    pins: dict[str, _Pin] = {}
    last: _Pin | None = None
    for line in text.splitlines():
        if line[:1].isalnum():
            last = _Pin(requirement) if (requirement := _parse(line)) is not None else None
            if last is not None:
                pins[requirement_name(last.requirement)] = last
        if last is not None and _VIA_FILE.search(line):
            last.direct = True
    return pins


def _wanted(file: Path, version: str) -> list[Requirement] | None:
    """The requirements of a file; None when it holds what cannot be compared (options, folders, addresses)."""
    found = []
    for line in lines_of(file):
        if line.startswith("--"):
            continue  # indexes and the like were known to the compiler too
        requirement = _parse(line)
        if requirement is None:
            return None
        marker = requirement.marker
        if marker is None or marker.evaluate(
            {"python_version": version, "python_full_version": f"{version}.0"}
        ):
            found.append(requirement)
    return found


def _is_pinned(wanted: Requirement, pins: dict[str, _Pin]) -> bool:
    pin = pins.get(requirement_name(wanted))
    if pin is None:
        return False
    if wanted.url or pin.requirement.url:
        return (wanted.url or "").split("@")[0] == (pin.requirement.url or "").split("@")[0]
    versions = [part.version for part in pin.requirement.specifier if part.operator == "=="]
    return len(versions) == 1 and wanted.specifier.contains(versions[0], prereleases=True)


def _parse(line: str) -> Requirement | None:
    text = re.sub(r"(^|\s)#.*|\s--hash=.*|\s*\\$", "", line).strip()
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _chosen(file: Path, version: str, compiled: str) -> Path:
    other = file.with_name(file.name + COMPILED)
    if compiled == "never" or not other.is_file():
        return file
    return other if compiled == "always" or is_current(file, other, version) else file


def _names(file: Path) -> Iterator[str]:
    for included in _with_includes(file):
        yield from (name for line in lines_of(included) if (name := package_of(line)))


def _with_includes(file: Path) -> Iterator[Path]:
    """The file and those that it includes, each once, at most `MAX_INCLUDES`."""
    waiting = [file]
    seen: set[Path] = set()
    while waiting and len(seen) < MAX_INCLUDES:
        path = waiting.pop(0)
        if path.resolve() in seen or not path.is_file():
            continue
        seen.add(path.resolve())
        yield path
        named = [match[1].strip() for line in lines_of(path) if (match := _INCLUDE.fullmatch(line))]
        waiting.extend(path.parent / name for name in named if not _ADDRESS.match(name))


def _local_path(app_dir: Path, text: str) -> Path | None:
    """The path in `./folder`, `./folder[extra]`, `file:./folder`, `name @ ./folder`; None for anything else."""
    text = text.split(";", maxsplit=1)[0].strip()
    text = re.sub(r"^[A-Za-z0-9._-]+(\[[^]]*\])?\s*@\s*", "", text)
    text = re.sub(r"^file:(//)?", "", re.sub(r"\[[^]]*\]$", "", text))
    return None if not text or _ADDRESS.match(text) else app_dir / text


def _local_files(app_dir: Path, line: str) -> Iterator[Path]:
    """Files of the app that a requirement names: `-e ./folder`, `./wheel.whl`, `name @ file:./folder`."""
    match = _EDITABLE.fullmatch(line)
    text = match[1] if match else line
    if text.startswith("-") or not (match or re.search(r"(^|@\s*)(\.|file:)|/|\.whl$", text)):
        return
    path = _local_path(app_dir, text)
    if path is None:
        return
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from sorted(entry for entry in path.rglob("*") if _is_source(entry.relative_to(path), entry))


def _is_source(name: Path, path: Path) -> bool:
    """Whether a file of a local folder counts; not what building and running leave there."""
    made = {"__pycache__", "build", ".git"} & set(name.parts) or any(
        part.endswith(".egg-info") for part in name.parts
    )
    return path.is_file() and not made and not path.name.endswith(".pyc")


def _name_of(path: Path, app_dir: Path) -> str:
    try:
        return str(path.relative_to(app_dir))
    except ValueError:
        return path.name
