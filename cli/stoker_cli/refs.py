"""Finds what an app reference names, by the public API."""

from typing import Any

from stoker.core.refs import AppRef, parse_ref
from stoker_cli.api import Api
from stoker_cli.output import CommandFailed, ExitCode

App = dict[str, Any]
Version = dict[str, Any]


async def find_app(api: Api, text: str) -> tuple[AppRef, App]:
    """The app of `name`, `namespace/name` or an id, each with `@version` and `:function` if wanted.

    Raises:
        InvalidRequest: the text is no reference.
        ApiError: no such app; the text names candidates.
    """
    ref = parse_ref(text)
    path = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    app: App = await api.get(f"/apps/{path}")
    return ref, app


async def find_version(api: Api, text: str) -> tuple[AppRef, App, Version]:
    """The same with its version: the one in the reference, else the current one.

    Raises:
        CommandFailed: the app has no current version.
        ApiError: no such app or version.
    """
    ref, app = await find_app(api, text)
    version_id = ref.version or app.get("version_id")
    if not version_id:
        raise CommandFailed(
            f"{name_of(app)} has no current version",
            ExitCode.USAGE,
            f"choose one: stoker apps versions {name_of(app)}, then stoker apps use {name_of(app)}@VERSION",
        )
    version: Version = await api.get(f"/apps/{app['id']}/versions/{version_id}")
    return ref, app, version


def name_of(app: App) -> str:
    return f"{app.get('namespace')}/{app.get('name')}"
