"""`stoker keys`: API keys of the gateway."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.markup import escape

from stoker_cli.api import connected
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, items_of, out, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="API keys of the gateway.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Limit of a kind a minute, for instance run=500; 0 = unlimited. run, get, upload."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; default: never.")] = None,
    numbering: Annotated[
        str, typer.Option(help="Status numbers for unnamed clients: v1 (9/10/11) or v2 (10/11/12).")
    ] = "",
    json: JsonFlag = False,
) -> None:
    """Make a key. It is shown once and stored as a hash."""
    body: dict[str, Any] = {"name": name}
    if rate:
        body["rates"] = parse_rates(rate)
    if days:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    if numbering:
        body["numbering"] = numbering
    answer = asyncio.run(_call("POST", "/apikeys", json=body))
    if json:
        print_json(answer)
    else:
        out.print(escape(str(answer.get("key"))))
        out.print(f"[dim]id {answer.get('id')}; this is the only time that the key is shown[/]")


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """The keys of this key's owner."""
    answer = asyncio.run(_call("GET", "/apikeys"))
    if json:
        print_json(answer)
        return
    rows = [
        (
            key.get("id"),
            key.get("name"),
            f"{key.get('prefix') or key.get('key_prefix') or 'inf_'}...",
            ", ".join(f"{kind}={limit}" for kind, limit in (key.get("rates") or {}).items()),
            key.get("created_at"),
            key.get("expires_at"),
        )
        for key in items_of(answer)
    ]
    print_table("", ("id", "name", "key", "rates", "created", "expires"), rows, empty="no keys")


@app.command()
def delete(
    key_id: Annotated[str, typer.Argument(help="Id of the key (stoker keys list).")], json: JsonFlag = False
) -> None:
    """Delete a key; clients that use it are refused from now on."""
    asyncio.run(_call("DELETE", f"/apikeys/{key_id}"))
    if json:
        print_json({"id": key_id, "deleted": True})
    else:
        out.print(f"key {escape(key_id)} deleted")


def parse_rates(texts: list[str]) -> dict[str, int]:
    """`run=0 get=100` as limits a minute.

    Raises:
        CommandFailed: an unknown kind, or no whole number.
    """
    rates = {}
    for text in texts:
        kind, _, number = text.partition("=")
        if kind not in {"run", "get", "upload"} or not number.isdecimal():
            raise CommandFailed(
                f"--rate {text!r} is not understood",
                ExitCode.USAGE,
                "possible: run=N, get=N, upload=N; N a minute, 0 = unlimited",
            )
        rates[kind] = int(number)
    return rates


async def _call(method: str, path: str, **options: Any) -> Any:
    async with connected() as api:
        return await api.call(method, path, **options)
