"""Deploying a folder: check it, pack it, read its schemas in its own environment, upload it, register the version."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker import manifest
from stoker.bundles import Limits
from stoker.core.errors import StokerError
from stoker.core.refs import parse_ref
from stoker.manifest import FILE_NAME, Manifest
from stoker.settings import WorkerSettings, load
from stoker_cli import packing
from stoker_cli.answers import ApiError
from stoker_cli.api import Api
from stoker_cli.checks import Finding, Report, check_folder
from stoker_cli.output import CommandFailed, ExitCode
from stoker_worker.describe import Description, describe
from stoker_worker.environment import Environments, Policy

OnLine = Callable[[str], None]
DEFAULT_NAMESPACE: Final = "local"
REGISTER_TIMEOUT_S: Final = 180.0
"""The gateway reads the whole bundle before it answers."""


class FolderRefused(CommandFailed):
    """The folder cannot be deployed."""

    def __init__(self, report: Report) -> None:
        lines = "\n".join(f"  {finding}" for finding in report.errors)
        super().__init__(f"'{report.folder}' cannot be deployed:\n{lines}", ExitCode.USAGE)
        self.report = report


class BuildFailure(CommandFailed):
    """The app's environment or its import failed; `log` is what the build printed."""

    def __init__(self, message: str, log: list[str]) -> None:
        super().__init__(message, ExitCode.USAGE)
        self.log = log


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """How to deploy. `name` ("" = that of inf.yml) may have a namespace; `visibility` "" keeps what it is."""

    name: str = ""
    visibility: str = ""
    stage: bool = False
    dry_run: bool = False
    data_dir: Path | None = None
    """Whose cache of environments to use; None = the one of the settings."""


AS_IS: Final = DeployOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a deploy left behind. `changed` is False when the server had this very version already."""

    app: str
    version_id: str
    changed: bool
    current: bool = True
    dry_run: bool = False
    files: int = 0
    size: int = 0
    functions: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = field(default=())

    @property
    def ref(self) -> str:
        """`namespace/name@version`, as clients name it."""
        return f"{self.app}@{self.version_id[:8]}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "app": self.app,
            "version_id": self.version_id,
            "ref": self.ref,
            "changed": self.changed,
            "current": self.current,
            "dry_run": self.dry_run,
            "files": self.files,
            "bytes": self.size,
            "functions": list(self.functions),
            "findings": msgspec.to_builtins(self.warnings),
        }


def find_app_folders(folder: Path) -> list[Path]:
    """The folder itself if it is an app, else the apps one and two levels below, by name.

    Raises:
        CommandFailed: there is none.
    """
    if (folder / FILE_NAME).is_file():
        return [folder]
    found = {path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{FILE_NAME}")}
    if not found:
        why = (
            f"there is no {FILE_NAME} in it or up to two levels below"
            if folder.is_dir()
            else "it is no folder"
        )
        raise CommandFailed(f"'{folder}' holds no app: {why}", ExitCode.USAGE)
    return sorted(found)


def check_names(folders: list[Path]) -> None:
    """Refuse folders of one name: the second would become a version of the first.

    Raises:
        CommandFailed: names them. A folder whose inf.yml cannot be read is left for its own deployment to refuse.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        with contextlib.suppress(StokerError, OSError):
            app = manifest.load(folder)
            found.setdefault(app_name(app, ""), []).append(folder)
    clashes = [
        f"{namespace}/{name} ({', '.join(str(path) for path in paths)})"
        for (namespace, name), paths in found.items()
        if len(paths) > 1
    ]
    if clashes:
        raise CommandFailed(
            f"several folders have one name, so that one would replace the other: {'; '.join(clashes)}. "
            "Deploy each by itself with --name, or rename one in its inf.yml.",
            ExitCode.USAGE,
        )


