"""The `stoker` command: assembles the sub-commands and is the edge at which every error becomes a sentence.

A sub-command is imported when it is called: what the others need would cost every one of them half a second.

Exit status: see `stoker_cli.output.ExitCode`.
"""

import os
import sys
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from stoker import __version__
from stoker.core.errors import CallerError, StokerError, StoreUnavailable
from stoker.imports import uncollected
from stoker_cli.output import CommandFailed, ExitCode, print_error, print_json

COMMANDS: Final = {
    "up": "stoker_cli.up.command:up",
    "run": "stoker_cli.run:run",
    "chat": "stoker_cli.chat:chat",
    "tasks": "stoker_cli.tasks:app",
    "sessions": "stoker_cli.sessions:app",
    "apps": "stoker_cli.apps:app",
    "flows": "stoker_cli.flows:app",
    "workers": "stoker_cli.workers:app",
    "top": "stoker_cli.top.command:top",
    "keys": "stoker_cli.keys:app",
    "secrets": "stoker_cli.secrets:app",
    "webhooks": "stoker_cli.webhooks:app",
    "audit": "stoker_cli.audit:app",
    "simulate": "stoker_cli.simulate:simulate",
    "doctor": "stoker_cli.doctor:doctor",
    "gateway": "stoker_cli.parts:gateway",
    "scheduler": "stoker_cli.parts:scheduler",
    "worker": "stoker_cli.parts:worker",
    "jobs": "stoker_cli.parts:jobs",
}
"""In the order of the help page: a function, or a `typer.Typer` with commands of its own."""


class SubCommands(TyperGroup):
    """Finds `COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the library's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        with uncollected():
            found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            group = get_group(found)
            group.name = cmd_name  # the help page shows the name that the group itself has
            return group
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(found)
        return get_command(alone)


app = typer.Typer(
    name="stoker",
    cls=SubCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run AI apps on your own GPUs, on the worker whose model is warm.\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong request, 3 no gateway answers, 4 wrong key, 5 task cancelled, "
    "130 interrupted.",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"stoker {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the command line; ends the process with one of `ExitCode`."""
    try:
        app()
    except StokerError as error:
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except OSError as error:
        _fail(CommandFailed(str(error) or type(error).__name__))
    sys.exit(ExitCode.OK)


def _fail(error: StokerError) -> NoReturn:
    """End with what went wrong: for people on stderr, for programs on stdout too."""
    if "--json" in sys.argv:
        print_json({"error": {"code": error.code, "message": error.message}})
    print_error(error)
    sys.exit(exit_code_of(error))


def exit_code_of(error: StokerError) -> ExitCode:
    """The exit status that an error stands for."""
    if isinstance(error, CommandFailed):
        return error.exit_code
    if isinstance(error, StoreUnavailable):
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE if isinstance(error, CallerError) else ExitCode.FAILED
