"""Environments of apps: one per set of requirements, shared by all versions that have the same set.

    check packages.txt > choose the interpreter > look on the shelf > build (uv or npm)

An environment is complete or absent; when it is there, nothing is started and only files are looked at. Who
gets one holds it, and closes it after use: nobody removes it before.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker.manifest import Manifest
from stoker.settings import WorkerSettings
from stoker_worker import nodes, pythons, requirements, system_packages
from stoker_worker.build_errors import may_pass
from stoker_worker.installer import Step, StepFailed, run_steps
from stoker_worker.logs import OnLine
from stoker_worker.procs import clean_environment
from stoker_worker.pythons import PythonMissing
from stoker_worker.shelf import Shelf, Site, Use
from stoker_worker.threads import unbroken

_FORMAT: Final = "2"  # a change of how environments are built makes all of them new
_INSTALLERS: Final = ("UV_", "PIP_", "NPM_CONFIG_", "npm_config_")
"""Variables of the installers: they may hold the password of a package index."""
_SOURCES: Final = "source"
"""Folder of an environment with copies of what is installed in place: the app's own folder may go earlier."""
_NAMED: Final = r"(?<![\w-]){}(?![\w-])"


class BuildFailed(StokerError):
    """The app's environment cannot be built."""

    code = "environment_failed"


class BuildHindered(BuildFailed):
    """The app's environment cannot be built here and now: no network, or a full disk."""

    retryable = True


