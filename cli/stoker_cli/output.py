"""What the command line prints: tables and text for people, JSON for programs, errors without tracebacks."""

import re
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stoker.core.errors import StokerError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

PIPE_WIDTH: Final = 160
"""Columns of a table that goes to a file or a program."""
# Without emoji: a text of others that holds `:x:` is shown as it is.
out: Final = Console(
    highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH
)
err: Final = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
_ACTED_UPON: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
"""Colours and moves of the cursor whole; else single controls, and those that turn the direction of a text."""


class ExitCode(IntEnum):
    """What the exit status of a `stoker` command means."""

    OK = 0
    FAILED = 1
    """The task, or the thing that was asked for, failed."""
    USAGE = 2
    """The request is wrong: change it."""
    UNREACHABLE = 3
    """No gateway answers."""
    DENIED = 4
    """The API key is missing, wrong or may not do that."""
    CANCELLED = 5
    """The task was cancelled."""
    INTERRUPTED = 130
    """Ctrl-C (128 + SIGINT, as shells count)."""


class CommandFailed(StokerError):
    """The command failed."""

    code = "command_failed"

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint


def print_json(value: object) -> None:
    """One JSON document on stdout, indented on a terminal."""
    text = msgspec.json.encode(value, enc_hook=str)
    if sys.stdout.isatty():
        text = msgspec.json.format(text)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()


def print_event(event: str, **fields: object) -> None:
    """One JSON line on stdout, for programs that follow a command."""
    line = msgspec.json.encode({"event": event, **fields}, enc_hook=str)
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or one sentence when there is nothing in it."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        out.print(empty)
        return
    table = Table(
        title=safe(title) or None, title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    for row in cells:
        table.add_row(*row)
    out.print(table)


def print_error(error: StokerError) -> None:
    """What went wrong and what to do, on stderr."""
    err.print(f"[bold red]error:[/] {safe(error.message)}")
    hint = getattr(error, "hint", "")
    if hint:
        err.print(f"[dim]{safe(hint)}[/]")


def plain(text: str) -> str:
    """A text of others without what a terminal would act upon: it could repaint what a person decides by."""
    return _ACTED_UPON.sub("", text)


def safe(text: str) -> str:
    """A text of others as console markup that shows it, and does nothing else."""
    return escape(plain(text))


def bar(used: float, total: float, width: int = 20) -> str:
    """A memory bar with its figures in GB, as console markup."""
    if total <= 0:
        return "-"
    share = min(max(used / total, 0.0), 1.0)
    filled = round(share * width)
    colour = "red" if share > 0.9 else "yellow" if share > 0.7 else "green"
    cells = f"[{colour}]{'█' * filled}[/][dim]{'░' * (width - filled)}[/]"
    return f"{cells} {used / 1e9:.1f}/{total / 1e9:.1f} GB"


class Markup(str):
    """Text that is console markup already."""

    __slots__ = ()


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    return "-" if value is None or value == "" else safe(str(value))


def items_of(answer: Any) -> list[dict[str, Any]]:
    """The entries of a list answer: a plain array, or a page with `items`."""
    if isinstance(answer, dict):
        answer = answer.get("items") or []
    return [item for item in answer or [] if isinstance(item, dict)]
