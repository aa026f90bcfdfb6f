"""`stoker run`: submit a task, show its states and logs live, print its result."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from stoker_cli.api import Api, Task, connected
from stoker_cli.inputs import TypedInput, parse_input
from stoker_cli.options import with_options
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, err, out, print_json
from stoker_cli.task_view import TaskView, exit_code

SPANS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run may be asked for beside its input."""

    function: Annotated[str, typer.Option(help="Function of the app; default: the app's own default.")] = ""
    worker: Annotated[
        list[str] | None, typer.Option(help="Run on this worker only (id or name). Repeatable.")
    ] = None
    session: Annotated[
        str,
        typer.Option(
            help="new: open a session, a worker and a process for yourself, until it is idle for 60 s, or for "
            "N with new:N (1 to 3600). Or the id of a session, to call it."
        ),
    ] = ""
    run_at: Annotated[
        str,
        typer.Option(
            help="Not before this time: +30m (s, m, h, d) from now, 2030-01-31T12:00:00+01:00 (without an offset "
            "it is UTC), or seconds since 1970."
        ),
    ] = ""
    webhook: Annotated[str, typer.Option(help="Address that is told of the end (stoker webhooks).")] = ""

    def body(self, ref: str, now_s: float) -> dict[str, Any]:
        """The request, without its input.

        Raises:
            CommandFailed: an option is not understood.
        """
        body: dict[str, Any] = {"app": ref, "infra": "private"}
        said = {
            "function": self.function,
            "workers": self.worker,
            "run_at": parse_run_at(self.run_at, now_s),
            "webhook": self.webhook,
        }
        return body | {name: value for name, value in said.items() if value} | parse_session(self.session)


@with_options
def run(
    ref: Annotated[
        str, typer.Argument(help="The app: namespace/name, with @version and :function if wanted.")
    ],
    options: RunOptions,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="JSON object, @file.json, - (standard input), name=value, name=@file (upload). Repeatable.",
        ),
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option("--setup", "-s", help="Setup parameters, in the forms of --input.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the task and do not wait for it.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Run an app and show its states and logs as they happen.

    Ctrl-C cancels the task. Exit status: 0 completed, 1 failed, 2 wrong request, 3 no gateway, 4 wrong key,
    5 cancelled.
    """
    typed, setup_typed = parse_input(input_ or []), parse_input(setup or [])
    body = options.body(ref, time.time())
    code = asyncio.run(_run(body, typed, setup_typed, wait=not no_wait, json=json))
    raise typer.Exit(code)


def parse_run_at(text: str, now_s: float) -> str | float:
    """A time as the gateway takes it; what is none it refuses.

    Raises:
        CommandFailed: a span from now that is none.
    """
    if text.isdecimal():
        return float(text)
    if not text.startswith("+"):
        return text
    number, unit = text[1:-1], text[-1:]
    if unit not in SPANS_S or not number.isdecimal() or len(number) > 9:
        raise CommandFailed(
            f"--run-at {text!r} is not understood",
            ExitCode.USAGE,
            "possible: +30s, +10m, +2h, +1d, or a time: 2030-01-31T12:00:00Z",
        )
    return now_s + int(number) * SPANS_S[unit]


def parse_session(text: str) -> dict[str, Any]:
    """The fields of a request for ``--session``.

    Raises:
        CommandFailed: the idle time is no number.
    """
    if not text:
        return {}
    what, _, seconds = text.partition(":")
    if not seconds:
        return {"session": what}
    if not seconds.isdecimal():
        raise CommandFailed(
            f"--session {text!r}: {seconds!r} is no number of seconds; say for instance new:300",
            ExitCode.USAGE,
        )
    return {"session": what, "session_timeout": int(seconds)}


async def _run(
    body: dict[str, Any], typed: TypedInput, setup: TypedInput, *, wait: bool, json: bool
) -> ExitCode:
    async with connected() as api:
        view = None if json else TaskView(out)
        task = await submit(api, body, typed, setup)
        if not wait:
            if json:
                print_json(task)
            else:
                out.print(
                    f"task {task['id']}\n[dim]follow it with: stoker tasks get {task['id']} --follow[/]"
                )
            return ExitCode.OK
        if view:
            out.print(f"task {task['id']}")
            if task.get("session_id"):
                out.print(f"session {task['session_id']}")
        task = await follow(api, str(task["id"]), view)
        if json:
            print_json(task)
        return exit_code(task)


async def submit(api: Api, body: dict[str, Any], typed: TypedInput, setup: TypedInput) -> Task:
    """Upload the files of an input, then submit the task.

    Raises:
        ApiError: the gateway refused it; the text says what to change.
    """
    values = await with_files(api, typed)
    body = body | {"input": values}
    if setup_values := await with_files(api, setup):
        body["setup"] = setup_values
    task: Task = await api.post("/apps/run", body)
    return task


async def follow(api: Api, task_id: str, view: TaskView | None) -> Task:
    """Wait for the end of a task and show it as it goes. When interrupted, cancel the task first."""
    task: Task = {}
    try:
        async for task in api.watch(task_id):
            if view:
                view.update(task)
    except asyncio.CancelledError:
        err.print("[yellow]cancelling the task ...[/]")
        await asyncio.shield(api.post(f"/tasks/{task_id}/cancel"))
        raise
    if view:
        view.finish(task)
    return task


async def with_files(api: Api, typed: TypedInput) -> dict[str, Any]:
    records = [await api.upload(path) for path in typed.files.values()]
    return typed.values | {name: record["uri"] for name, record in zip(typed.files, records, strict=True)}
