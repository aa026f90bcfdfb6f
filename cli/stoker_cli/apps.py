"""`stoker apps`: deploy folders as apps, look at them, choose versions, fetch code back, remove."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from stoker import bundles
from stoker.bundles import Limits
from stoker.core.errors import StokerError
from stoker.settings import ClientSettings, load
from stoker_cli import local_apps, pins
from stoker_cli.aliases import alias
from stoker_cli.api import Api, connected
from stoker_cli.deploy import (
    BuildFailure,
    Deployed,
    DeployOptions,
    FolderRefused,
    check_names,
    deploy_folder,
    find_app_folders,
)
from stoker_cli.output import (
    CommandFailed,
    ExitCode,
    JsonFlag,
    err,
    out,
    print_error,
    print_json,
    print_table,
    safe,
)
from stoker_cli.refs import find_app, find_version, name_of
from stoker_cli.sample import sample as sample_of
from stoker_cli.sample import type_of

app = typer.Typer(no_args_is_help=True, help="Deploy apps, look at them, choose their versions.")
app.command("init")(local_apps.init)
app.command("test")(local_apps.try_out)
app.command("alias")(alias)

LOG_SHOWN: Final = 40
"""Lines of a failed build; `-v` shows all of them as they come."""
RefArgument = Annotated[
    str, typer.Argument(help="The app: namespace/name, or its name or id; with @version if wanted.")
]


@app.command()
def deploy(
    folder: Annotated[
        Path, typer.Argument(help="Folder with inf.yml and inference.py, or a folder of such folders.")
    ] = Path(),
    name: Annotated[str, typer.Option(help="Name, or namespace/name, instead of that in inf.yml.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Only its owner may run it.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Every key may run it.")] = False,
    stage: Annotated[bool, typer.Option("--stage", help="Do not make the new version current.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and pack only; needs no gateway.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the build prints.")] = False,
    json: JsonFlag = False,
) -> None:
    """Deploy an app: check it, read its schemas, upload it, make the new version current.

    The version is the hash of its files: the same files give the same version, and deploying them again does nothing.
    """
    folders = find_app_folders(folder)
    if name and len(folders) > 1:
        raise CommandFailed(f"--name is for one app, '{folder}' holds {len(folders)}", ExitCode.USAGE)
    check_names(folders)
    if private and public:
        raise CommandFailed("--private and --public exclude each other", ExitCode.USAGE)
    options = DeployOptions(
        name=name,
        visibility="private" if private else "public" if public else "",
        stage=stage,
        dry_run=dry_run,
    )
    results, failed = asyncio.run(_deploy(folders, options, quiet=json, verbose=verbose))
    if json:
        print_json(results)
    if failed:
        raise typer.Exit(failed)


@app.command("list")
def list_(
    search: Annotated[str, typer.Option(help="Only apps with this in their name or description.")] = "",
    json: JsonFlag = False,
) -> None:
    """The apps of this key, and the public ones."""
    items = asyncio.run(_all_pages("/apps/list", {"search": {"term": search}}))
    if json:
        print_json({"items": items})
        return
    print_table(
        "",
        ("app", "version", "visibility", "category", "description"),
        [
            (
                name_of(item),
                version_of(item)[:8],
                item.get("visibility"),
                item.get("category"),
                item.get("description"),
            )
            for item in items
        ],
        empty="no apps yet; deploy one with: stoker apps deploy FOLDER",
    )


@app.command()
def show(ref: RefArgument, json: JsonFlag = False) -> None:
    """One app with its functions and what they take."""
    answer, version = asyncio.run(_show(ref))
    if json:
        print_json(answer | {"version": version})
        return
    out.print(f"[bold]{safe(name_of(answer))}[/]  [dim]{answer.get('visibility')}[/]")
    out.print(safe(str(answer.get("description") or "")))
    current = "" if version.get("id") == answer.get("version_id") else "  [yellow]not the current one[/]"
    out.print(
        f"[dim]version[/] {version.get('short_id', '-')}{current}  [dim]kernel[/] {version.get('kernel', '-')}"
    )
    _print_fields("setup", version.get("setup_schema") or {})
    for function, entry in (version.get("functions") or {}).items():
        default = " (default)" if function == version.get("default_function") else ""
        _print_fields(f"{function}(){default}", entry.get("input_schema") or {})


@app.command()
def versions(ref: RefArgument, json: JsonFlag = False) -> None:
    """The versions of an app, newest first."""
    answer, items = asyncio.run(_versions(ref))
    if json:
        print_json({"app": name_of(answer), "version_id": answer.get("version_id"), "items": items})
        return
    print_table(
        name_of(answer),
        ("version", "", "created", "kernel", "functions"),
        [
            (
                item["short_id"],
                "current" if item["id"] == answer.get("version_id") else "",
                item["created_at"],
                item["kernel"],
                ", ".join(item["functions"]),
            )
            for item in items
        ],
        empty="no versions",
    )


@app.command()
def use(ref: RefArgument, json: JsonFlag = False) -> None:
    """Make a version current: runs that name none use it from now on."""
    answer = asyncio.run(_use(ref))
    if json:
        print_json(answer)
    else:
        out.print(f"{safe(name_of(answer))} runs version {version_of(answer)[:8]} from now on")


@app.command()
def remove(
    ref: RefArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonFlag = False,
) -> None:
    """Remove an app, or with @version one version of it. Tasks that were accepted still run."""
    answer = asyncio.run(_remove(ref, ask=not (yes or json)))
    if json:
        print_json(answer)
    elif answer:
        out.print(f"removed {safe(str(answer['removed']))}")


@app.command()
def pull(
    ref: RefArgument,
    folder: Annotated[
        Path | None, typer.Argument(help="New folder for the files; default: the app's name.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Fetch the files of an app's version; for its owner."""
    answer = asyncio.run(_pull(ref, folder))
    if json:
        print_json(answer)
    else:
        out.print(f"{safe(answer['ref'])} is in {safe(answer['folder'])}")


