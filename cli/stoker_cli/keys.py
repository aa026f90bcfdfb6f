"""`stoker keys`: API keys of the gateway."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from stoker.api_keys import recover_key
from stoker.core.messages import ApiKey
from stoker.protocol import Store
from stoker.settings import GatewaySettings, load
from stoker_cli.api import ask
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, items_of, out, print_json, print_table, safe

SPANS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
MOST_SPANS: Final = 10_000
"""Of the longest unit 190 years: what is more is a slip of the finger."""

app = typer.Typer(no_args_is_help=True, help="API keys of the gateway.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Limit of a kind a minute, for instance run=500; 0 = unlimited. run, get, upload."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What the key may do, for instance apps:read; repeat it for more. Default: everything. "
            "`stoker keys scopes` lists them."
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option(help="How long it is good: 12h, 30d or 8w; default: for ever.")
    ] = "",
    days: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    numbering: Annotated[
        str, typer.Option(help="Status numbers for unnamed clients: v1 (9/10/11) or v2 (10/11/12).")
    ] = "",
    json: JsonFlag = False,
) -> None:
    """Make a key. It is shown once and stored as a hash."""
    body: dict[str, Any] = {"name": name}
    if rate:
        body["rates"] = parse_rates(rate)
    if scope:
        body["scopes"] = scope
    if expires or days:
        body["expires_at"] = (datetime.now(UTC) + parse_span(expires or f"{days}d")).isoformat()
    if numbering:
        body["numbering"] = numbering
    answer = asyncio.run(ask("POST", "/apikeys", json=body))
    if json:
        print_json(answer)
    else:
        out.print(safe(str(answer.get("key"))))
        out.print(f"[dim]id {answer.get('id')}; this is the only time that the key is shown[/]")


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """The keys of this key's owner."""
    answer = asyncio.run(ask("GET", "/apikeys"))
    if json:
        print_json(answer)
        return
    rows = [
        (
            key.get("id"),
            key.get("name"),
            f"{key.get('prefix') or key.get('key_prefix') or 'inf_'}...",
            ", ".join(key.get("scopes") or ["everything"]),
            ", ".join(f"{kind}={limit}" for kind, limit in (key.get("rates") or {}).items()),
            key.get("created_at"),
            f"expired {key.get('expires_at')}" if key.get("expired") else key.get("expires_at"),
        )
        for key in items_of(answer)
    ]
    print_table("", ("id", "name", "key", "scopes", "rates", "created", "expires"), rows, empty="no keys")


@app.command()
def scopes(json: JsonFlag = False) -> None:
    """What a key can be limited to."""
    answer = asyncio.run(ask("GET", "/scopes"))
    if json:
        print_json(answer)
        return
    rows = [
        (each.get("scope"), "yes" if each.get("admin") else "", each.get("description"))
        for each in items_of(answer.get("definitions"))
    ]
    print_table("", ("scope", "administrative", "what it allows"), rows, empty="")
    families = ", ".join(str(group.get("scope")) for group in items_of(answer.get("groups")))
    out.print(f"[dim]{safe(families)}: all of the family; {safe(str(answer.get('all')))}: everything[/]")


@app.command()
def delete(
    key_id: Annotated[str, typer.Argument(help="Id of the key (stoker keys list).")], json: JsonFlag = False
) -> None:
    """Delete a key; clients that use it are refused from now on."""
    asyncio.run(ask("DELETE", f"/apikeys/{key_id}"))
    if json:
        print_json({"id": key_id, "deleted": True})
    else:
        out.print(f"key {safe(key_id)} deleted")


@app.command()
def recover(json: JsonFlag = False) -> None:
    """Make another first key, if all are lost. Run it where the gateway's settings are.

    It may do everything, and is written into the file of the first key. Works on the database, while the system runs.
    """
    settings = load(GatewaySettings)
    key = asyncio.run(_recovered(settings))
    if json:
        print_json({"id": key.id, "key_file": str(settings.key_file)})
    else:
        out.print(f"a key that may do everything is in {safe(str(settings.key_file))} [dim]id {key.id}[/]")


async def _recovered(settings: GatewaySettings) -> ApiKey:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = await Store.open(settings.store_url, settings.pool)
    try:
        return await recover_key(store, settings.key_file, round(time.time() * 1000))
    finally:
        await store.close()


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


def parse_span(text: str, option: str = "expires") -> timedelta:
    """`12h`, `30d` or `8w` as a time.

    Args:
        option: the one that it was given to.

    Raises:
        CommandFailed: it is none of these.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in SPANS or not number.isdecimal() or not 0 < int(number) <= MOST_SPANS:
        raise CommandFailed(
            f"--{option} {text!r} is not understood",
            ExitCode.USAGE,
            "possible: 12h, 30d, 8w (hours, days, weeks)",
        )
    return int(number) * SPANS[unit]