def build_error(text: str) -> BuildFailed:
    """The error of a build that says `text`, of another task's build too."""
    return BuildHindered(text) if may_pass(text) else BuildFailed(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the operator decided; the settings of the same names say more."""

    python_fetch: bool = True
    python_fallback: bool = False
    node_fallback: bool = False
    system_packages: tuple[str, ...] = ()
    package_indexes: tuple[str, ...] = ()
    prereleases: str = "allow"
    compiled_requirements: Literal["current", "always", "never"] = "current"

    @classmethod
    def of(cls, settings: WorkerSettings) -> "Policy":
        """The policy that the settings of a machine say."""
        return cls(
            python_fetch=settings.python_fetch,
            python_fallback=settings.python_fallback,
            node_fallback=settings.node_fallback,
            system_packages=settings.system_packages,
            package_indexes=settings.package_indexes,
            prereleases=settings.prereleases,
            compiled_requirements=settings.compiled_requirements,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment on disk, in use until `close`.

    `python` is the interpreter: the environment's own Python, or the machine's Node; then `node_env` is the
    folder with node_modules. `notes` are what the log of a task should say.
    """

    key: str
    python: Path
    node_env: Path | None = None
    notes: tuple[str, ...] = ()
    use: Use = field(compare=False, repr=False)

    def close(self) -> None:
        """End the use. May be called twice."""
        self.use.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runtime:
    """An interpreter for an app. `path` is None while nobody needs to know where it is."""

    version: str  # 3.11, or node-22
    path: Path | None
    note: str = ""


class Environments:
    """The environments below one cache directory; several processes may share it."""

    def __init__(self, cache_dir: Path, uv: str, policy: Policy | None = None) -> None:
        self.shelf = Shelf(cache_dir / "envs", is_sound=_is_sound, revive=build_error)
        self._uv = uv
        self._policy = policy or Policy()
        self._nodes: list[nodes.Node] = []
        self._checked: set[tuple[Path, int]] = set()  # packages.txt files that were found to be satisfied

    def keys(self) -> tuple[str, ...]:
        """Keys of what is on disk."""
        return self.shelf.keys()

    def key(self, app_dir: Path, app: Manifest) -> str:
        """The key of an app's environment where the machine has the interpreter that the app asks for.

        Raises:
            UnknownKernel: the app is for nothing that Stoker runs.
        """
        return env_key(app_dir, app, compiled=self._policy.compiled_requirements)

    def find(self, app_dir: Path, app: Manifest) -> Environment | None:
        """The environment of an app, held, if it is there; looks at files only.

        Raises:
            UnknownKernel: the app is for nothing that Stoker runs.
        """
        if not self._is_checked(app_dir):
            return None
        for runtime in self._candidates(app):
            key = self._key(app_dir, app, runtime)
            if (use := self.shelf.use(key)) is not None:
                return _environment(use, runtime)
        return None

    async def ensure(self, app_dir: Path, app: Manifest, on_line: OnLine) -> Environment:
        """The environment of an app, held, built if it is missing.

        Raises:
            BuildFailed: names the requirement, with the installer's essential line and a hint.
            SystemPackagesMissing: names the packages that the machine lacks.
            PythonMissing, NodeMissing: this machine lacks the interpreter.
            UnknownKernel: the app is for nothing that Stoker runs.
        """
        await self._check_packages(app_dir, app, on_line)
        if nodes.is_node(app.kernel) and not self._has_node(app):
            self._nodes = await nodes.find_nodes()
        if (found := self.find(app_dir, app)) is not None:
            return found
        runtime = await self._runtime(app, on_line)
        if runtime.note:
            on_line(LogType.BUILD, runtime.note)

        async def build(site: Site) -> None:
            await self._build(site, runtime, app_dir, app)

        key = self._key(app_dir, app, runtime)
        return _environment(await self.shelf.make(key, app.name, build, on_line), runtime)

    async def _check_packages(self, app_dir: Path, app: Manifest, on_line: OnLine) -> None:
        if self._is_checked(app_dir):
            return
        unsure = await system_packages.check(app_dir, app.name, self._policy.system_packages)
        if unsure:
            text = (
                f"{system_packages.FILE} names {', '.join(unsure)}; whether they are here cannot be checked"
            )
            on_line(LogType.BUILD, text)
        self._checked.add(_packages_id(app_dir))

    def _is_checked(self, app_dir: Path) -> bool:
        return _packages_id(app_dir) in self._checked or not system_packages.packages_of(app_dir)

    def _key(self, app_dir: Path, app: Manifest, runtime: _Runtime) -> str:
        return env_key(app_dir, app, version=runtime.version, compiled=self._policy.compiled_requirements)

    def _candidates(self, app: Manifest) -> Iterator[_Runtime]:
        """Interpreters that an existing environment may have been built with, the best first."""
        if nodes.is_node(app.kernel):
            if self._has_node(app):
                yield self._node(app)
            return
        wanted = pythons.version_of(app.kernel)
        yield _Runtime(version=wanted, path=None)
        if self._policy.python_fallback and (runtime := _nearest_python(wanted)) is not None:
            yield runtime

    async def _runtime(self, app: Manifest, on_line: OnLine) -> _Runtime:
        if nodes.is_node(app.kernel):
            return self._node(app)
        version = pythons.version_of(app.kernel)
        try:
            return _Runtime(version=version, path=pythons.find_python(version))
        except PythonMissing as missing:
            error = missing
        if self._policy.python_fetch:
            try:
                return _Runtime(version=version, path=await pythons.fetch_python(version, self._uv, on_line))
            except PythonMissing as missing:
                error = missing
        if self._policy.python_fallback and (runtime := _nearest_python(version)) is not None:
            return runtime
        raise error

    def _has_node(self, app: Manifest) -> bool:
        """Whether one of the Nodes that were found is for the app, and still there: people install and remove them."""
        with contextlib.suppress(nodes.NodeMissing):
            path = self._node(app).path
            return path is not None and path.exists()
        return False

    def _node(self, app: Manifest) -> _Runtime:
        wanted = nodes.major_of(app.kernel)
        node = nodes.choose(wanted, self._nodes, older=self._policy.node_fallback)
        note = ""
        if node.version[0] != wanted:
            note = (
                f"warning: the app wants Node {wanted}; it gets {node.text}, which is what this machine has"
            )
        return _Runtime(version=f"node-{node.version[0]}", path=node.path, note=note)

    async def _build(self, site: Site, runtime: _Runtime, app_dir: Path, app: Manifest) -> None:
        site.on_line(LogType.BUILD, f"building the environment with {_spoken(runtime.version)}")
        try:
            if nodes.is_node(runtime.version) and runtime.path is not None:
                await self._build_node(site, runtime.path, app_dir, app)
            else:
                await self._build_python(site, runtime, app_dir, app)
        except StepFailed as failure:
            raise build_error(_failure(failure, app, app_dir)) from failure
        except OSError as error:  # no uv, or a full disk
            raise BuildHindered(f"The environment of {app.name!r} cannot be built: {error}") from error
        if not _is_sound(site.folder):
            raise BuildFailed(
                f"The environment of {app.name!r} was built with {runtime.path}, which does not exist."
            )
        site.on_line(LogType.BUILD, "the environment is ready")

    async def _build_python(self, site: Site, runtime: _Runtime, app_dir: Path, app: Manifest) -> None:
        env = self._install_environment(app)
        planned = requirements.steps_of(app_dir, runtime.version, self._policy.compiled_requirements)
        venv = (self._uv, "venv", "--quiet", "--no-project", "--relocatable", "--python", str(runtime.path))
        await run_steps(
            [Step(title="the environment", command=(*venv, site.folder), cwd=app_dir, env=env)],
            site.on_line,
            site.lock,
        )
        sources = await unbroken(_copy_sources, app_dir, planned, site.folder / _SOURCES)
        cwd = sources or app_dir
        options = ("--python", site.folder / "bin" / "python", "--index-strategy", "unsafe-best-match")
        pip = (self._uv, "pip", "install", *options, "--prerelease", self._policy.prereleases)
        steps = []
        for step in planned:
            listed = ("--requirement", step.file.relative_to(app_dir)) if step.file is not None else ()
            command = (*pip, *listed, *step.added)
            steps.append(Step(title=step.title, command=command, cwd=cwd, env=env))
        await run_steps(steps, site.on_line, site.lock)

    async def _build_node(self, site: Site, node: Path, app_dir: Path, app: Manifest) -> None:
        site.folder.mkdir()
        await unbroken(nodes.copy_sources, app_dir, site.folder)
        env = self._install_environment(app)
        env["PATH"] = f"{node.parent}{os.pathsep}{env['PATH']}"
        options = ("--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress")
        command = (nodes.npm_of(node), "install", *options)
        await run_steps(
            [Step(title=nodes.FILES[0], command=command, cwd=site.folder, env=env)], site.on_line, site.lock
        )

    def _install_environment(self, app: Manifest) -> dict[str, str]:
        """Variables of an installer: the machine's, the app's (compilers read CMAKE_ARGS and the like), ours."""
        env = clean_environment(os.environ, keep=_INSTALLERS) | app.env
        env |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
        indexes = (env.get("UV_INDEX", ""), *self._policy.package_indexes)
        if listed := " ".join(index for index in indexes if index):
            env["UV_INDEX"] = (
                listed  # not an argument: addresses may hold passwords, and all users see arguments
            )
        return env


def env_key(app_dir: Path, app: Manifest, *, version: str = "", compiled: str = "current") -> str:
    """What the environment of an app depends on, as a digest: interpreter, platform, requirements, variables.

    Args:
        app_dir: the app's folder; what its requirement files include and name there counts by content.
        app: its manifest.
        version: the interpreter that it gets; "" = the one that it asks for.
        compiled: as in `requirements.steps_of`.

    Raises:
        UnknownKernel: the app is for nothing that Stoker runs.
    """
    if not version:
        node = nodes.is_node(app.kernel)
        version = f"node-{nodes.major_of(app.kernel)}" if node else pythons.version_of(app.kernel)
    digest = hashlib.sha256()
    facts = (_FORMAT, version, platform.system(), platform.machine())
    digest.update("\0".join(facts).encode())
    for name, value in sorted(app.env.items()):
        digest.update(f"\0env {name}={value}".encode())
    for step, name, content in _contents(app_dir, version, compiled):
        digest.update(f"\0{step} {name} {len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


def _contents(app_dir: Path, version: str, compiled: str) -> Iterator[tuple[int, str, bytes]]:
    if nodes.is_node(version):
        yield from ((0, name, content) for name, content in nodes.contents_of(app_dir))
        return
    for number, step in enumerate(requirements.steps_of(app_dir, version, compiled)):
        yield number, "added", " ".join(step.added).encode()
        if step.file is not None:
            for name, content in requirements.contents_of(app_dir, step.file):
                yield number, name.removesuffix(requirements.COMPILED), content


def _copy_sources(app_dir: Path, planned: list[requirements.Step], target: Path) -> Path | None:
    """Copy what is installed in place, and the requirement files that name it; None where nothing is."""
    files = [step.file for step in planned if step.file is not None]
    folders = requirements.editable_folders(app_dir, files)
    if not folders:
        return None
    for folder in folders:
        shutil.copytree(app_dir / folder, target / folder, dirs_exist_ok=True)
    for file in files:
        for included in requirements.included_files(file):
            if included.is_relative_to(app_dir):
                copy = target / included.relative_to(app_dir)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(included, copy)
    return target


def _environment(use: Use, runtime: _Runtime) -> Environment:
    notes = (runtime.note,) if runtime.note else ()
    if nodes.is_node(runtime.version) and runtime.path is not None:
        return Environment(key=use.key, python=runtime.path, node_env=use.folder, notes=notes, use=use)
    return Environment(key=use.key, python=use.folder / "bin" / "python", notes=notes, use=use)


def _nearest_python(wanted: str) -> _Runtime | None:
    version = pythons.nearest(wanted, pythons.found_versions())
    if version is None:
        return None
    note = f"warning: the app wants Python {wanted}; it gets {version}, the nearest that this machine has"
    return _Runtime(
        version=version, path=pythons.find_python(version), note=note if version != wanted else ""
    )


def _failure(failure: StepFailed, app: Manifest, app_dir: Path) -> str:
    lines = (line for name in requirements.FILES for line in requirements.lines_of(app_dir / name))
    blamed = next((line for line in lines if _is_named(line, failure.essential)), "")
    about = f" The requirement {blamed!r} is the one that failed." if blamed else ""
    said = failure.essential.rstrip(".")
    text = f"The environment of {app.name!r} cannot be built ({failure.step}).{about} {said}. {failure.hint}"
    return text.strip()


def _is_named(requirement: str, text: str) -> bool:
    name = requirements.package_of(requirement)
    return bool(name) and re.search(_NAMED.format(re.escape(name)), text.lower()) is not None


def _is_sound(folder: Path) -> bool:
    """Whether an environment still has its interpreter, or is one for Node."""
    return (folder / "bin" / "python").exists() or (folder / nodes.FILES[0]).exists()


def _packages_id(app_dir: Path) -> tuple[Path, int]:
    path = app_dir / system_packages.FILE
    return path, path.stat().st_mtime_ns if path.exists() else 0


def _spoken(version: str) -> str:
    return version.replace("node-", "Node ") if nodes.is_node(version) else f"Python {version}"
