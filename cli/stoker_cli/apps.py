"""`stoker apps`: deploy a folder as an app, list apps, show one."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from stoker_cli.api import connected
from stoker_cli.deploy import Deployed, deploy_folder, find_app_folders
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, items_of, out, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Deploy apps, list them, show one.")


@app.command()
def deploy(
    folder: Annotated[
        Path, typer.Argument(help="Folder with inf.yml and inference.py, or a folder of such folders.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Deploy also what is unchanged.")] = False,
    json: JsonFlag = False,
) -> None:
    """Deploy an app: read its schemas, upload it, make the new version current."""
    folders = find_app_folders(folder)
    if not folders:
        raise CommandFailed(
            f"'{folder}' holds no app: there is no inf.yml in it or one level below", ExitCode.USAGE
        )
    results = asyncio.run(_deploy(folders, quiet=json, force=force))
    if json:
        print_json([result.as_json() for result in results])


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All apps that this key may see."""
    answer = asyncio.run(_call("GET", "/apps"))
    if json:
        print_json(answer)
        return
    print_table(
        "",
        ("app", "version", "category", "description"),
        [
            (
                f"{item.get('namespace')}/{item.get('name')}",
                version_of(item)[:8],
                item.get("category"),
                item.get("description"),
            )
            for item in items_of(answer)
        ],
        empty="no apps yet; deploy one with: stoker apps deploy FOLDER",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="namespace/name, or the app's id.")], json: JsonFlag = False
) -> None:
    """One app with its functions and what they take."""
    answer = asyncio.run(_call("GET", f"/apps/{name}"))
    if json:
        print_json(answer)
        return
    out.print(f"[bold]{escape(str(answer.get('namespace')))}/{escape(str(answer.get('name')))}[/]")
    out.print(escape(str(answer.get("description") or "")))
    version = answer.get("version") or {}
    out.print(f"[dim]version[/] {version_of(answer)[:8]}  [dim]kernel[/] {version.get('kernel', '-')}")
    _print_fields("setup", version.get("setup_schema") or {})
    for function, entry in (version.get("functions") or {}).items():
        _print_fields(f"{function}()", entry.get("input_schema") or {})


def version_of(item: dict[str, Any]) -> str:
    """The id of an app's current version; empty when it has none."""
    version = item.get("version") or {}
    return str(version.get("id") or item.get("version_id") or item.get("current_version_id") or "")


def _print_fields(title: str, schema: dict[str, Any]) -> None:
    required = set(schema.get("required") or [])
    rows = [
        (
            name + (" *" if name in required else ""),
            field.get("type") or field.get("$ref", "").rsplit("/", 1)[-1] or "any",
            field.get("default"),
            field.get("description"),
        )
        for name, field in (schema.get("properties") or {}).items()
    ]
    if rows:
        out.print()
        print_table(title, ("field", "type", "default", "description"), rows, empty="")


async def _deploy(folders: list[Path], *, quiet: bool, force: bool) -> list[Deployed]:
    results = []
    async with connected() as api:
        for folder in folders:
            if not quiet:
                out.print(f"[bold]{escape(str(folder))}[/]")
            show_line = _ignore if quiet else _show_line
            result = await deploy_folder(api, folder, show_line, force=force)
            results.append(result)
            if not quiet:
                word = "deployed" if result.changed else "unchanged"
                out.print(f"  [green]{word}[/] {escape(result.ref)}")
    return results


def _show_line(text: str) -> None:
    out.print(f"  [dim]{escape(text.rstrip())}[/]")


def _ignore(_text: str) -> None:
    """Programs get the result only."""


async def _call(method: str, path: str, **options: Any) -> Any:
    async with connected() as api:
        return await api.call(method, path, **options)
