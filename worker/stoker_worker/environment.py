"""Virtual environments of apps: one per set of requirements, shared by all versions that have the same set.

An environment is complete or absent: it is built beside its place under a file lock and renamed into it. When
it is there, nothing is started and only files are looked at. uv builds it, with the interpreters of this machine.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker.manifest import Manifest
from stoker_worker.procs import LinePipe, clean_environment, signal_group
from stoker_worker.pythons import find_python, version_of

REQUIREMENT_FILES: Final = ("requirements.txt", "requirements2.txt")
"""Installed one after the other; what the second one says wins."""
SYSTEM_PACKAGES: Final = "packages.txt"
ALWAYS: Final = ("inferencesh", "pydantic")
"""Apps take these for granted; they are added where the requirements do not name them."""
LOCK_POLL_S: Final = 0.1
TOLD_LINES: Final = 8
"""Of the installer's last lines, as many as an error message carries."""
_FORMAT: Final = "1"  # a change of how environments are built makes all of them new
_DPKG: Final = Path("/var/lib/dpkg/info")
_PRE_RELEASES: Final = re.compile(r"pre-?release", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

OnLine = Callable[[LogType, str], None]


class BuildFailed(StokerError):
    """The app's environment cannot be built."""

    code = "environment_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment on disk."""

    key: str
    python: Path


class Environments:
    """The environments below one cache directory; several processes may share it."""

    def __init__(self, cache_dir: Path, uv: str) -> None:
        self._path = cache_dir / "envs"
        self._uv = uv

    def keys(self) -> tuple[str, ...]:
        """Keys of what is on disk."""
        if not self._path.is_dir():
            return ()
        names = (entry.name for entry in self._path.iterdir() if entry.is_dir())
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def find(self, app_dir: Path, app: Manifest) -> Environment | None:
        """The environment of an app if it is there; looks at files only."""
        return self._at(env_key(app_dir, app))

    async def ensure(self, app_dir: Path, app: Manifest, on_line: OnLine) -> Environment:
        """The environment of an app, built if it is missing.

        Raises:
            BuildFailed: names the requirement, with the installer's last lines.
            PythonMissing: this machine lacks the interpreter.
            UnknownKernel: the app is not for Python.
        """
        key = env_key(app_dir, app)
        if found := self._at(key):
            return found
        python = find_python(version_of(app.kernel))
        async with self._locked(key, on_line):
            if found := self._at(key):  # another process was faster
                return found
            await self._build(key, python, app_dir, app, on_line)
        found = self._at(key)
        if found is None:
            raise BuildFailed(f"The environment was built with {python}, but its interpreter does not exist.")
        return found

    def _at(self, key: str) -> Environment | None:
        python = self._path / key / "bin" / "python"
        return Environment(key=key, python=python) if python.exists() else None

    @contextlib.asynccontextmanager
    async def _locked(self, key: str, on_line: OnLine) -> AsyncIterator[None]:
        """Alone, among all processes, with this key; the kernel frees the lock of a process that dies."""
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / f".{key}.lock").open("w") as file:
            told = False
            while not _try_lock(file.fileno()):
                if not told:
                    on_line(LogType.BUILD, "waiting for another task that builds the same environment")
                told = True
                await asyncio.sleep(LOCK_POLL_S)  # bounded by the caller's time limit
            yield

    async def _build(self, key: str, python: Path, app_dir: Path, app: Manifest, on_line: OnLine) -> None:
        for package in missing_packages(app_dir):
            on_line(
                LogType.BUILD, f"{SYSTEM_PACKAGES} names {package}, which is not installed on this machine"
            )
        target = self._path / key
        for left in self._path.glob(f".{key}-*"):  # by a build that was killed: the lock is ours
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=self._path))
        try:
            venv = scratch / "venv"
            env = clean_environment(os.environ) | app.env
            env |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
            installer = _Installer(app, app_dir, env, on_line)
            on_line(LogType.BUILD, f"building the environment with Python {version_of(app.kernel)}")
            await installer.run("the environment", self._uv, *_venv_args(python, venv))
            for title, args in _installs(app_dir, venv):
                await installer.install(title, self._uv, *args)
            await asyncio.to_thread(
                shutil.rmtree, target, ignore_errors=True
            )  # one whose interpreter is gone
            venv.rename(target)
            on_line(LogType.BUILD, "the environment is ready")
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))


