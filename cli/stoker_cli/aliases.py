"""`stoker apps alias`: let another name stand for an app."""

import asyncio
from typing import Annotated, Any

import typer

from stoker_cli.api import connected
from stoker_cli.inputs import parse_input
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, out, print_json, safe


def alias(
    name: Annotated[str, typer.Argument(help="The other name: namespace/name.")],
    app: Annotated[str, typer.Argument(help="The app that runs under it.")],
    setup: Annotated[
        list[str] | None,
        typer.Option("--setup", "-s", help="Setup parameters, in the forms of --input of `stoker run`."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="For every key.")] = False,
    json: JsonFlag = False,
) -> None:
    """Let a name stand for an app with a setup, so that programs that ask for that name run unchanged.

    Remove it as an app: stoker apps remove NAME.
    """
    typed = parse_input(setup or [])
    if typed.files:
        raise CommandFailed("a setup holds no files", ExitCode.USAGE)
    visibility = "public" if public else "private"
    body = {"name": name, "app": app, "setup": typed.values, "visibility": visibility}
    made = asyncio.run(_put(body))
    if json:
        print_json(made)
    else:
        out.print(f"{safe(name)} stands for {safe(app)} from now on")


async def _put(body: dict[str, Any]) -> Any:
    async with connected() as api:
        return await api.post("/apps/alias", body)
