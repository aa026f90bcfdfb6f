"""Removes what a run left in the temporary folders, so that the next one starts as the first did.

Only what appeared since the run began goes. What stays: what was there before (setup may have put it there), what
a process of this instance has open, works in or has mapped, and what the app still names: in an attribute of its
App object or in a variable of its environment. Whoever finds too much to look at leaves the rest alone.
"""

import contextlib
import os
import stat
from pathlib import Path

MAX_ENTRIES = 20_000
"""A folder beyond so many entries is not looked into: a look must not take longer than a run."""


class Leftovers:
    """The temporary folders of an instance, between two moments."""

    def __init__(self, roots: "list[str]", skip: "list[str]", *, alone: bool) -> None:
        """`skip`: paths that are none of ours; `alone`: this mount namespace is the instance's own."""
        self._roots = [os.path.realpath(root) for root in roots]
        self._skip = {os.path.realpath(path) for path in skip}
        self._alone = alone
        self._before: set[str] | None = None
        self._closed: set[str] = set()
        self._pending: set[str] = set()  # left by an earlier run, in use when it ended

    def begin(self) -> None:
        """A run begins: what is there now is not its own."""
        found, self._closed = _scan(self._roots, self._skip)
        self._before = found - self._pending

    def remove(self, app: object, results: "list[str]") -> None:
        """A run is over, and its results are stored."""
        if self._before is None:
            return
        before, self._before = self._before, None
        now, _ = _scan(self._roots, self._skip | self._closed)
        fresh = {path for path in now - before if os.path.dirname(path) in before or self._is_root(path)}
        fresh |= now & self._pending
        self._pending = set()
        if not fresh:
            return
        whole = {path for path in _named(app, self._roots) if path not in self._roots}
        exact = _in_use(alone=self._alone)
        for path in sorted(fresh):
            self._clear(path, exact, whole - {os.path.realpath(path) for path in results})

    def trim(self, app: object, folder: str, max_bytes: int) -> None:
        """Remove what the app downloaded and used longest ago, until the rest fits; nothing that is in use or named.

        The SDK's File downloads there without a limit, and touches what it finds there again.
        """
        sizes: dict[str, tuple[float, int]] = {}
        for path in _scan([folder], set())[0] if os.path.isdir(folder) else ():
            with contextlib.suppress(OSError):
                facts = os.lstat(path)
                if stat.S_ISREG(facts.st_mode):
                    sizes[path] = facts.st_mtime, facts.st_size
        excess = sum(size for _, size in sizes.values()) - max_bytes
        if excess <= 0:
            return
        kept = _in_use(alone=self._alone) | _named(app, [os.path.realpath(folder)])
        for path, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
            if excess > 0 and os.path.realpath(path) not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                    excess -= size

    def _is_root(self, path: str) -> bool:
        return os.path.dirname(path) in self._roots

    def _clear(self, path: str, exact: "set[str]", whole: "set[str]") -> bool:
        """Remove a thing but for what is in use; whether it is gone."""
        if path in whole or path in self._skip:
            return False
        if path in exact:
            self._pending.add(path)
            return False
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                gone = [self._clear(entry.path, exact, whole) for entry in list(os.scandir(path))]
                if not all(gone):
                    return False
                os.rmdir(path)
            else:
                os.unlink(path)
            return True
        return False


def _scan(roots: "list[str]", skip: "set[str]") -> "tuple[set[str], set[str]]":
    """All paths below the roots, level by level; and the folders that were not looked into."""
    found: set[str] = set()
    closed: set[str] = set()
    level = list(roots)
    while level:
        below: list[str] = []
        for folder in level:
            if len(found) >= MAX_ENTRIES:
                closed.add(folder)
                continue
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    found.add(entry.path)
                    if entry.path not in skip and entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        level = below
    return found, closed


def _named(app: object, roots: "list[str]") -> "set[str]":
    """Paths below the roots that the app's object or the environment names."""
    values: list[object] = [part for value in os.environ.values() for part in value.split(os.pathsep)]
    for held in (getattr(app, "__dict__", None), getattr(app, "__pydantic_extra__", None)):
        for value in list((held or {}).values()):
            values.append(value)
            if isinstance(value, dict):
                values += list(value.values())
            elif isinstance(value, (list, tuple, set, frozenset)):
                values += list(value)
    prefixes = tuple(f"{root}/" for root in roots)
    texts = (_text_of(value) for value in values)
    paths = {os.path.realpath(text) for text in texts if text.startswith("/")}
    return {path for path in paths if path.startswith(prefixes)}


def _text_of(value: object) -> str:
    """A path as text: itself, or the `name` of a temporary file or folder; "" for anything else."""
    with contextlib.suppress(Exception):  # an attribute may be anything
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str) and type(value).__module__ == "tempfile":
            value = value.name
        if isinstance(value, str) and len(value) < os.pathconf("/", "PC_PATH_MAX"):
            return value
    return ""


def _in_use(*, alone: bool) -> "set[str]":
    """Files that processes of this instance have open, work in, have mapped or listen at."""
    used = set()
    for pid in _own_processes(alone=alone):
        base = f"/proc/{pid}"
        links = [f"{base}/cwd", f"{base}/root", f"{base}/exe"]
        with contextlib.suppress(OSError):
            links += [f"{base}/fd/{name}" for name in os.listdir(f"{base}/fd")]
        for link in links:
            with contextlib.suppress(OSError):
                used.add(os.readlink(link))
        with contextlib.suppress(OSError):
            text = Path(f"{base}/maps").read_text(errors="replace")
            used.update("/" + line.split(" /", 1)[1] for line in text.splitlines() if " /" in line)
    with contextlib.suppress(OSError):
        sockets = Path("/proc/net/unix").read_text(errors="replace").splitlines()
        used.update("/" + line.split(" /", 1)[1] for line in sockets if " /" in line)
    return used


def _own_processes(*, alone: bool) -> "list[str]":
    """Process ids: those of our mount namespace where it is ours alone, else those of our session."""
    mine = _mark("self", alone=alone)
    return [name for name in os.listdir("/proc") if name.isdigit() and _mark(name, alone=alone) == mine]


def _mark(pid: str, *, alone: bool) -> object:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt") if alone else os.getsid(int(pid) if pid != "self" else 0)
    return None