def env_key(app_dir: Path, app: Manifest) -> str:
    """What the environment of an app depends on, as a digest: Python, platform, requirements, variables.

    Raises:
        UnknownKernel: the app is not for Python.
    """
    digest = hashlib.sha256()
    facts = (_FORMAT, version_of(app.kernel), platform.system(), platform.machine())
    digest.update("\0".join(facts).encode())
    for name, value in sorted(app.env.items()):
        digest.update(f"\0env {name}={value}".encode())
    for name in REQUIREMENT_FILES:
        for line in _lines(app_dir / name):
            digest.update(f"\0{name} {line}".encode())
            for path in _local_files(app_dir, line):
                digest.update(f"\0{path.relative_to(app_dir)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def missing_packages(app_dir: Path) -> list[str]:
    """System packages that the app names and this machine lacks; none where that cannot be told."""
    if not _DPKG.is_dir():
        return []
    names = [line.split()[0] for line in _lines(app_dir / SYSTEM_PACKAGES)]
    return [name for name in names if not shutil.which(name) and not _is_installed(name)]


def _is_installed(package: str) -> bool:
    return (_DPKG / f"{package}.list").exists() or any(_DPKG.glob(f"{package}:*.list"))


class _Installer:
    """Runs the steps of a build; every line is a log line, the last ones go into the error."""

    def __init__(self, app: Manifest, app_dir: Path, env: dict[str, str], on_line: OnLine) -> None:
        self._app = app
        self._app_dir = app_dir
        self._env = env
        self._on_line = on_line
        self._lines: list[str] = []

    async def install(self, title: str, *command: str) -> None:
        """An install step; with pre-releases where it cannot be solved without, as on the hosted platform.

        Raises:
            BuildFailed: it failed.
        """
        try:
            await self.run(title, *command)
        except BuildFailed:
            if not any(_PRE_RELEASES.search(line) for line in self._lines):
                raise
            self._on_line(LogType.BUILD, "again, with pre-releases allowed")
            await self.run(title, *command, "--prerelease", "allow")

    async def run(self, title: str, *command: str) -> None:
        """One step.

        Raises:
            BuildFailed: it failed.
        """
        lines: list[str] = []
        self._lines = lines

        def take(line: str) -> None:
            lines.append(line)
            del lines[:-100]
            self._on_line(LogType.BUILD, line)

        pipe = LinePipe(take)
        try:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=pipe.write_fd,
                    stderr=pipe.write_fd,
                    cwd=self._app_dir,  # requirements may name folders of the app
                    env=self._env,
                    start_new_session=True,
                )
            finally:
                pipe.started()
            try:
                returncode = await process.wait()
            finally:
                signal_group(process.pid, signal.SIGKILL)  # compilers too, when the build is cancelled
        finally:
            pipe.close()
        if returncode:
            raise BuildFailed(self._failure(title, lines))

    def _failure(self, title: str, lines: list[str]) -> str:
        told = [line.strip() for line in lines if line.strip()][-TOLD_LINES:]
        text = " ".join(told)
        blamed = next((line for line in self._requirements() if _is_named(line, text)), "")
        about = f" The requirement {blamed!r} is the one that failed." if blamed else ""
        return f"The environment of {self._app.name!r} cannot be built ({title}).{about} {text}".strip()

    def _requirements(self) -> Iterator[str]:
        for name in REQUIREMENT_FILES:
            yield from (line for line in _lines(self._app_dir / name) if not line.startswith("-"))


def _venv_args(python: Path, venv: Path) -> tuple[str, ...]:
    return ("venv", "--quiet", "--no-project", "--relocatable", "--python", str(python), str(venv))


def _installs(app_dir: Path, venv: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Title and arguments of each install step; the options are the platform's own."""
    python = str(venv / "bin" / "python")
    options = ("pip", "install", "--python", python, "--index-strategy", "unsafe-best-match")
    first, second = (app_dir / name for name in REQUIREMENT_FILES)
    named = {_package(line) for line in (*_lines(first), *_lines(second))}
    added = tuple(name for name in ALWAYS if name not in named)
    listed = ("--requirement", first.name) if first.is_file() else ()
    if listed or added:
        yield first.name, (*options, *listed, *added)
    if _lines(second):
        yield second.name, (*options, "--requirement", second.name)


def _lines(path: Path) -> list[str]:
    """Lines of a requirements file without comments."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return []
    stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in stripped if line]


def _package(line: str) -> str:
    """The normalised name of a requirement; empty for options and addresses."""
    found = _NAME.match(line)
    if found is None or line.startswith(("git+", "http:", "https:")):
        return ""
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _is_named(requirement: str, text: str) -> bool:
    name = _package(requirement)
    return bool(name) and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text.lower()) is not None


def _local_files(app_dir: Path, line: str) -> Iterator[Path]:
    """Files of the app that a requirement names: `-e ./folder`, `./wheel.whl`, `-r more.txt`."""
    named = line.split(maxsplit=1)[-1] if line.startswith("-") else line
    if not (line.startswith(("-e", "-r", "-c", "--requirement", "--editable")) or named.startswith(".")):
        return
    path = (app_dir / named).resolve()
    if not path.is_relative_to(app_dir.resolve()):
        return
    if path.is_file():
        yield app_dir / named
    elif path.is_dir():
        yield from sorted(entry for entry in (app_dir / named).rglob("*") if _is_source(entry))


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(".pyc")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
