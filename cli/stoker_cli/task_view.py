"""A task as it goes, on the terminal: each state once, each log line once, then the result."""

from datetime import datetime
from typing import Any, Final

import msgspec
from rich.console import Console

from stoker_cli.api import ENDED, Task, state_name, state_of
from stoker_cli.output import ExitCode, safe

COLOURS: Final = {"completed": "green", "failed": "red", "cancelled": "yellow", "queued": "dim"}
LOG_TYPES: Final = ("build", "run", "serve", "setup", "task")
OUTPUT_SHOWN: Final = 4000
"""Characters of a result on the terminal; `--json` prints all of it."""


class TaskView:
    """Prints what is new in each update of one task."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: list[tuple[str, str]] = []
        self._last_line: str = ""
        self._reason = ""
        self._first: datetime | None = None

    def update(self, task: Task) -> None:
        """Print what `task` has that the last update had not."""
        moments = [*self._new_states(task), *self._new_logs(task)]
        for _, text in sorted(
            moments, key=lambda moment: moment[0]
        ):  # stable: a state comes before its lines
            self._console.print(text)
        reason = str(task.get("queue_reason") or "")
        if reason and reason != self._reason and state_of(task) == "queued":
            self._console.print(f"            [dim]{safe(reason)}[/]")
        self._reason = reason

    def finish(self, task: Task) -> None:
        """Print the result or the error."""
        state = state_of(task)
        if state == "completed":
            self._console.print(output_text(task.get("output")))
        elif state == "failed":
            self._console.print(f"[bold red]failed:[/] {safe(str(task.get('error') or 'task failed'))}")
        else:
            self._console.print(f"[bold yellow]{safe(state)}[/]")

    def _new_states(self, task: Task) -> list[tuple[str, str]]:
        """(time, text) of each state that was not shown yet."""
        fresh = []
        seen = [
            (state_name(event.get("status")), str(event.get("event_time") or event.get("created_at") or ""))
            for event in task.get("events") or []
        ]
        now = state_of(task)
        if not seen or seen[-1][0] != now:
            seen.append((now, str(task.get("updated_at") or "")))
        for name, at in seen[self._common(seen) :]:
            colour = COLOURS.get(name, "cyan")
            fresh.append((at, f"  [{colour}]{name:<11}[/] [dim]{self._elapsed(at)}[/]"))
        self._states = seen
        return fresh

    def _common(self, seen: list[tuple[str, str]]) -> int:
        """How many leading states were printed already."""
        count = 0
        for old, new in zip(self._states, seen, strict=False):
            if old[0] != new[0]:
                break
            count += 1
        return count

    def _elapsed(self, at: str) -> str:
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            return ""
        self._first = self._first or moment
        return f"{(moment - self._first).total_seconds():8.3f} s"

    def _new_logs(self, task: Task) -> list[tuple[str, str]]:
        """(time, text) of each log line that was not shown yet."""
        fresh = []
        for line in new_lines(task.get("logs") or [], self._last_line):
            self._last_line = line_id(line)
            kind = line.get("log_type")
            name = LOG_TYPES[kind] if isinstance(kind, int) and kind < len(LOG_TYPES) else str(kind)
            text = f"    [dim]{name:>5} |[/] {safe(str(line.get('content', '')).rstrip())}"
            fresh.append((str(line.get("created_at") or ""), text))
        return fresh


def output_text(output: object) -> str:
    """A result as console markup; a long one is cut, and says so."""
    text = msgspec.json.format(msgspec.json.encode(output)).decode()
    more = "" if len(text) <= OUTPUT_SHOWN else f"\n[dim]... {len(text)} characters in all[/]"
    return safe(text[:OUTPUT_SHOWN]) + more


def line_id(line: dict[str, Any]) -> str:
    """What tells one log line from another."""
    return str(line.get("id") or "") or f"{line.get('created_at')}{line.get('content')}"


def new_lines(lines: list[dict[str, Any]], last: str) -> list[dict[str, Any]]:
    """The lines after the one with id `last`; all if it is not among them."""
    for index in range(len(lines) - 1, -1, -1):
        if line_id(lines[index]) == last:
            return lines[index + 1 :]
    return lines


def exit_code(task: Task) -> ExitCode:
    """The exit status that an ended task stands for."""
    state = state_of(task)
    if state == "completed":
        return ExitCode.OK
    if state == "cancelled":
        return ExitCode.CANCELLED
    return ExitCode.FAILED if state in ENDED else ExitCode.OK
