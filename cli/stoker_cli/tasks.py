"""`stoker tasks`: list, look at, cancel, run again and delete tasks."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from stoker_cli.api import ENDED, Task, ask, connected, state_name, state_of
from stoker_cli.export import trace_row
from stoker_cli.output import JsonFlag, Markup, items_of, out, print_json, print_table, safe
from stoker_cli.run import follow
from stoker_cli.task_view import COLOURS, LOG_TYPES, TaskView, exit_code

app = typer.Typer(no_args_is_help=True, help="List, look at, cancel, run again and delete tasks.")

HOW: Final = {"cold": "load there", "wait": "wait for it", "ahead": "behind a short task", "warm": "warm"}
TaskIdArgument = Annotated[str, typer.Argument(help="Id of the task.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    cursor: Annotated[str, typer.Option(help="Go on after an earlier page (its next_cursor).")] = "",
    json: JsonFlag = False,
) -> None:
    """The newest tasks of the key's owner."""
    page = asyncio.run(_list(limit, cursor))
    if json:
        print_json(page)
        return
    tasks = items_of(page)
    print_table(
        "",
        ("id", "app", "state", "created", "worker"),
        [
            (t["id"], _app_name(t), _coloured(state_of(t)), t.get("created_at"), t.get("worker_id"))
            for t in tasks
        ],
        empty="no tasks yet; run one with: stoker run infsh/echo --input message=hi",
    )
    if isinstance(page, dict) and page.get("next_cursor"):
        out.print(f"[dim]more: stoker tasks list --cursor {page['next_cursor']}[/]")


@app.command()
def get(
    task_id: TaskIdArgument,
    follow_: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until it ends; Ctrl-C cancels it.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """One task: its states, its log and its result. With --follow the exit status is that of `stoker run`."""
    task = asyncio.run(_get(task_id, TaskView(out) if follow_ and not json else None, wait=follow_))
    if json:
        print_json(task)
    elif not follow_:
        view = TaskView(out)
        view.update(task)
        if state_of(task) in ENDED:
            view.finish(task)
    if follow_:
        raise typer.Exit(exit_code(task))


@app.command()
def logs(
    task_id: TaskIdArgument,
    follow_: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the task ends; Ctrl-C leaves it alone.")
    ] = False,
    attempt: Annotated[int, typer.Option(min=0, help="Of this attempt only; 0 = of all.")] = 0,
    json: JsonFlag = False,
) -> None:
    """The complete log of a task. With --json one document, with --json --follow one object a line."""
    asyncio.run(_logs(task_id, attempt, follow=follow_, json=json))


@app.command()
def explain(task_id: TaskIdArgument, json: JsonFlag = False) -> None:
    """Why a task waits, and for each attempt which workers were compared and what each would have cost."""
    found = asyncio.run(ask("GET", f"/tasks/{task_id}/explanation"))
    if json:
        print_json(found)
        return
    out.print(f"task {task_id}: {_coloured(found['status_text'])}")
    if found["queue_reason"]:
        out.print(safe(found["queue_reason"]))
    for attempt in found["attempts"]:
        out.print(f"[bold]attempt {attempt['attempt']}[/]: {safe(attempt['reason'])}")
        if len(attempt["candidates"]) > 1:
            columns = ("worker", "how", "runs in", "cost", "evicts")
            print_table("", columns, map(_candidate, attempt["candidates"]), empty="")
    if not (found["queue_reason"] or found["attempts"]):
        out.print("it was never given to a worker")


@app.command()
def cancel(
    task_id: TaskIdArgument,
    force: Annotated[bool, typer.Option("--force", help="End it at once, without a grace period.")] = False,
    json: JsonFlag = False,
) -> None:
    """Ask a task to end. A task that has ended stays as it is."""
    body = {"force": True} if force else None
    answer = asyncio.run(ask("POST", f"/tasks/{task_id}/cancel", json=body))
    if json:
        print_json(answer)
    else:
        out.print(f"task {task_id}: cancel requested")


