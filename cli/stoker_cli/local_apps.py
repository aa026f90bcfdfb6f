"""`stoker apps init` and `stoker apps test`: app folders on this machine, without a server."""

import asyncio
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from stoker.core.errors import InvalidRequest
from stoker.core.messages import LogType
from stoker.core.refs import parse_ref
from stoker.core.states import TaskState
from stoker_cli.inputs import TypedInput, parse_input
from stoker_cli.local_run import Ended, LocalRun, run_locally
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, err, out, print_json, safe

TEMPLATES: Final = Path(__file__).parent / "templates"


class Template(StrEnum):
    """What a new app begins with."""

    BASIC = "basic"
    FILES = "files"
    SETUP = "setup"
    STREAM = "stream"


def init(
    name: Annotated[str, typer.Argument(help="Name of the app and its folder; with a namespace if wanted.")],
    template: Annotated[
        Template,
        typer.Option(
            help="basic: text in, text out; files: a file in and out; setup: loads once; stream: partial outputs."
        ),
    ] = Template.BASIC,
    json: JsonFlag = False,
) -> None:
    """Make the folder of a new app, which can be tested and deployed as it is."""
    try:
        ref = parse_ref(name)
    except InvalidRequest as error:
        raise CommandFailed(
            f"{name!r} cannot be an app's name", ExitCode.USAGE, "for instance: my-app"
        ) from error
    folder = Path(ref.name)
    if ref.version or ref.function:
        raise CommandFailed(f"{name!r} names more than an app", ExitCode.USAGE, "for instance: my-app")
    if folder.exists():
        raise CommandFailed(f"'{folder}' is there already", ExitCode.USAGE)
    make_app(folder, ref.namespace or "local", template)
    if json:
        print_json({"folder": str(folder), "template": template.value})
        return
    out.print(f"made {safe(str(folder))}/")
    out.print(
        f"[dim]try it:    stoker apps test {safe(str(folder))} --input @{safe(str(folder))}/input.json[/]"
    )
    out.print(f"[dim]deploy it: stoker apps deploy {safe(str(folder))}[/]")


def make_app(folder: Path, namespace: str, template: Template) -> None:
    """Copy a template and put the names in.

    Raises:
        OSError: the folder cannot be written.
    """
    shutil.copytree(TEMPLATES / template, folder, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = folder / "inf.yml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("NAMESPACE", namespace).replace("NAME", folder.name), encoding="utf-8")


def try_out(
    folder: Annotated[Path, typer.Argument(help="The app's folder.")] = Path(),
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="JSON object, @file.json, -, name=value, name=@file. Repeatable."),
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option("--setup", "-s", help="Setup parameters, in the forms of --input.")
    ] = None,
    function: Annotated[str, typer.Option(help="Function of the app; default: the app's own default.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=value for the app; secrets that inf.yml names come from this shell. Repeatable."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for the output's files; default: a new one.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run an app's folder here, as a worker would, without a server.

    Exit status: 0 completed, 1 failed, 2 wrong folder or input.
    """
    shown = _Shown(quiet=json)
    run = LocalRun(
        folder=folder,
        input=_with_paths(parse_input(input_ or [])),
        setup=_with_paths(parse_input(setup or [])),
        function=function,
        env=dict(_variable(text) for text in env or []),
        save=save,
        on_state=shown.state,
        on_line=shown.line,
    )
    ended = asyncio.run(run_locally(run))
    if json:
        print_json(ended.as_json() | {"logs": shown.lines})
    else:
        _print_ended(ended)
    if ended.state is not TaskState.COMPLETED:
        raise typer.Exit(ExitCode.FAILED)


def _with_paths(typed: TypedInput) -> dict[str, Any]:
    """Files by their path on this machine: there is nothing to upload to."""
    return typed.values | {name: str(path.absolute()) for name, path in typed.files.items()}


def _variable(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        raise CommandFailed(
            f"--env {text!r} is not understood", ExitCode.USAGE, "for instance: --env KEY=value"
        )
    return name, value


class _Shown:
    """Prints states and lines as they come, and keeps the lines for `--json`."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self.lines: list[dict[str, str]] = []

    def state(self, state: TaskState) -> None:
        if not self._quiet:
            out.print(f"  [cyan]{state.name.lower()}[/]")

    def line(self, kind: LogType, text: str) -> None:
        self.lines.append({"type": kind.value, "text": text})
        if not self._quiet:
            out.print(f"    [dim]{kind.value:>5} |[/] {safe(text.rstrip())}")


def _print_ended(ended: Ended) -> None:
    if ended.state is TaskState.COMPLETED:
        out.print("  [green]completed[/]")
        out.print(safe(msgspec.json.format(msgspec.json.encode(ended.output)).decode()))
        return
    err.print(f"  [bold red]failed:[/] {safe(ended.error)}")
