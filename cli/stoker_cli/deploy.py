"""Deploying a folder: pack it, read its schemas in its own environment, upload it, register the version."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker import manifest
from stoker.settings import WorkerSettings, load
from stoker_cli.api import Api, ApiError
from stoker_cli.output import CommandFailed, ExitCode
from stoker_worker import bundles
from stoker_worker.describe import describe
from stoker_worker.environment import Environments, Policy

OnLine = Callable[[str], None]
MANIFEST_NAME: Final = "inf.yml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a deploy left behind. `changed` is False when the server had this very version already."""

    app: str
    version_id: str
    changed: bool
    functions: tuple[str, ...] = ()

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
            "functions": list(self.functions),
        }


def find_app_folders(folder: Path) -> list[Path]:
    """The folder itself if it is an app, else the apps one and two levels below, by name."""
    if (folder / MANIFEST_NAME).is_file():
        return [folder]
    found = {path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{MANIFEST_NAME}")}
    return sorted(found)


async def deploy_folder(
    api: Api, folder: Path, on_line: OnLine, *, force: bool = False, data_dir: Path | None = None
) -> Deployed:
    """Deploy one app and make the version current.

    1. pack  2. stop here if the server's current version is this one  3. environment and schemas
    4. upload the bundle  5. register the version.

    Args:
        api: the gateway.
        folder: holds inf.yml and inference.py.
        on_line: gets what the build prints, line by line.
        force: deploy also what is unchanged.
        data_dir: whose cache of environments to use; None = the one of the settings.

    Raises:
        CommandFailed: the folder is no app, its environment cannot be built, or its code cannot be imported.
        ApiError: the gateway refused the app.
    """
    app = manifest.load(folder)
    namespace = app.namespace or "local"
    bundle, version_id = await asyncio.to_thread(bundles.pack, folder)
    try:
        if not force and await _current_version(api, namespace, app.name) == version_id:
            return Deployed(app=f"{namespace}/{app.name}", version_id=version_id, changed=False)
        settings = load(WorkerSettings, {"data_dir": data_dir})
        environments = Environments(settings.cache_path, find_uv(), Policy.of(settings))
        described = await describe(folder, app, environments, on_line)
        record = await api.upload(bundle, category="app")
        body = {
            "namespace": namespace,
            "name": app.name,
            "description": app.description,
            "category": app.category,
            "images": app.images,
            "version": {
                "id": version_id,
                "checksum": version_id,
                "bundle_file_id": record["id"],
                "kernel": app.kernel,
                "functions": msgspec.to_builtins(described.functions),
                "default_function": app.default_function,
                "setup_schema": described.setup_schema,
                "env": app.env,
                "env_key": environments.key(folder, app),
                "resources": app.resources,
                "secrets": msgspec.to_builtins(app.secrets),
                "integrations": msgspec.to_builtins(app.integrations),
                "metadata": app.metadata,
            },
        }
        await api.post("/apps", body)
    finally:
        bundle.unlink(missing_ok=True)
    return Deployed(
        app=f"{namespace}/{app.name}",
        version_id=version_id,
        changed=True,
        functions=tuple(described.functions),
    )


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


async def _current_version(api: Api, namespace: str, name: str) -> str:
    try:
        answer = await api.get(f"/apps/{namespace}/{name}")
    except ApiError as error:
        if error.status == 404:
            return ""
        raise
    version = answer.get("version") or {}
    return str(version.get("id") or answer.get("version_id") or "")
