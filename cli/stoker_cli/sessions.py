"""`stoker sessions`: look at sessions and end them. `stoker run --session new` opens one."""

import asyncio
from typing import Annotated

import typer

from stoker_cli.api import ask
from stoker_cli.output import JsonFlag, items_of, out, print_json, print_table, safe

app = typer.Typer(no_args_is_help=True, help="Sessions: a worker and a process for yourself.")

SessionArgument = Annotated[str, typer.Argument(help="Id of the session (sess_...).")]


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """The active sessions of the key's owner."""
    answer = asyncio.run(ask("GET", "/sessions"))
    if json:
        print_json(answer)
        return
    print_table(
        "",
        ("id", "app", "worker", "calls", "last call", "expires"),
        [
            (s["id"], s["app_ref"], s["worker_id"], s["call_count"], s["last_call_at"], s["expires_at"])
            for s in items_of(answer)
        ],
        empty="no active session; open one with: stoker run APP --session new",
    )


@app.command()
def get(session_id: SessionArgument, json: JsonFlag = False) -> None:
    """One session, also one that was over less than a day ago."""
    session = asyncio.run(ask("GET", f"/sessions/{session_id}"))
    if json:
        print_json(session)
        return
    for name, value in session.items():
        if value is not None:
            out.print(f"[dim]{name:>14}[/] {safe(str(value))}")


@app.command()
def keep(session_id: SessionArgument, json: JsonFlag = False) -> None:
    """Begin the idle time of a session anew."""
    session = asyncio.run(ask("POST", f"/sessions/{session_id}/keepalive"))
    if json:
        print_json(session)
    else:
        out.print(f"session {session_id} expires at {session['expires_at']}")


@app.command()
def end(session_id: SessionArgument, json: JsonFlag = False) -> None:
    """Give the worker back. A call that runs goes on to its end; those that wait fail."""
    asyncio.run(ask("DELETE", f"/sessions/{session_id}"))
    if json:
        print_json({"id": session_id, "ended": True})
    else:
        out.print(f"session {session_id} is over")
