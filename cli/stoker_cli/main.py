"""The `stoker` command: assembles the sub-commands and is the edge at which every error becomes a sentence.

Exit status: see `stoker_cli.output.ExitCode`.
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from stoker import __version__
from stoker.core.errors import CallerError, StokerError, StoreUnavailable
from stoker_cli import apps, doctor, keys, parts, run, secrets, sessions, tasks, workers
from stoker_cli.output import CommandFailed, ExitCode, print_error, print_json
from stoker_cli.up import command as up_command

app = typer.Typer(
    name="stoker",
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


app.command("up")(up_command.up)
app.command("run")(run.run)
app.add_typer(tasks.app, name="tasks")
app.add_typer(sessions.app, name="sessions")
app.add_typer(apps.app, name="apps")
app.add_typer(workers.app, name="workers")
app.add_typer(keys.app, name="keys")
app.add_typer(secrets.app, name="secrets")
app.command("doctor")(doctor.doctor)
for part_command in (parts.gateway, parts.scheduler, parts.worker, parts.jobs):
    app.command(part_command.__name__)(part_command)


def main() -> NoReturn:
    """Run the command line; ends the process with one of `ExitCode`."""
    try:
        app()
    except StokerError as error:
        if "--json" in sys.argv:
            print_json({"error": {"code": error.code, "message": error.message}})
        print_error(error)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except OSError as error:
        print_error(CommandFailed(str(error)))
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.OK)


def exit_code_of(error: StokerError) -> ExitCode:
    """The exit status that an error stands for."""
    if isinstance(error, CommandFailed):
        return error.exit_code
    if isinstance(error, StoreUnavailable):
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE if isinstance(error, CallerError) else ExitCode.FAILED