async def deploy_folder(
    api: Api | None, folder: Path, on_line: OnLine, options: DeployOptions = AS_IS
) -> Deployed:
    """Deploy one app and make the version current.

    1. check  2. pack  3. stop here if the server has this version  4. environment and schemas  5. upload the
    bundle  6. register the version.

    Args:
        api: the gateway; None only for a dry run, which ends after the second step.
        folder: holds inf.yml and inference.py.
        on_line: gets what the build prints, line by line.
        options: name, visibility and so on.

    Raises:
        FolderRefused: the checks found errors; carries them all.
        BuildFailure: the environment cannot be built, or the code cannot be imported.
        ApiError: the gateway refused the app.
    """
    settings = load(WorkerSettings, {"data_dir": options.data_dir})
    limits = Limits(max_bytes=settings.max_app_bytes)
    report = await asyncio.to_thread(check_folder, folder, limits)  # 1
    if report.errors or report.app is None:
        raise FolderRefused(report)
    app = report.app
    namespace, name = app_name(app, options.name)
    with tempfile.TemporaryDirectory(prefix="stoker-deploy-") as scratch:
        bundle, version_id = await asyncio.to_thread(packing.write, report.listing, Path(scratch))  # 2
        result = Deployed(
            app=f"{namespace}/{name}",
            version_id=version_id,
            changed=True,
            current=not options.stage,
            dry_run=options.dry_run,
            files=len(report.listing.files),
            size=report.listing.size,
            warnings=report.warnings,
        )
        if api is None or options.dry_run:
            return result
        known = await _find(api, namespace, name)
        if known is not None and await _has_version(api, known["id"], version_id):  # 3
            return await _use_again(api, known, result, options)
        environments = Environments(settings.cache_path, find_uv(), Policy.of(settings))
        described = await _describe(folder, app, environments, on_line)  # 4
        record = await api.upload(bundle, category="app")  # 5
        body = _registration(app, result, described, str(record["id"]), environments.key(folder, app))
        body["preserve_current_version"] = options.stage
        if visibility := options.visibility or ("public" if app.public and known is None else ""):
            body["visibility"] = visibility
        await api.call("POST", "/apps", json=body, timeout=REGISTER_TIMEOUT_S)  # 6
    return replace(result, functions=tuple(described.functions))


def app_name(app: Manifest, wanted: str) -> tuple[str, str]:
    """Namespace and name to deploy under: the wanted ones, else those of inf.yml.

    Raises:
        InvalidRequest: the wanted name is none.
    """
    if not wanted:
        return app.namespace or DEFAULT_NAMESPACE, app.name
    ref = parse_ref(wanted)
    return ref.namespace or app.namespace or DEFAULT_NAMESPACE, ref.name


async def _use_again(api: Api, known: dict[str, Any], result: Deployed, options: DeployOptions) -> Deployed:
    """The version is there: make it current if it is not, and set the visibility if one is wanted."""
    current = known.get("version_id") == result.version_id
    if not (current or options.stage):
        await api.call("PUT", f"/apps/{known['id']}/versions/{result.version_id}/current")
        current = True
    if options.visibility and options.visibility != known.get("visibility"):
        await api.post(f"/apps/{known['id']}/visibility", {"visibility": options.visibility})
    return replace(result, changed=False, current=current)


async def _describe(folder: Path, app: Manifest, environments: Environments, on_line: OnLine) -> Description:
    log: list[str] = []

    def take(text: str) -> None:
        log.append(text)
        on_line(text)

    try:
        return await describe(folder, app, environments, take)
    except StokerError as error:
        raise BuildFailure(error.message, log) from error


def _registration(
    app: Manifest, result: Deployed, described: Description, file_id: str, env_key: str
) -> dict[str, Any]:
    """The body of POST /apps. What the gateway reads from the bundle itself is declared too: it compares."""
    namespace, name = result.app.split("/", 1)
    return {
        "namespace": namespace,
        "name": name,
        "title": app.title,
        "description": app.description,
        "category": app.category,
        "images": app.images,
        "version": {
            "id": result.version_id,
            "bundle_file_id": file_id,
            "kernel": app.kernel,
            "functions": msgspec.to_builtins(described.functions),
            "setup_schema": described.setup_schema,
            "env": app.env,
            "env_key": env_key,
            "resources": app.resources,
        },
    }


def find_uv() -> str:
    """The `uv` that builds environments: the one installed with Stoker, else the one on the PATH.

    Raises:
        CommandFailed: there is none.
    """
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - a machine may have uv on the PATH only

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        if found := shutil.which("uv"):
            return found
    raise CommandFailed("uv is not installed; install it with: pip install uv", ExitCode.FAILED)


async def _find(api: Api, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = await api.get(f"/apps/{namespace}/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return found


async def _has_version(api: Api, app_id: str, version_id: str) -> bool:
    try:
        await api.get(f"/apps/{app_id}/versions/{version_id}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True