@app.command()
def sample(
    ref: Annotated[str, typer.Argument(help="The app, with @version and :function if wanted.")],
    json: JsonFlag = False,  # noqa: ARG001 - it is JSON either way
) -> None:
    """An example input of an app, made from its schema; for: stoker run REF --input -."""
    print_json(asyncio.run(_sample(ref)))


for _name, _command in pins.COMMANDS.items():
    app.command(_name)(_command)


def version_of(item: dict[str, Any]) -> str:
    """The id of an app's current version; empty when it has none."""
    return str(item.get("version_id") or "")


def _print_fields(title: str, schema: dict[str, Any]) -> None:
    required = set(schema.get("required") or [])
    rows = [
        (
            name + (" *" if name in required else ""),
            type_of(field),
            _default(field),
            field.get("description"),
        )
        for name, field in (schema.get("properties") or {}).items()
    ]
    if rows:
        out.print()
        print_table(title, ("field", "type", "default", "description"), rows, empty="")


def _default(field: dict[str, Any]) -> str:
    return msgspec.json.encode(field["default"]).decode() if "default" in field else ""


async def _deploy(
    folders: list[Path], options: DeployOptions, *, quiet: bool, verbose: bool
) -> tuple[list[dict[str, Any]], int]:
    """Results for `--json`, and the exit status: that of the last folder that failed."""
    results: list[dict[str, Any]] = []
    failed = 0
    async with contextlib.AsyncExitStack() as stack:
        api = None if options.dry_run else await stack.enter_async_context(connected())
        for folder in folders:
            try:
                show_line = _show_line if verbose and not quiet else _ignore
                result = await deploy_folder(api, folder, show_line, options)
            except (FolderRefused, BuildFailure, CommandFailed) as error:
                if len(folders) == 1 and not isinstance(error, (FolderRefused, BuildFailure)):
                    raise
                failed = int(error.exit_code)
                results.append({"folder": str(folder)} | _failure(error))
                if not quiet:
                    _print_failure(error, verbose=verbose)
                continue
            results.append(result.as_json())
            if not quiet:
                _print_deployed(result)
    return results, failed


def _failure(error: StokerError) -> dict[str, Any]:
    found: dict[str, Any] = {"error": {"code": error.code, "message": error.message}}
    if isinstance(error, FolderRefused):
        found["findings"] = msgspec.to_builtins(error.report.findings)
    if isinstance(error, BuildFailure):
        found["log"] = error.log
    return found