@app.command()
def retry(
    task_id: TaskIdArgument,
    follow_: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the new task ends; Ctrl-C cancels it.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Run a task again that failed or was cancelled: a new task from the same request. Exit status as `stoker run`."""
    task = asyncio.run(_retry(task_id, None if json else TaskView(out), wait=follow_))
    if json:
        print_json(task)
    elif not follow_:
        out.print(f"task {task['id']}\n[dim]follow it with: stoker tasks get {task['id']} --follow[/]")
    if follow_:
        raise typer.Exit(exit_code(task))


@app.command()
def delete(task_id: TaskIdArgument, json: JsonFlag = False) -> None:
    """Forget a task that has ended, with its log and its result."""
    asyncio.run(ask("DELETE", f"/tasks/{task_id}"))
    if json:
        print_json({"id": task_id, "deleted": True})
    else:
        out.print(f"task {task_id} deleted")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="Where the trace goes: JSON lines, one a completed task.")],
    limit: Annotated[int, typer.Option(min=1, help="How many tasks to look at, the newest first.")] = 10_000,
) -> None:
    """Write the completed tasks of the key's owner as a trace, for `stoker simulate`."""
    rows = asyncio.run(_export(limit))  # whole, before what is there is written over
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    out.print(f"{len(rows)} tasks written to {path}")


async def _export(limit: int) -> list[dict[str, Any]]:
    async with connected() as api:
        tasks = api.entries("POST", "/tasks/list", {}, limit=limit)
        return [row async for task in tasks if (row := trace_row(task)) is not None]


async def _logs(task_id: str, attempt: int, *, follow: bool, json: bool) -> None:
    async with connected() as api:
        if follow:
            async for line in api.log_lines(task_id, attempt=attempt):
                print_json(line) if json else _print_line(line)
            return
        pages = [page async for page in api.log_pages(task_id, attempt=attempt)]
    lines = [line for page in pages for line in page["logs"]]
    if json:
        print_json(pages[-1] | {"logs": lines})
        return
    for line in lines:
        _print_line(line)


def _print_line(line: dict[str, Any]) -> None:
    kind = line.get("log_type")
    name = LOG_TYPES[kind] if isinstance(kind, int) and kind < len(LOG_TYPES) else str(kind)
    out.print(f"[dim]{name:>5} |[/] {safe(str(line.get('content', '')).rstrip())}")


async def _list(limit: int, cursor: str) -> Any:
    async with connected() as api:
        body = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        return await api.post("/tasks/list", body)


async def _get(task_id: str, view: TaskView | None, *, wait: bool) -> Task:
    async with connected() as api:
        if wait:
            return await follow(api, task_id, view)
        task: Task = await api.get(f"/tasks/{task_id}")
        return task


async def _retry(task_id: str, view: TaskView | None, *, wait: bool) -> Task:
    async with connected() as api:
        task: Task = await api.post(f"/tasks/{task_id}/retry")
        if wait and view:
            out.print(f"task {task['id']}")
        return await follow(api, str(task["id"]), view) if wait else task


def _candidate(found: dict[str, Any]) -> tuple[str, ...]:
    evicts = ", ".join(found["evict"]) or "-"
    return (
        found["worker_id"],
        "comes back" if found.get("parked") else HOW.get(found["start"], found["start"]),
        f"{found['ready_s']:.1f} s",
        f"{found['cost_s']:.1f} s",
        evicts,
    )


def _app_name(task: Task) -> str:
    app_field = task.get("app")
    if isinstance(app_field, dict):
        return f"{app_field.get('namespace', '')}/{app_field.get('name', '')}"
    return str(task.get("app_ref") or app_field or task.get("app_id") or "")


def _coloured(state: str) -> Markup:
    return Markup(f"[{COLOURS.get(state, 'cyan')}]{state_name(state)}[/]")
