"""`stoker audit`: who changed what."""

import asyncio
from typing import Annotated, Any

import typer

from stoker.core.audit import Action
from stoker_cli.api import connected
from stoker_cli.output import JsonFlag, print_json, print_table

app = typer.Typer(
    no_args_is_help=True, help="Who changed keys, secrets, apps and machines, and who was refused."
)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="How many changes, the latest ones.")] = 50,
    before: Annotated[str, typer.Option(help="Only changes before the one with this id.")] = "",
    json: JsonFlag = False,
) -> None:
    """The latest changes, and attempts that were refused. The key that asks needs the scope audit:read."""
    found = asyncio.run(fetch(limit, before))
    if json:
        print_json(found)
        return
    rows = [
        (
            each.get("id"),
            each.get("at"),
            each.get("action"),
            each.get("target"),
            each.get("user_id")
            or ("nobody" if each.get("action") == Action.ACCESS_REFUSED else "the system"),
            each.get("key_id"),
            each.get("address"),
            ", ".join(f"{name}={value}" for name, value in (each.get("detail") or {}).items()),
        )
        for each in found
    ]
    columns = ("id", "when", "action", "what", "user", "key", "from", "detail")
    print_table("", columns, rows, empty="no changes are recorded")


async def fetch(limit: int, before: str) -> list[dict[str, Any]]:
    """So many of the latest changes, page by page."""
    async with connected() as api:
        return [each async for each in api.entries("GET", "/audit", {}, limit=limit, cursor=before)]