def _print_deployed(result: Deployed) -> None:
    for finding in result.warnings:
        out.print(f"  [yellow]{safe(str(finding))}[/]")
    if result.dry_run:
        out.print(f"[green]fit to deploy[/] {safe(result.ref)} ({result.files} files, {result.size} bytes)")
        return
    word = "[green]deployed[/]" if result.changed else "[green]unchanged[/]"
    staged = "" if result.current else f"; not current: stoker apps use {result.ref}"
    out.print(f"{word} {safe(result.ref)}[dim]{safe(staged)}[/]")


def _print_failure(error: StokerError, *, verbose: bool) -> None:
    if isinstance(error, BuildFailure) and not verbose:
        for line in error.log[-LOG_SHOWN:]:
            err.print(f"  [dim]{safe(line.rstrip())}[/]")
    if isinstance(error, FolderRefused):
        for finding in error.report.warnings:
            err.print(f"  [yellow]{safe(str(finding))}[/]")
    print_error(error)


def _show_line(text: str) -> None:
    out.print(f"  [dim]{safe(text.rstrip())}[/]")


def _ignore(_text: str) -> None:
    """Nobody wants to see it."""


async def _all_pages(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with connected() as api:
        return await _pages(api, path, body)


async def _pages(api: Api, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    return [each async for each in api.entries("POST", path, body)]


async def _show(ref: str) -> tuple[dict[str, Any], dict[str, Any]]:
    async with connected() as api:
        parsed, found = await find_app(api, ref)
        if not (parsed.version or found.get("version_id")):
            return found, {}
        _, found, version = await find_version(api, ref)
        return found, version


async def _versions(ref: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    async with connected() as api:
        _, found = await find_app(api, ref)
        return found, await _pages(api, f"/apps/{found['id']}/versions/list", {})


async def _use(ref: str) -> dict[str, Any]:
    async with connected() as api:
        parsed, found = await find_app(api, ref)
        if not parsed.version:
            raise CommandFailed(
                f"say which version: {name_of(found)}@VERSION",
                ExitCode.USAGE,
                f"see them with: stoker apps versions {name_of(found)}",
            )
        answer: dict[str, Any] = await api.call(
            "PUT", f"/apps/{found['id']}/versions/{parsed.version}/current"
        )
        return answer


async def _remove(ref: str, *, ask: bool) -> dict[str, Any]:
    async with connected() as api:
        parsed, found = await find_app(api, ref)
        path, what = f"/apps/{found['id']}", name_of(found)
        if parsed.version:
            _, _, version = await find_version(api, ref)
            path, what = f"{path}/versions/{version['id']}", f"{what}@{version['short_id']}"
        if ask and not typer.confirm(f"Remove {what}?"):
            return {}
        await api.delete(path)
        return {"removed": what}


async def _pull(ref: str, folder: Path | None) -> dict[str, Any]:
    async with connected() as api:
        _, found, version = await find_version(api, ref)
        target = folder or Path(str(found["name"]))
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise CommandFailed(f"'{target}' is there already and not empty", ExitCode.USAGE)
        limits = Limits(max_bytes=load(ClientSettings).max_app_bytes)
        # Beside its place, to be renamed: a folder that is there is whole.
        with tempfile.TemporaryDirectory(prefix=".stoker-pull-", dir=target.absolute().parent) as scratch:
            packed, unpacked = Path(scratch) / "bundle.tar.gz", Path(scratch) / "app"
            await api.download(f"/apps/{found['id']}/versions/{version['id']}/bundle", packed)
            came = await asyncio.to_thread(bundles.unpack, packed, unpacked, limits)
            if came != version["id"]:
                raise CommandFailed(f"what came is version {came[:8]}, not {version['short_id']}")
            unpacked.rename(target)
        return {"ref": f"{name_of(found)}@{version['short_id']}", "folder": str(target)}


async def _sample(ref: str) -> Any:
    async with connected() as api:
        parsed, _, version = await find_version(api, ref)
    name = parsed.function or version["default_function"]
    function = version["functions"].get(name)
    if function is None:
        raise CommandFailed(
            f"{name!r} is no function of {ref}; it has {', '.join(version['functions'])}", ExitCode.USAGE
        )
    return sample_of(function["input_schema"])
