"""Finds a Node for an app on this machine, and knows what `npm install` needs of the app's folder."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker.core.errors import StokerError

FILES: Final = ("package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc")
"""What `npm install` reads beside the registry."""
OLDEST: Final = (20, 6)
"""The runner's module hooks came with this version."""
VERSION_TIMEOUT_S: Final = 30.0
_KERNEL: Final = re.compile(r"node(?:js)?-?(\d+)?(?:\.\d+)*")


class NodeMissing(StokerError):
    """This machine has no Node that the app can use."""

    code = "node_missing"


class BadPackageJson(StokerError):
    """The app's package.json cannot be used."""

    code = "environment_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A Node on this machine."""

    path: Path
    version: tuple[int, ...]

    @property
    def text(self) -> str:
        """The version as people write it."""
        return ".".join(str(part) for part in self.version)


def is_node(kernel: str) -> bool:
    """Whether a kernel is for Node apps."""
    return _KERNEL.fullmatch(kernel.strip().lower()) is not None


def major_of(kernel: str) -> int:
    """22 of `node-22`; a kernel without a number means the oldest that the runner can use."""
    found = _KERNEL.fullmatch(kernel.strip().lower())
    return int(found[1]) if found and found[1] else OLDEST[0]


async def find_nodes() -> list[Node]:
    """Every Node on the PATH and of nvm, newest first. Asks each for its version."""
    found = [await _version_of(path) for path in _candidates()]
    return sorted((node for node in found if node is not None), key=lambda node: node.version, reverse=True)


def choose(wanted: int, found: Iterable[Node], *, older: bool) -> Node:
    """The Node for an app: of its major version, else the next newer one, else an older one where allowed.

    Raises:
        NodeMissing: names what is there, and what to do.
    """
    usable = sorted((node for node in found if node.version >= OLDEST), key=lambda node: node.version)
    same = [node for node in usable if node.version[0] == wanted]
    newer = [node for node in usable if node.version[0] > wanted]
    below = [node for node in usable if node.version[0] < wanted]
    if same:
        return same[-1]
    if newer:
        return newer[0]
    if older and below:
        return below[-1]
    listed = ", ".join(node.text for node in found) or "none"
    oldest = ".".join(str(part) for part in OLDEST)
    allow = "" if older or not below else ", or allow the older one with the setting node_fallback"
    raise NodeMissing(
        f"The app wants Node {wanted}, which is not on this machine (found: {listed}; {oldest} or newer can be "
        f"used). Install Node {wanted} with npm{allow}."
    )


def npm_of(node: Path) -> str:
    """The npm that belongs to the Node at a path, else the one on the PATH.

    Raises:
        NodeMissing: there is none.
    """
    beside = node.parent / "npm"
    found = str(beside) if beside.exists() else shutil.which("npm")
    if found is None:
        raise NodeMissing(
            f"npm is not on this machine; it installs the packages of Node apps ({node} is there)."
        )
    return found


def contents_of(app_dir: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of all that `npm install` reads in the app's folder."""
    for name in FILES:
        path = app_dir / name
        if path.is_file():
            yield name, path.read_bytes()
    for folder in local_folders(app_dir):
        for path in sorted((app_dir / folder).rglob("*")):
            if path.is_file() and "node_modules" not in path.parts:
                yield str(path.relative_to(app_dir)), path.read_bytes()


def local_folders(app_dir: Path) -> list[Path]:
    """Folders of the app that its package.json names as packages (`file:./lib`), relative to the app's; each once.

    Raises:
        BadPackageJson: it is no JSON object, or names the app's own folder.
    """
    named = [str(value) for value in _dependencies(app_dir).values()]
    texts = [re.sub(r"^(file|link):(//)?", "", text) for text in named if re.match(r"(file|link):|\.", text)]
    inside = app_dir.resolve()
    folders: dict[Path, None] = {}
    for path in (Path(os.path.normpath(text)) for text in texts if not Path(text).is_absolute()):
        real = (app_dir / path).resolve()
        if real == inside:
            raise BadPackageJson("The app's package.json names the app's own folder as a package; remove it.")
        if real.is_dir() and real.is_relative_to(inside):
            folders[path] = None
    return list(folders)


def copy_sources(app_dir: Path, target: Path) -> None:
    """Copy to a folder what `npm install` reads in the app's.

    Raises:
        BadPackageJson: as `local_folders`.
        OSError: the disk is full, for instance.
    """
    for name in FILES:
        if (app_dir / name).is_file():
            shutil.copyfile(app_dir / name, target / name)
    ignore = shutil.ignore_patterns("node_modules")
    for folder in local_folders(app_dir):  # one may lie in another
        shutil.copytree(app_dir / folder, target / folder, ignore=ignore, dirs_exist_ok=True)
    if not (target / FILES[0]).exists():
        (target / FILES[0]).write_text('{"private": true, "type": "module"}\n', encoding="utf-8")


def _dependencies(app_dir: Path) -> dict[str, Any]:
    path = app_dir / FILES[0]
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadPackageJson(f"The app's package.json is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadPackageJson(f"The app's package.json must hold an object, found {type(document).__name__}")
    found: dict[str, Any] = {}
    for group in ("dependencies", "optionalDependencies"):
        entries = document.get(group)
        found |= entries if isinstance(entries, dict) else {}
    return found


def _candidates() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    nvm = Path(os.environ.get("NVM_DIR") or Path.home() / ".nvm")
    paths = [
        *(folder / "node" for folder in folders),
        *sorted((nvm / "versions" / "node").glob("v*/bin/node")),
    ]
    real = {path.resolve(): path for path in reversed(paths) if os.access(path, os.X_OK)}
    return list(reversed(real.values()))


async def _version_of(path: Path) -> Node | None:
    """None for what does not answer as Node does."""
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(VERSION_TIMEOUT_S):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        return None
    found = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)\S*", out.decode(errors="replace").strip())
    return None if found is None else Node(path=path, version=tuple(int(part) for part in found.groups()))
